//! The build of a template: its commands run in a sandbox that becomes the template.
//!
//! That sandbox has no record: whatever ends the engine, the next one finds files without an
//! owner and removes them.

use std::net::Ipv4Addr;

use createos_sdk::{SandboxId, TemplateId};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::build_log::BuildLog;
use super::builds::Progress;
use super::create::new_id;
use super::dockerfile::{Action, Dockerfile, Plan, Step};
use super::templates::{begin_error, plan};
use super::{Core, CoreError};
use crate::runtime::{
    BootSpec, ExecEvent, ExecSpec, ExitReason, ImageConfig, Limits, Origin, RuntimeError,
};
use crate::store::Template;

/// The address of every sandbox that builds; none of them can be reached.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// Why a build did not come to its end.
enum Broken {
    /// One of its own commands, or the base, is at fault; the text is for its log.
    Failed(String),
    /// The engine is.
    Engine(CoreError),
}

impl<E: Into<CoreError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

impl Core {
    /// Builds a template when there is room for it. It has been taken into the builds.
    pub(super) async fn build_in_turn(
        self,
        id: TemplateId,
        cancel: CancellationToken,
    ) -> Result<(), CoreError> {
        let outcome = self.wait_and_build(&id, &cancel).await;
        self.inner.builds.leave(&id);
        if let Err(error) = &outcome {
            tracing::error!(template = %id, %error, "its build could not be written down");
        }
        // Deleted meanwhile, or after the deletion looked for a build: its files must go.
        match self.inner.store.template(id.as_str()).await? {
            Some(template) if !template.is_deleted => {}
            _ => self.forget_files(&id).await?,
        }
        self.inner.builds.tell();
        outcome
    }

    async fn wait_and_build(
        &self,
        id: &TemplateId,
        cancel: &CancellationToken,
    ) -> Result<(), CoreError> {
        let room = tokio::select! {
            biased;
            // It is still `pending`, and the next engine takes it up; or it is deleted.
            () = self.inner.stop.cancelled() => return Ok(()),
            () = cancel.cancelled() => return Ok(()),
            room = self.inner.builds.room.acquire() => room,
        };
        let _room = room.map_err(|_| CoreError::Internal("builds are closed".to_owned()))?;
        let store = &self.inner.store;
        let begun = store.advance_template(id, Progress::Pending, Progress::Building).await?;
        let Some(template) = begun else { return Ok(()) };
        self.inner.builds.tell();

        let mut log = BuildLog::new(self, id);
        let builder = new_id()?;
        let built = self.build(&template, &builder, cancel, &mut log).await;
        if let Err(error) = self.inner.runtime.remove(&builder).await {
            tracing::warn!(template = %id, %error, "what built it is left to the next start");
        }
        match built {
            Ok((size, config)) => {
                log.say("info", format!("Built: {size} bytes"));
                log.write().await?;
                store.finish_template(id, size, config).await?;
            }
            Err(broken) => {
                let why = match broken {
                    Broken::Failed(why) => why,
                    Broken::Engine(error) => {
                        tracing::warn!(template = %id, %error, "it could not be built");
                        format!("the engine could not build it: {error}")
                    }
                };
                log.say("error", why);
                log.write().await?;
                store.advance_template(id, Progress::Building, Progress::Failed).await?;
            }
        }
        Ok(())
    }

