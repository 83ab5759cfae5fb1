//! Templates: made from a Dockerfile, listed, deleted, begun with (api.md 5.8, 6.8, 9.10).

use std::time::SystemTime;

use createos_sdk::TemplateId;
use createos_sdk::wire::CreateTemplate;
use tokio::sync::watch;
use ulid::Ulid;

use super::builds::Progress;
use super::dockerfile::{self, Dockerfile, Family};
use super::error::Fields;
use super::{Core, CoreError, validate};
use crate::runtime::{HOST_ROOTFS, Image, ImageConfig, Origin, RuntimeError};
use crate::store::{InsertError, LogLine, Template, TemplatePage};

const LONGEST_NAME: usize = 63;
/// Lines that are read from the log at once.
const LINES: u32 = 500;
/// Names under which a base for Alpine is looked for.
const ALPINE: [&str; 3] = ["nodeops/sandbox:alpine", "alpine:3.20", "alpine:latest"];
/// How long to wait before asking again for a build that found no room.
const RETRY_SECONDS: u64 = 30;

impl Core {
    /// Takes a template in; it is built in the background.
    pub(crate) async fn create_template(
        &self,
        request: CreateTemplate,
    ) -> Result<Template, CoreError> {
        let dockerfile = check(&request)?;
        let asked = request.base.as_deref().filter(|base| !base.is_empty());
        let (_, config) = self.base_of(dockerfile.family, asked).await?;
        // What a base has set may make variables mean something else.
        plan(&dockerfile, &config)?;
        let id = format!("tpl_{}", Ulid::new().to_string().to_lowercase());
        let id: TemplateId =
            id.parse().map_err(|_| CoreError::Internal("no id could be made".to_owned()))?;
        let limits = self.tuning().build;
        let cancel = self.inner.builds.enter(&id, limits.at_once + limits.waiting);
        let cancel = cancel.ok_or_else(|| CoreError::Busy {
            message: format!(
                "{} templates are being built or wait for it; try again when some are done",
                limits.at_once + limits.waiting
            ),
            retry_seconds: RETRY_SECONDS,
        })?;
        let template = Template {
            id: id.clone(),
            name: request.name,
            base: asked.unwrap_or(dockerfile.family.base()).to_owned(),
            dockerfile: request.dockerfile,
            progress: Progress::Pending,
            size_bytes: 0,
            config: ImageConfig::default(),
            created_at: SystemTime::now(),
            built_at: None,
            is_deleted: false,
        };
        let inserted = self.inner.store.insert_template(template.clone()).await;
        let begun = inserted.map_err(|error| name_taken(error, &template.name)).and_then(|()| {
            let build = self.clone().build_in_turn(id.clone(), cancel);
            self.run_to_end(build)
        });
        match begun {
            Ok(build) => drop(build),
            Err(error) => {
                self.inner.builds.leave(&id);
                return Err(error);
            }
        }
        Ok(template)
    }

    /// The living template of this id or name.
    pub(crate) async fn template(&self, reference: &str) -> Result<Template, CoreError> {
        let found = self.inner.store.template(reference).await?;
        found.filter(|it| !it.is_deleted).ok_or_else(no_template)
    }

