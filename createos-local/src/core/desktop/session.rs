//! The session inside: starting it, and having it do what the engine cannot do from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::SandboxId;
use futures::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::{Desktop, Memory, ScreenId, has_desktop, lock};
use crate::core::processes::declared;
use crate::core::slot::Slot;
use crate::core::{Core, CoreError};
use crate::runtime::{ExecEvent, ExecSpec, Place, Runtime, RuntimeError};
use crate::store::Sandbox;
use crate::x11::Display;

const SCRIPT: &str = "/run/createos-desktop/session";
const FILES: [(&str, &str); 2] = [
    (SCRIPT, include_str!("session.sh")),
    ("/run/createos-desktop/createos_tokens.py", include_str!("tokens.py")),
];

/// Exit codes of the session.
pub(super) const NOT_FOUND: i32 = 127;
pub(super) const NO_ROOM: i32 = 3;

/// How long the session may take for one thing.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that it may say.
const MAX_OUTPUT: usize = 16 << 20;
/// One that does not come up is not started again all the time.
const BETWEEN_STARTS: Duration = Duration::from_secs(5);
/// How long a desktop may take to come up where it is tried.
const TRIAL: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What every program of the desktop finds, unless the sandbox declares otherwise.
const ENV: [(&str, &str); 2] = [("LANG", "C.UTF-8"), ("XDG_RUNTIME_DIR", "/run/createos-desktop")];

/// What the session said.
pub(super) struct Output {
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
}

impl Output {
    pub(super) fn check(self, otherwise: &str) -> Result<(), CoreError> {
        match self.code {
            0 => Ok(()),
            code => Err(CoreError::Desktop(format!("{otherwise} (exit code {code})"))),
        }
    }
}

impl Core {
    /// Has the desktop of a sandbox that has just been booted or restored come up, without
    /// waiting for it. Where it is up already, nothing happens.
    pub(in crate::core) fn begin_desktop(&self, sandbox: &Sandbox, slot: &Slot) {
        if !has_desktop(sandbox) {
            return;
        }
        let (runtime, sandbox) = (Arc::clone(&self.inner.runtime), sandbox.clone());
        let end = slot.end_of_life();
        // It keeps nobody from a pause, and is no activity.
        tokio::spawn(async move {
            let started = end
                .run_until_cancelled(start(&*runtime, sandbox.id(), environment(&sandbox)))
                .await;
            if let Some(Err(error)) = started {
                tracing::warn!(sandbox = %sandbox.id(), %error, "the desktop was not started");
            }
        });
    }
}

impl Desktop {
    /// Why there is no X server for a screen. One that should be there is started again.
    pub(super) async fn absent(&self, screen: ScreenId) -> CoreError {
        match self.is_kept(screen).await {
            Ok(true) => {}
            Ok(false) => {
                return CoreError::NoSuch {
                    field: "screen_id",
                    message: format!("there is no {screen}, or it has not appeared yet"),
                };
            }
            Err(error) => return error,
        }
        let is_due = self.memory(|memory| {
            let mut last = lock(&memory.last_start);
            let due = last.is_none_or(|last| last.elapsed() >= BETWEEN_STARTS);
            if due {
                *last = Some(Instant::now());
            }
            due
        });
        if is_due && let Ok(slot) = self.slot() {
            self.live.core.begin_desktop(self.live.sandbox(), &slot);
        }
        CoreError::Desktop(format!("{screen} is still starting"))
    }

    pub(super) fn slot(&self) -> Result<Arc<Slot>, CoreError> {
        let slot = self.live.core.inner.slots.get_existing(self.live.id());
        slot.ok_or_else(|| self.live.life.lost())
    }

    pub(super) fn memory<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        // Without a slot, its life has ended, and all of this comes to nothing.
        match self.slot() {
            Ok(slot) => look(&slot.desktop),
            Err(_) => look(&Memory::default()),
        }
    }

    /// Has the session do something, with words that are never read as a command line.
    pub(super) async fn session(
        &self,
        screen: ScreenId,
        words: &[&str],
        stdin: Option<Bytes>,
    ) -> Result<Output, CoreError> {
        let mut env = environment(self.live.sandbox());
        env.insert("DISPLAY".to_owned(), format!(":{}", screen.number()));
        let running = run(self.live.runtime(), self.live.id(), words, env, stdin);
        match self.live.life.run_until_cancelled(timeout(PATIENCE, running)).await {
            Some(Ok(output)) => Ok(output?),
            Some(Err(_)) => {
                Err(CoreError::Desktop(format!("no answer within {} s", PATIENCE.as_secs())))
            }
            None => Err(self.live.life.lost()),
        }
    }

    /// Writes a small file inside.
    pub(super) async fn write(&self, path: &str, content: &str) -> Result<(), CoreError> {
        let writing = write(self.live.runtime(), self.live.id(), path, content);
        let written = self.live.life.run_until_cancelled(writing).await;
        Ok(written.ok_or_else(|| self.live.life.lost())??)
    }
}

fn environment(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut env = default_environment();
    env.extend(declared(sandbox));
    env
}

fn default_environment() -> BTreeMap<String, String> {
    ENV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Starts a desktop in a sandbox and waits until one can work at it.
pub(crate) async fn try_desktop(runtime: &dyn Runtime, id: &SandboxId) -> Result<(), String> {
    start(runtime, id, default_environment()).await.map_err(|error| error.to_string())?;
    let ready = async {
        loop {
            if let Ok(stream) = runtime.connect_unix(id, &ScreenId::FIRST.socket()).await
                && let Ok(mut display) = Display::open(stream).await
                && let Ok(true) = display.is_managed().await
            {
                return;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    };
    let late = |_| format!("its screen did not appear within {} s", TRIAL.as_secs());
    timeout(TRIAL, ready).await.map_err(late)
}

async fn start(
    runtime: &dyn Runtime,
    id: &SandboxId,
    env: BTreeMap<String, String>,
) -> Result<(), RuntimeError> {
    for (path, content) in FILES {
        write(runtime, id, path, content).await?;
    }
    let output = run(runtime, id, &["boot"], env, None).await?;
    match output.code {
        0 => Ok(()),
        code => Err(RuntimeError::Refused(format!("its session ended with exit code {code}"))),
    }
}

async fn write(
    runtime: &dyn Runtime,
    id: &SandboxId,
    path: &str,
    content: &str,
) -> Result<(), RuntimeError> {
    let mut file = runtime.write_file(id, path.as_bytes()).await?;
    file.write(Bytes::copy_from_slice(content.as_bytes())).await?;
    file.commit().await.map(drop)
}

async fn run(
    runtime: &dyn Runtime,
    id: &SandboxId,
    words: &[&str],
    env: BTreeMap<String, String>,
    stdin: Option<Bytes>,
) -> Result<Output, RuntimeError> {
    let args = [SCRIPT].iter().chain(words).map(|word| (*word).to_owned()).collect();
    let (program, place) = ("bash".to_owned(), Place::default());
    let spec = ExecSpec { program, args, env, stdin, place };
    let mut events = runtime.exec(id, spec).await?;
    let mut stdout = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ExecEvent::Stderr(_) => {}
            ExecEvent::Exited(reason) => return Ok(Output { code: reason.code(), stdout }),
        }
        if stdout.len() > MAX_OUTPUT {
            let text = format!("it holds more than {} MiB", MAX_OUTPUT >> 20);
            return Err(RuntimeError::Refused(text));
        }
    }
    Err(RuntimeError::Unreachable("the command's end was not reported".to_owned()))
}
