//! Memory snapshots: the processes of a sandbox as files, through CRIU.
//!
//! CRIU goes with the kernel, and versions say little: so the first time it is needed, a
//! small sandbox is saved and brought back, and that decides for as long as the engine runs.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use createos_sdk::SandboxId;
use futures::FutureExt;
use tokio::sync::OnceCell;

use super::{Namespaces, agent, blocking};
use crate::runtime::{BootInfo, BootSpec, Limits, RuntimeError};
use crate::tree::remove_tree;
use crate::warden_protocol::{Boot, Memory};

/// Names the program, and rules out all others.
const VARIABLE: &str = "CREATEOS_CRIU";
const NAME: &str = "criu";
/// Where packages and `make install` put it; root's PATH may lack them.
const PLACES: [&str; 3] = ["/usr/local/sbin/criu", "/usr/sbin/criu", "/sbin/criu"];
/// The sandbox that the trial is made with.
const TRIAL: &str = "sb-0000000000000000000000criu";
pub(crate) const CRIU_REMEDY: &str = "run the engine as root, with CRIU 4.2 or newer in PATH, or named \
                                 by CREATEOS_CRIU, and with iproute2";

/// The CRIU program of this machine.
#[derive(Default)]
pub(super) struct Criu {
    /// As configured.
    pub(super) program: Option<PathBuf>,
    trial: OnceCell<Result<PathBuf, String>>,
}

impl Namespaces {
    /// Uses this program for memory snapshots, and no other.
    pub(crate) fn with_criu(mut self, program: Option<PathBuf>) -> Self {
        self.criu.program = program;
        self
    }

    /// The program that can save a sandbox's processes and bring them back here: it has
    /// done so. The first call takes a good part of a second.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Unsupported`] says what is missing, without the remedy.
    pub(crate) async fn trial(&self) -> Result<PathBuf, RuntimeError> {
        // Boxed: a trial dumps and restores, which would ask for a trial.
        let tried = self.criu.trial.get_or_init(|| self.try_programs().boxed()).await;
        tried.clone().map_err(RuntimeError::Unsupported)
    }

    async fn try_programs(&self) -> Result<PathBuf, String> {
        if !self.facts.privileged {
            return Err("only an engine that runs as root can save processes".to_owned());
        }
        let programs = candidates(self.criu.program.as_deref());
        if programs.is_empty() {
            return Err("there is no CRIU program on this machine".to_owned());
        }
        let mut reasons = Vec::new();
        for program in programs {
            match self.try_program(&program).await {
                Ok(()) => {
                    tracing::info!(program = %program.display(), "memory snapshots work");
                    return Ok(program);
                }
                Err(error) => reasons.push(format!("{}: {error}", program.display())),
            }
        }
        Err(reasons.join("; "))
    }

    async fn try_program(&self, program: &Path) -> Result<(), RuntimeError> {
        let invalid = |_| RuntimeError::Unsupported("no name for a sandbox".to_owned());
        let id: SandboxId = TRIAL.parse().map_err(invalid)?;
        let spec = BootSpec {
            id: id.clone(),
            name: "trial".to_owned(),
            ip: [10, 0, 0, 1].into(),
            limits: Limits {
                memory_bytes: 256 << 20,
                cpu_percent: 100,
                max_processes: 64,
                disk_mib: 1024,
            },
            nesting: false,
        };
        let tried = async {
            self.boot_machine(spec.clone()).await?;
            self.save(&id, program).await?;
            self.bring_back(spec, program).await
        };
        let tried = tried.await;
        let removed = super::Runtime::remove(self, &id).await;
        tried.and(removed)
    }

    /// Saves the processes of a running sandbox in its own directory and ends them. Commands
    /// and transfers that somebody waits for end before.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Unsupported`] where this machine cannot do that at all. With
    /// [`RuntimeError::NotSaved`], this sandbox cannot be saved as it is, and runs on (or its
    /// death is told, should CRIU have been killed at it).
    pub(crate) async fn dump(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let program = self.trial().await?;
        self.save(id, &program).await
    }

    /// Brings a sandbox back from what [`dump`](Self::dump) saved, or what
    /// [`share_image`](Self::share_image) gave it, and removes that. It may have got another
    /// name, address or other limits meanwhile.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::NotRestored`] names the cause. Nothing is left running, and the image
    /// is as it was, unless the sandbox had already begun to run: then there is none.
    pub(crate) async fn restore(&self, spec: BootSpec) -> Result<BootInfo, RuntimeError> {
        let program = self.trial().await?;
        let id = spec.id.clone();
        let info = self.bring_back(spec, &program).await?;
        self.discard_image(&id).await?;
        Ok(info)
    }

    /// Whether there is an image of a sandbox's processes.
    pub(crate) fn has_image(&self, id: &SandboxId) -> bool {
        self.data_dir.join(image_of(id)).is_dir()
    }

    /// Removes the image of a sandbox's processes, and what is left of earlier ones.
    /// Idempotent.
    pub(crate) async fn discard_image(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let images = self.data_dir.join(directory_of(id)).join("images");
        blocking("remove the image", move || remove_tree(&images)).await
    }

    /// Puts an image aside that no sandbox came back from.
    pub(crate) async fn give_image_up(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let image = self.data_dir.join(image_of(id));
        let aside = image.with_extension("failed");
        let give_up = move || {
            remove_tree(&aside)?;
            fs::rename(&image, &aside)
        };
        blocking("put the image aside", give_up).await
    }

