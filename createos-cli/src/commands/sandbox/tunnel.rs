//! `createos sandbox tunnel`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use createos_sdk::wire::SandboxStatus;
use createos_sdk::{Error, ErrorKind, RequestOptions, RetryPolicy, Sandbox, TunnelEvent};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::prompt;
use crate::resolve::{self, Found, Rules};
use crate::wait;

/// Connections that fail are told no more often than this.
const ONE_LINE_PER: Duration = Duration::from_secs(1);

/// Forward a port of this machine to a port inside a sandbox
///
/// TCP, to anything that listens inside, on 127.0.0.1 too. Needs no SSH key. It
/// runs until Ctrl+C; a connection that fails does not end it.
#[derive(Args)]
#[command(
    visible_alias = "tun",
    before_help = "\
Examples:
  createos sandbox tunnel my-box --local 8080 --remote 8000
  createos sandbox tunnel my-box --remote 5432
  createos sandbox tunnel my-box --remote 80 --bind 0.0.0.0
  ssh -o ProxyCommand='createos sandbox tunnel my-box --stdio 22' root@my-box"
)]
pub(super) struct TunnelArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Port inside the sandbox [default: ask on a terminal]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    remote: Option<u16>,

    /// Port of this machine; 0 is any free one [default: as --remote]
    #[arg(long, value_name = "PORT")]
    local: Option<u16>,

    /// Address of this machine to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    bind: Option<IpAddr>,

    /// Connect this port with standard input and output instead of listening, as
    /// the ProxyCommand of ssh
    #[arg(
        long,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..),
        conflicts_with_all = ["remote", "local", "bind"]
    )]
    stdio: Option<u16>,
}

impl TunnelArgs {
    pub(super) fn writes_payload(&self) -> bool {
        self.stdio.is_some()
    }
}

/// `127.0.0.1`, `::1`, `[::1]`, `0.0.0.0` or `localhost`.
fn address(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "write an address, for example 127.0.0.1 or ::1".to_owned())
}

pub(super) async fn run(args: TunnelArgs, ctx: &Context) -> Result<Exit, Failure> {
    if args.stdio.is_none() && args.remote.is_none() && !ctx.interactive() {
        return Err(Failure::usage("which port inside the sandbox? --remote is missing"));
    }
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::ACT).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    if let Some(port) = args.stdio {
        // ssh sends one to its proxy when it is done.
        ctx.let_signals_end_well();
        return pipe(&sandbox, &found, port).await;
    }
    let (remote, local) = match args.remote {
        Some(remote) => (remote, args.local.unwrap_or(remote)),
        None => ask_ports(args.local).await?,
    };
    let address = SocketAddr::new(args.bind.unwrap_or(Ipv4Addr::LOCALHOST.into()), local);
    Forward { ctx, sandbox, found, remote, address }.run().await
}

/// Asks for the port inside, and for the local one when that is not given either.
async fn ask_ports(local: Option<u16>) -> Result<(u16, u16), Failure> {
    let remote = port(&prompt::line("port inside the sandbox").await?)?;
    if remote == 0 {
        return Err(Failure::usage("a port inside the sandbox is 1 to 65535"));
    }
    match local {
        Some(local) => Ok((remote, local)),
        None => {
            let question = format!("port of this machine (Enter: {remote})");
            let line = prompt::line(question).await?;
            Ok((remote, if line.is_empty() { remote } else { port(&line)? }))
        }
    }
}

fn port(text: &str) -> Result<u16, Failure> {
    text.parse().map_err(|_| Failure::usage(format!("\"{text}\" is not a port (1 to 65535)")))
}

/// Standard input and output become the connection.
async fn pipe(sandbox: &Sandbox, found: &Found, port: u16) -> Result<Exit, Failure> {
    let piping = sandbox.tunnel(port).pipe(tokio::io::stdin(), tokio::io::stdout());
    match piping.await {
        Ok(()) => Ok(Exit::Success),
        Err(error) => match io_error(&error).map(io::Error::kind) {
            Some(io::ErrorKind::BrokenPipe) => Err(Failure::BrokenPipe),
            _ => Err(found.explain(error)),
        },
    }
}

