//! The shell of the API: the sign-in is all that it needs.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{
    ErrorKind, RequestOptions, RetryPolicy, Sandbox, Terminal, TerminalReader, TerminalResizer,
    TerminalWriter,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Payload;
use crate::resolve::Found;
use crate::terminal::{Escape, Hold, Keys, Screen, Sizes, size};
use crate::wait;

const PIECE: usize = 32 << 10;
/// Longest wait for what the server says of a sandbox whose shell has ended.
const LAST_QUESTION: Duration = Duration::from_secs(5);

/// How a session ended, other than by a failure of this machine.
enum End {
    /// The server closed it, or the connection is gone: that looks the same.
    Closed(io::Result<()>),
    /// The user closed it.
    Escaped,
}

pub(super) async fn run(ctx: &Context, sandbox: Sandbox, found: Found) -> Result<Exit, Failure> {
    let label = found.label();
    ctx.out.hint(&format!("connecting to {label}; Enter ~ . closes a shell that hangs"));
    let open = async || {
        let (rows, cols) = size();
        let opening = sandbox.terminal().size(rows, cols).open();
        opening.await.map_err(|error| found.explain(error))
    };
    let terminal = wait::on_running(ctx, &sandbox, &found, open).await?;
    match session(terminal).await? {
        End::Escaped => {
            ctx.out.note(&format!("closed the shell in {label}"));
            Ok(Exit::Success)
        }
        End::Closed(outcome) => judge(&sandbox, &found, outcome).await,
    }
}

/// Both directions and the size, until one of them ends it. The terminal is as it was after.
async fn session(terminal: Terminal) -> Result<End, Failure> {
    let cannot = |error| Failure::io("cannot use this terminal", &error);
    let keys = Keys::listen().map_err(cannot)?;
    let mut sizes = Sizes::listen().map_err(cannot)?;
    let _raw = Hold::raw().map_err(cannot)?;
    let (reader, writer, resizer) = terminal.into_parts();
    tokio::select! {
        end = output(reader) => end,
        end = input(&keys, writer) => end,
        never = follow_size(&mut sizes, resizer) => match never {},
    }
}

async fn output(mut reader: TerminalReader) -> Result<End, Failure> {
    let mut payload = Payload::new();
    let mut screen = Screen::new();
    let mut piece = vec![0; PIECE];
    loop {
        let count = match reader.read(&mut piece).await {
            Ok(0) => return Ok(End::Closed(Ok(()))),
            Ok(count) => count,
            Err(error) => return Ok(End::Closed(Err(error))),
        };
        screen.shown(&piece[..count]);
        payload.stdout(&piece[..count]).await?;
    }
}

async fn input(keys: &Keys, mut writer: TerminalWriter) -> Result<End, Failure> {
    let mut escape = Escape::new();
    let mut typed = vec![0; PIECE];
    let mut through = Vec::new();
    loop {
        let count = keys.read(&mut typed).await;
        let count = count.map_err(|error| Failure::io("cannot read the terminal", &error))?;
        through.clear();
        let escaped = escape.filter(&typed[..count], &mut through);
        // A connection that is gone is for the other direction to tell.
        let sent = writer.write_all(&through).await;
        match (escaped, count, sent) {
            (true, ..) => return Ok(End::Escaped),
            (_, 0, _) => {
                let _ = writer.shutdown().await;
                return std::future::pending().await;
            }
            (_, _, Err(_)) => return std::future::pending().await,
            _ => {}
        }
    }
}

async fn follow_size(sizes: &mut Sizes, resizer: TerminalResizer) -> Infallible {
    loop {
        let (rows, cols) = sizes.next().await;
        // A size is never 0 here, which is all that is refused.
        let _ = resizer.resize(rows, cols);
    }
}

/// A shell that ended and a server that is gone both close the connection; the server knows.
async fn judge(sandbox: &Sandbox, found: &Found, outcome: io::Result<()>) -> Result<Exit, Failure> {
    let options = RequestOptions::new().timeout(LAST_QUESTION).retry(RetryPolicy::none());
    let label = found.label();
    let look = format!("look at it: createos sandbox get {}", found.handle());
    match (sandbox.refresh().with(options).await, outcome) {
        (Ok(view), Ok(())) if view.status == SandboxStatus::Running => Ok(Exit::Success),
        (Ok(view), Err(_)) if view.status == SandboxStatus::Running => {
            Err(Failure::new(Class::Network, format!("{label}: the connection was lost"))
                .hint(format!("open another: createos sandbox shell {}", found.handle())))
        }
        (Ok(view), _) => {
            Err(Failure::local(format!("{label} is {}; the shell has ended", view.status))
                .hint(look))
        }
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {
            Err(Failure::local(format!("{label} is gone, and the shell with it")))
        }
        (Err(error), _) => {
            Err(found.explain(error).saying(format!("{label}: the connection was lost")))
        }
    }
}