    pub(crate) async fn list_templates(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<TemplatePage, CoreError> {
        Ok(self.inner.store.list_templates(limit, offset).await?)
    }

    /// Deletes a template; a build of it ends. Sandboxes that began with it go on.
    pub(crate) async fn delete_template(&self, reference: &str) -> Result<(), CoreError> {
        let deleted = self.inner.store.delete_template(reference).await?;
        let template = deleted.ok_or_else(no_template)?;
        self.inner.builds.tell();
        // The build takes its files with it.
        if !self.inner.builds.cancel(&template.id) {
            let core = self.clone();
            let forget = async move { core.forget_files(&template.id).await };
            self.run_to_end(forget)?.await?;
        }
        Ok(())
    }

    /// Gives a deleted template's files up. What fails is done at the next start.
    pub(super) async fn forget_files(&self, id: &TemplateId) -> Result<(), CoreError> {
        if let Err(error) = self.inner.runtime.forget(id).await {
            tracing::warn!(template = %id, %error, "its files could not be removed");
        }
        Ok(())
    }

    /// Follows the log of a template's build from its beginning. There is one attempt.
    pub(crate) async fn template_log(
        &self,
        reference: &str,
        attempt: Option<&str>,
    ) -> Result<Log, CoreError> {
        let template = self.template(reference).await?;
        match attempt.map(str::parse::<u64>) {
            None | Some(Ok(1)) => {}
            Some(Ok(_)) => {
                let message = "there was one attempt to build it: 1".to_owned();
                return Err(CoreError::NoSuch { field: "attempt", message });
            }
            Some(Err(_)) => return Err(CoreError::field("attempt", "must be a number from 1")),
        }
        let news = self.inner.builds.listen();
        Ok(Log { core: self.clone(), id: template.id, place: 0, news })
    }

    /// What a sandbox of this root filesystem begins with. `None` when there is none of this
    /// name.
    pub(super) async fn origin_of(
        &self,
        rootfs: &str,
    ) -> Result<Option<(Origin, ImageConfig)>, CoreError> {
        if self.inner.catalog.has_rootfs(rootfs) {
            return Ok(Some((Origin::Host, ImageConfig::default())));
        }
        if let Some(missing) = self.inner.catalog.missing_rootfs(rootfs) {
            return Err(CoreError::NotAvailable { field: "rootfs", message: missing.to_owned() });
        }
        if let Some(image) = self.image(rootfs).await? {
            return Ok(Some((Origin::Image(image.name), image.config)));
        }
        let Some(template) = self.inner.store.template(rootfs).await? else { return Ok(None) };
        if template.is_deleted {
            let message = format!("the template {} was deleted", validate::shown(rootfs));
            return Err(CoreError::NoSuch { field: "rootfs", message });
        }
        match template.progress {
            Progress::Ready => Ok(Some((Origin::Template(template.id), template.config))),
            Progress::Failed => Err(CoreError::Conflict(format!(
                "the build of the template {} failed; its log says why",
                template.name
            ))),
            Progress::Pending | Progress::Building => Err(CoreError::Conflict(format!(
                "the template {} is not built yet; wait until it is ready",
                template.name
            ))),
        }
    }

    /// The imported root filesystem of this name; `x` is short for `x:latest`.
    async fn image(&self, name: &str) -> Result<Option<Image>, CoreError> {
        let Ok(full) = crate::images::full_name(name) else { return Ok(None) };
        Ok(self.images().await?.into_iter().find(|image| image.name == full))
    }

    /// Root filesystems that were imported.
    pub(crate) async fn images(&self) -> Result<Vec<Image>, CoreError> {
        Ok(self.inner.runtime.images().await?)
    }

    /// What a template begins with.
    pub(super) async fn base_of(
        &self,
        family: Family,
        asked: Option<&str>,
    ) -> Result<(Origin, ImageConfig), CoreError> {
        if let Some(name) = asked.filter(|name| *name != family.base()) {
            if self.inner.catalog.has_rootfs(name) {
                return Ok((Origin::Host, ImageConfig::default()));
            }
            return match self.image(name).await? {
                Some(image) => Ok((Origin::Image(image.name), image.config)),
                None => {
                    let name = validate::shown(name);
                    let text = format!("{name} is no root filesystem of this engine's catalog");
                    Err(CoreError::field("base", text))
                }
            };
        }
        let names: &[&str] = match family {
            Family::Debian => &["nodeops/sandbox:debian"],
            Family::Alpine => &ALPINE,
        };
        let images = self.images().await?;
        let imported = names.iter().find_map(|name| images.iter().find(|it| it.name == *name));
        match (imported, family) {
            (Some(image), _) => Ok((Origin::Image(image.name.clone()), image.config.clone())),
            (None, Family::Debian) => match self.inner.catalog.has_rootfs(HOST_ROOTFS) {
                true => Ok((Origin::Host, ImageConfig::default())),
                false => Err(CoreError::NotAvailable {
                    field: "dockerfile",
                    message: "this engine has no Debian system to build on".to_owned(),
                }),
            },
            (None, Family::Alpine) => Err(CoreError::NotAvailable {
                field: "dockerfile",
                message: "this machine has no Alpine system to build on; import one \
                          (createos local image import alpine:3.20 FILE, a tarball of it or what \
                          docker save wrote), or build on nodeops/sandbox:debian"
                    .to_owned(),
            }),
        }
    }

    /// Takes up what an earlier engine left: builds that were waiting wait again; those that
    /// ran have failed.
    pub(super) async fn recover_templates(&self) -> Result<(), CoreError> {
        const INTERRUPTED: &str = "the engine ended while this template was being built; delete \
                                   it and submit it again";
        let store = &self.inner.store;
        for template in store.templates_at(Progress::Building).await? {
            let last = store.log_after(&template.id, 0, u32::MAX).await?;
            let line = LogLine {
                place: last.last().map_or(0, |line| line.place) + 1,
                at: SystemTime::now(),
                level: "error".to_owned(),
                line: INTERRUPTED.to_owned(),
            };
            store.add_to_log(&template.id, vec![line]).await?;
            store.advance_template(&template.id, Progress::Building, Progress::Failed).await?;
        }
        let ready = store.templates_at(Progress::Ready).await?;
        for id in self.inner.runtime.templates().await? {
            if !ready.iter().any(|template| template.id == id) {
                self.forget_files(&id).await?;
            }
        }
        for template in store.templates_at(Progress::Pending).await? {
            if let Some(cancel) = self.inner.builds.enter(&template.id, usize::MAX) {
                drop(self.run_to_end(self.clone().build_in_turn(template.id, cancel))?);
            }
        }
        Ok(())
    }
}

/// What a follower of a log gets next.
#[derive(Debug)]
pub(crate) enum Next {
    Line(LogLine),
    /// The build has ended; nothing follows.
    Ended(Progress),
    /// The template was deleted before it was built; nothing follows.
    Cancelled,
}

/// The log of a build, from its beginning.
pub(crate) struct Log {
    core: Core,
    id: TemplateId,
    place: u64,
    news: watch::Receiver<()>,
}

impl Log {
    /// What there is behind the last line that was taken; empty when nothing is, for now.
    pub(crate) async fn lines(&mut self) -> Result<Vec<LogLine>, CoreError> {
        let lines = self.core.inner.store.log_after(&self.id, self.place, LINES).await?;
        self.place = lines.last().map_or(self.place, |line| line.place);
        Ok(lines)
    }