/// What the system said, when this machine is where it failed.
fn io_error(error: &Error) -> Option<&io::Error> {
    if error.kind() != ErrorKind::Io {
        return None;
    }
    std::error::Error::source(error)?.downcast_ref()
}

/// A port that leads into a sandbox.
struct Forward<'a> {
    ctx: &'a Context,
    sandbox: Sandbox,
    found: Found,
    remote: u16,
    address: SocketAddr,
}

impl Forward<'_> {
    async fn run(&self) -> Result<Exit, Failure> {
        wait::on_running(self.ctx, &self.sandbox, &self.found, || self.check()).await?;
        let (tell, mut events) = mpsc::unbounded_channel();
        // Who connects to a closed port is told at once, as without a tunnel.
        let at_once = RequestOptions::new().retry(RetryPolicy::none());
        let tunnel = self.sandbox.tunnel(self.remote).with(at_once).on_event(move |event| {
            // Nobody listens any more when the command is about to end.
            let _ = tell.send(event);
        });
        let listening = tunnel.listen(self.address).await.map_err(|error| self.cannot(error))?;
        self.ctx.let_signals_end_well();
        self.announce(listening.local_addr())?;
        let mut told: Option<Instant> = None;
        // The listener outlives every event; a signal ends this.
        while let Some(event) = events.recv().await {
            let (TunnelEvent::Failed { error, .. } | TunnelEvent::AcceptFailed { error }) = event
            else {
                continue;
            };
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) {
                return Err(self.found.explain(error));
            }
            if told.is_none_or(|told| told.elapsed() >= ONE_LINE_PER) {
                told = Some(Instant::now());
                let failure = self.found.explain(error);
                self.ctx.out.warn(&format!("a connection failed: {}", failure.message()));
            }
        }
        Ok(Exit::Success)
    }

    /// Whether there is something to reach: otherwise every connection would fail.
    async fn check(&self) -> Result<(), Failure> {
        let view = self.sandbox.refresh().await.map_err(|error| self.found.explain(error))?;
        if view.status == SandboxStatus::Running {
            return Ok(());
        }
        let message = format!("{} is {}, not running", self.found.label(), view.status);
        Err(Failure::new(Class::Conflict, message)
            .hint(format!("look at it: createos sandbox get {}", self.found.handle())))
    }

    fn cannot(&self, error: Error) -> Failure {
        let Some(cause) = io_error(&error) else { return error.into() };
        let failure = Failure::io(format!("cannot listen on {}", self.address), cause);
        match cause.kind() {
            io::ErrorKind::AddrInUse => failure.hint("take any free port: --local 0"),
            io::ErrorKind::PermissionDenied => {
                failure.hint("ports below 1024 are for root: take another with --local")
            }
            io::ErrorKind::AddrNotAvailable => {
                failure.hint("--bind takes an address that this machine has")
            }
            _ => failure,
        }
    }

    fn announce(&self, local: SocketAddr) -> Result<(), Failure> {
        if !local.ip().is_loopback() {
            let text = format!("everyone who can reach {local} can reach the sandbox's port");
            self.ctx.out.warn(&text);
        }
        let document = json!({
            "action": "tunnel_started",
            "id": self.found.id.as_str(),
            "listen_addr": local.to_string(),
            "remote_port": self.remote,
        });
        self.ctx.out.result(&document, || {
            format!("listening on {local} for port {} of {}", self.remote, self.found.label())
        })?;
        self.ctx.out.hint("Ctrl+C ends the tunnel");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_brackets() {
        for (text, wanted) in [
            ("127.0.0.1", "127.0.0.1"),
            ("localhost", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            (" 0.0.0.0 ", "0.0.0.0"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(wanted));
        }
        for text in ["", "127.0.0.1:80", "example.org", "[::1"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }
}