    async fn build(
        &self,
        template: &Template,
        builder: &SandboxId,
        cancel: &CancellationToken,
        log: &mut BuildLog<'_>,
    ) -> Result<(u64, ImageConfig), Broken> {
        let time = self.tuning().build.time;
        let deadline = Instant::now() + time;
        let work = self.run_steps(template, builder, log);
        let config = tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => {
                let why = "the engine was stopped during the build; submit it again";
                return Err(Broken::Failed(why.to_owned()));
            }
            () = cancel.cancelled() => return Err(Broken::Failed("deleted".to_owned())),
            outcome = timeout_at(deadline, work) => outcome.map_err(|_| {
                let seconds = time.as_secs();
                Broken::Failed(format!("the build took longer than {seconds} seconds"))
            })??,
        };
        self.inner.runtime.stop(builder).await?;
        Ok((self.inner.runtime.keep(builder, &template.id).await?, config))
    }

    async fn run_steps(
        &self,
        template: &Template,
        builder: &SandboxId,
        log: &mut BuildLog<'_>,
    ) -> Result<ImageConfig, Broken> {
        let dockerfile = Dockerfile::parse(&template.dockerfile);
        let dockerfile = dockerfile.map_err(|fault| Broken::Failed(fault.to_string()))?;
        let asked = Some(template.base.as_str()).filter(|base| *base != dockerfile.family.base());
        let (origin, config) = self.base_of(dockerfile.family, asked).await?;
        let Plan { steps, config } = plan(&dockerfile, &config)?;
        self.boot_builder(builder, &origin).await?;
        // It ends with the build, whatever ends that.
        let uplink = self.connect_builder(builder).await.unwrap_or_else(|error| {
            log.say("warn", format!("commands have no way out to the network: {error}"));
            None
        });
        let count = steps.len();
        let mut room = self.tuning().build.output_bytes;
        for (index, step) in steps.into_iter().enumerate() {
            log.say("info", format!("Step {}/{count} : {}", index + 1, step.text));
            log.write().await?;
            self.run_step(builder, step, &mut room, log).await?;
        }
        if config.user.is_some() {
            // Otherwise no sandbox could run anything.
            let check = ["/bin/sh", "-c", ":"].map(str::to_owned).to_vec();
            self.run_command(builder, check, &config, &mut room, log).await?;
        }
        if let Some(uplink) = uplink {
            uplink.close().await;
        }
        Ok(config)
    }

    async fn boot_builder(&self, id: &SandboxId, origin: &Origin) -> Result<(), Broken> {
        let limits = self.tuning().build;
        self.inner.runtime.begin(id, origin).await.map_err(begin_error)?;
        let spec = BootSpec {
            id: id.clone(),
            name: "build".to_owned(),
            ip: ADDRESS,
            limits: Limits {
                memory_bytes: limits.memory_bytes,
                cpu_percent: limits.cpu_percent,
                max_processes: limits.processes,
                disk_mib: limits.disk_mib,
            },
            nesting: false,
        };
        self.inner.runtime.boot(spec).await?;
        Ok(())
    }

    async fn run_step(
        &self,
        builder: &SandboxId,
        step: Step,
        room: &mut u64,
        log: &mut BuildLog<'_>,
    ) -> Result<(), Broken> {
        match step.action {
            Action::Noted => Ok(()),
            Action::Ignored(why) => {
                log.say("info", format!(" ---> {why}"));
                Ok(())
            }
            Action::MakeDirectories(paths) => {
                let make = ["mkdir", "-p", "--"].map(str::to_owned);
                let argv = make.into_iter().chain(paths).collect();
                self.run_command(builder, argv, &ImageConfig::default(), room, log).await
            }
            Action::Run { argv, config } => {
                self.run_command(builder, argv, &config, room, log).await
            }
        }
    }

    /// Runs a command to its end, which must be a good one.
    async fn run_command(
        &self,
        builder: &SandboxId,
        argv: Vec<String>,
        config: &ImageConfig,
        room: &mut u64,
        log: &mut BuildLog<'_>,
    ) -> Result<(), Broken> {
        let mut argv = argv.into_iter();
        let spec = ExecSpec {
            program: argv.next().unwrap_or_default(),
            args: argv.collect(),
            env: config.env.clone(),
            stdin: None,
            place: config.place(),
        };
        let mut events = match self.inner.runtime.exec(builder, spec).await {
            Err(
                RuntimeError::NotStarted { message, .. }
                | RuntimeError::Refused(message)
                | RuntimeError::BadPath(message),
            ) => return Err(Broken::Failed(message)),
            events => events?,
        };
        loop {
            // Lines are not to wait for the next one to come.
            let event = match timeout_at(log.due(), events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    log.write_due().await?;
                    continue;
                }
            };
            match event {
                Some(Ok(ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes))) => {
                    log.output(&bytes);
                    log.write_due().await?;
                    *room = room.saturating_sub(bytes.len() as u64);
                    if *room == 0 {
                        let most = self.tuning().build.output_bytes >> 20;
                        return Err(Broken::Failed(format!(
                            "killed: the commands of the build wrote more than {most} MiB; \
                             send output to a file or to /dev/null"
                        )));
                    }
                }
                Some(Ok(ExecEvent::Exited(ExitReason::Code(0)))) => {
                    log.end_partial();
                    return Ok(());
                }
                Some(Ok(ExecEvent::Exited(reason))) => {
                    return Err(Broken::Failed(match reason {
                        ExitReason::Code(code) => format!("the command failed with code {code}"),
                        ExitReason::Signal(signal) => {
                            format!("the command was killed by signal {signal}")
                        }
                    }));
                }
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let lost = "the command's end was not reported".to_owned();
                    return Err(Broken::Engine(CoreError::Lost(lost)));
                }
            }
        }
    }
}
