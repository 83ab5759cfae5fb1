//! A shell in a sandbox, on your terminal: type `exit` to leave. Where standard input is no
//! terminal, a short script is typed instead.
//!
//! ```sh
//! cargo run -p examples --example terminal
//! ```

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use createos_sdk::{Client, Terminal, TerminalReader, TerminalResizer, TerminalWriter};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(terminal).await
}

async fn terminal(client: Client) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    let (rows, cols) = window_size().unwrap_or((24, 80));
    let shell = sandbox.terminal().size(rows, cols).open().await?;
    match std::io::stdin().is_terminal() {
        true => interactive(shell).await?,
        false => scripted(shell).await?,
    }
    println!("the shell has ended");
    Ok(sandbox.close().await?)
}

async fn interactive(shell: Terminal) -> examples::Result {
    let (screen, keyboard, resizer) = shell.into_parts();
    let _raw = RawMode::enter()?;
    tokio::select! {
        ended = show(screen) => ended,
        failed = type_in(keyboard) => failed,
        failed = follow_size(resizer) => failed,
    }
}

async fn show(mut screen: TerminalReader) -> examples::Result {
    let mut buffer = [0; 8192];
    loop {
        let count = screen.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut stdout = std::io::stdout();
        stdout.write_all(&buffer[..count])?;
        stdout.flush()?;
    }
}

/// Only the end of the screen is the end of the shell.
async fn type_in(mut keyboard: TerminalWriter) -> examples::Result {
    let (typed, mut keys) = mpsc::channel::<Vec<u8>>(16);
    // A thread of its own: a runtime cannot end while one of its threads waits for a key.
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if typed.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    while let Some(bytes) = keys.recv().await {
        if keyboard.write_all(&bytes).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

async fn follow_size(resizer: TerminalResizer) -> examples::Result {
    let mut changes = signal(SignalKind::window_change())?;
    loop {
        changes.recv().await;
        if let Some((rows, cols)) = window_size() {
            resizer.resize(rows, cols)?;
        }
    }
}

fn window_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Passes every key on as it is; ends on every way out.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing more can be done about it on the way out.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

async fn scripted(mut shell: Terminal) -> examples::Result {
    shell.write_all(b"echo from $(tty)\r").await?;
    shell.resize(40, 120)?;
    shell.write_all(b"echo size $(stty size); exit\r").await?;
    let mut screen = Vec::new();
    shell.read_to_end(&mut screen).await?;
    print!("{}", String::from_utf8_lossy(&screen));
    Ok(())
}