    /// Gives another sandbox the image of this one as well, without a copy.
    pub(crate) async fn share_image(
        &self,
        from: &SandboxId,
        to: &SandboxId,
    ) -> Result<(), RuntimeError> {
        let (from, to) = (self.data_dir.join(image_of(from)), self.data_dir.join(image_of(to)));
        let share = move || {
            let fresh = to.with_extension("shared");
            make_place(&fresh)?;
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                fs::hard_link(entry.path(), fresh.join(entry.file_name()))?;
            }
            fs::set_permissions(&fresh, fs::metadata(&from)?.permissions())?;
            put_in_place(&fresh, &to)
        };
        blocking("share the image", share).await
    }

    pub(super) async fn save(&self, id: &SandboxId, program: &Path) -> Result<(), RuntimeError> {
        let init = self.init_of(id)?;
        let (warden, state, id) = (self.warden().await?, Arc::clone(&self.state), id.clone());
        // Its own for each attempt, or a late end of one could touch what another made.
        let fresh = format!("{}.{}", image_of(&id), init.pid);
        let memory = Memory { images: fresh.clone(), criu: text(program)? };
        let (fresh, image) = (self.data_dir.join(fresh), self.data_dir.join(image_of(&id)));
        // To its end, whoever waits for it: the books must say what has become of it.
        let saving = async move {
            let place = fresh.clone();
            blocking("make room for the image", move || make_place(&place)).await?;
            if !agent::detach(&init).await {
                tracing::debug!(sandbox = %id, "the agent keeps connections; CRIU may refuse that");
            }
            if let Err(error) = warden.dump(id.as_str(), init.pid, memory).await {
                blocking("remove the image", move || remove_tree(&fresh)).await?;
                return Err(match error {
                    RuntimeError::Unsupported(message) => RuntimeError::NotSaved(message),
                    other => other,
                });
            }
            state.forget(&id, &init);
            blocking("keep the image", move || put_in_place(&fresh, &image)).await
        };
        tokio::spawn(saving).await.unwrap_or_else(|error| {
            let context = "cannot save the sandbox".to_owned();
            Err(RuntimeError::Io { context, source: io::Error::other(error) })
        })
    }

    async fn bring_back(&self, spec: BootSpec, program: &Path) -> Result<BootInfo, RuntimeError> {
        let began = Instant::now();
        if !self.has_image(&spec.id) {
            return Err(RuntimeError::NotRestored("its processes were not saved".to_owned()));
        }
        let memory = Memory { images: image_of(&spec.id), criu: text(program)? };
        let boot = Boot { memory: Some(memory), ..self.boot_command(&spec)? };
        self.start_machine(spec.id, boot).await.map_err(|error| match error {
            RuntimeError::Unsupported(message) => RuntimeError::NotRestored(message),
            other => other,
        })?;
        Ok(BootInfo { spawn: began.elapsed() })
    }
}

fn directory_of(id: &SandboxId) -> String {
    format!("sandboxes/{id}")
}

fn image_of(id: &SandboxId) -> String {
    format!("{}/images/memory", directory_of(id))
}

/// An empty directory beside where the image is to be: what is there is always whole.
fn make_place(fresh: &Path) -> io::Result<()> {
    if let Some(parent) = fresh.parent() {
        // An image holds whatever was in memory, keys and all.
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o700))?;
    }
    remove_tree(fresh)?;
    fs::create_dir(fresh)
}

fn put_in_place(fresh: &Path, image: &Path) -> io::Result<()> {
    remove_tree(image)?;
    fs::rename(fresh, image)
}

fn text(program: &Path) -> Result<String, RuntimeError> {
    let text = program.to_str().map(str::to_owned);
    text.ok_or_else(|| RuntimeError::Unsupported("the path of CRIU is not UTF-8".to_owned()))
}

/// Programs worth a trial, the likeliest first.
fn candidates(configured: Option<&Path>) -> Vec<PathBuf> {
    if let Some(program) = configured {
        return vec![program.to_owned()];
    }
    if let Some(program) = std::env::var_os(VARIABLE).filter(|program| !program.is_empty()) {
        return vec![PathBuf::from(program)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    let cached = cache_dir().map(|dir| dir.join("createos/criu/criu")).filter(|p| is_own(p));
    let all = in_path.map(|dir| dir.join(NAME)).chain(PLACES.map(PathBuf::from)).chain(cached);
    let mut programs: Vec<PathBuf> = Vec::new();
    for program in all {
        let Ok(real) = program.canonicalize() else { continue };
        if real.is_file() && !programs.contains(&real) {
            programs.push(real);
        }
    }
    programs
}

fn cache_dir() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    given
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
}

/// Whether nobody else could have put it there: it runs with every right.
fn is_own(program: &Path) -> bool {
    let metadata = program.metadata();
    let uid = rustix::process::geteuid().as_raw();
    metadata.is_ok_and(|metadata| metadata.uid() == uid && metadata.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_program_is_the_only_one() {
        let program = Path::new("/opt/criu");
        assert_eq!(candidates(Some(program)), [program]);
    }

    #[test]
    fn an_image_gets_a_private_place_and_replaces_an_older_one() {
        let dir = tempfile::tempdir().expect("directory");
        let (image, fresh) = (dir.path().join("images/memory"), dir.path().join("images/memory.7"));
        fs::create_dir_all(fresh.join("left")).expect("left over");
        fs::create_dir_all(image.join("old")).expect("an older one");
        make_place(&fresh).expect("made");
        assert_eq!(fs::read_dir(&fresh).expect("directory").count(), 0);
        let mode = fs::metadata(dir.path().join("images")).expect("parent").mode();
        assert_eq!(mode & 0o777, 0o700);
        put_in_place(&fresh, &image).expect("placed");
        assert!(!image.join("old").exists() && !fresh.exists());
    }
}