    /// Waits for lines, or the end. Without either it is the engine that ends.
    pub(crate) async fn wait(&mut self) -> Result<Vec<Next>, CoreError> {
        loop {
            self.news.mark_unchanged();
            // Asked before the lines are read: what was written before an end is not missed.
            let ended = self.ended().await?;
            let lines = self.lines().await?;
            if !lines.is_empty() {
                return Ok(lines.into_iter().map(Next::Line).collect());
            }
            if let Some(end) = ended {
                return Ok(vec![end]);
            }
            tokio::select! {
                _ = self.news.changed() => {}
                () = self.core.inner.stop.cancelled() => {
                    return Err(CoreError::Lost("the engine is shutting down".to_owned()));
                }
            }
        }
    }

    async fn ended(&self) -> Result<Option<Next>, CoreError> {
        let template = self.core.inner.store.template(self.id.as_str()).await?;
        Ok(match template {
            Some(template) if template.progress.is_final() => Some(Next::Ended(template.progress)),
            Some(template) if !template.is_deleted => None,
            _ => Some(Next::Cancelled),
        })
    }
}

fn no_template() -> CoreError {
    CoreError::NoSuch { field: "template", message: "template not found".to_owned() }
}

fn name_taken(error: InsertError, name: &str) -> CoreError {
    match error {
        InsertError::Store(error) => error.into(),
        _ => CoreError::Conflict(format!(
            "there is a template {name:?}; delete it first, or choose another name"
        )),
    }
}

fn check(request: &CreateTemplate) -> Result<Dockerfile, CoreError> {
    let mut wrong = Fields::new();
    if let Err(why) = check_name(&request.name) {
        wrong.insert("name".into(), why);
    }
    let text = &request.dockerfile;
    let parsed = if text.len() > dockerfile::LONGEST {
        let most = dockerfile::LONGEST;
        Err(format!("has {} bytes; at most {most} are allowed", text.len()))
    } else {
        Dockerfile::parse(text).map_err(|fault| fault.to_string())
    };
    match parsed {
        Ok(dockerfile) => {
            CoreError::check(wrong)?;
            Ok(dockerfile)
        }
        Err(why) => {
            wrong.insert("dockerfile".into(), why);
            Err(CoreError::Invalid(wrong))
        }
    }
}

/// Reads the plan of a Dockerfile that was taken in before.
pub(super) fn plan(
    dockerfile: &Dockerfile,
    base: &ImageConfig,
) -> Result<dockerfile::Plan, CoreError> {
    dockerfile.plan(base).map_err(|fault| CoreError::field("dockerfile", fault.to_string()))
}

fn check_name(name: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let valid = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.contains("..");
    if !valid {
        return Err(format!(
            "letters, digits, `.`, `_` and `-`, at most {LONGEST_NAME} of them, make a name; a \
             letter or digit comes first"
        ));
    }
    if name.starts_with("tpl_") || name.starts_with("sb-") {
        return Err("looks like an id; choose another name".to_owned());
    }
    Ok(())
}

/// An origin that is gone when a sandbox is to begin with it was deleted at that moment.
pub(super) fn begin_error(error: RuntimeError) -> CoreError {
    match error {
        RuntimeError::NoSuchFile(name) => {
            CoreError::NoSuch { field: "rootfs", message: format!("{name} was deleted or removed") }
        }
        error => error.into(),
    }
}
