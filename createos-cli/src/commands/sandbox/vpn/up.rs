//! `createos sandbox vpn up`.

use std::time::{Duration, SystemTime};

use createos_sdk::wire::DeviceSession;
use createos_sdk::{Device, Error, ErrorKind};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::routes;
use super::tunnel::{self, INTERFACE, Tunnel};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::format;
use crate::prompt;
use crate::signals::Signals;
use crate::store::device::{Identity, Store};

/// How often a session is renewed, unless it is a short one.
const RENEW: Duration = Duration::from_secs(30);
/// Renewals in a row that may fail before the control plane counts as lost.
const MISSES: u32 = 2;

/// How a connection came to its end.
enum End {
    /// By a signal.
    Stopped,
    /// By the control plane, which knows the session no more.
    Gone,
    /// Nothing was heard of the control plane.
    Lost(Failure),
}

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::io("cannot start", &error))?;
    let Some(identity) = Store::open(&ctx.paths)?.load()? else {
        return Err(unknown("this machine is not registered as a device"));
    };
    let device = ctx.plane()?.client.device(identity.id.clone());
    // A session that is opened just when a signal comes expires.
    let session = tokio::select! {
        session = open(ctx, &device) => session?,
        exit = signals.exit_code() => return Err(Failure::interrupted(exit)),
    };
    let Some(session) = session else { return Ok(Exit::Success) };
    let ended = connect(ctx, &identity, &device, &session, &mut signals).await;
    if !matches!(ended, Ok(End::Gone)) {
        // Where that is not heard, it expires.
        let _ = timeout(MOMENT, device.close_session(&session.session_id)).await;
    }
    match ended? {
        End::Stopped => Ok(Exit::Success),
        End::Gone => Err(Failure::new(Class::NotFound, "the session has ended")
            .hint("connect anew: createos sandbox vpn up")),
        End::Lost(failure) => Err(failure),
    }
}

/// How long a goodbye may take.
const MOMENT: Duration = Duration::from_secs(5);

/// `None` when the user wants none.
async fn open(ctx: &Context, device: &Device) -> Result<Option<DeviceSession>, Failure> {
    if tunnel::is_there() && !remove_stale(ctx).await? {
        ctx.out.note("nothing was changed");
        return Ok(None);
    }
    device.open_session().await.map(Some).map_err(|error: Error| match error.kind() {
        ErrorKind::NotFound => unknown("the control plane does not know this machine"),
        _ => error.into(),
    })
}

/// An interface that is there already is of another session, or of one that was killed.
async fn remove_stale(ctx: &Context) -> Result<bool, Failure> {
    if !ctx.interactive() {
        return Err(Failure::new(
            Class::Conflict,
            format!("the interface {INTERFACE} is there already"),
        )
        .hint(format!("end the other connection, or remove it: sudo ip link delete {INTERFACE}")));
    }
    let question = format!("the interface {INTERFACE} is there, of another connection; remove it?");
    if !prompt::confirm(question, false).await? {
        return Ok(false);
    }
    Tunnel::new(&"[Interface]\n".into())?.down().await?;
    Ok(true)
}

async fn connect(
    ctx: &Context,
    identity: &Identity,
    device: &Device,
    session: &DeviceSession,
    signals: &mut Signals,
) -> Result<End, Failure> {
    let config = session.config_with_key(&identity.private_key)?;
    if let Some((network, interface)) = routes::taken(&session.allowed_ips(), INTERFACE) {
        let message = format!("{network} is reached by {interface} on this machine already");
        return Err(Failure::new(Class::Conflict, message)
            .hint("detach this machine from that network, or take the other route away"));
    }
    let tunnel = Tunnel::new(&config)?;
    let ended = match tunnel.up().await {
        Ok(()) => hold(ctx, identity, device, session, signals).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = tunnel.down().await {
        ctx.complain(&failure);
    }
    ended
}

/// Keeps the session until something ends it.
async fn hold(
    ctx: &Context,
    identity: &Identity,
    device: &Device,
    session: &DeviceSession,
    signals: &mut Signals,
) -> Result<End, Failure> {
    announce(ctx, identity, session)?;
    let every = interval(session);
    let mut misses = 0;
    loop {
        let renewal = async {
            sleep(every).await;
            timeout(every, device.renew_session(&session.session_id)).await
        };
        let renewed = tokio::select! {
            renewed = renewal => renewed,
            _ = signals.exit_code() => return Ok(End::Stopped),
        };
        let failure = match renewed {
            Ok(Ok(())) => {
                misses = 0;
                if cfg!(target_os = "linux") && !tunnel::is_there() {
                    let message = format!("the interface {INTERFACE} was removed by somebody else");
                    return Err(Failure::local(message));
                }
                continue;
            }
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(End::Gone),
            Ok(Err(error)) => error.into(),
            Err(_) => Failure::new(Class::Timeout, "the control plane does not answer"),
        };
        misses += 1;
        if misses >= MISSES {
            return Ok(End::Lost(failure.about("the session was not renewed")));
        }
        ctx.out.warn(&format!("the session was not renewed: {}", failure.message()));
    }
}

/// About half of its life.
fn interval(session: &DeviceSession) -> Duration {
    let left = session.expires_at.map(SystemTime::from);
    let left = left.and_then(|end| end.duration_since(SystemTime::now()).ok());
    left.map_or(RENEW, |left| (left / 2).clamp(Duration::from_millis(500), RENEW))
}

fn announce(ctx: &Context, identity: &Identity, session: &DeviceSession) -> Result<(), Failure> {
    let document = json!({
        "action": "vpn_connected",
        "device_id": identity.id,
        "device": identity.name,
        "client_ip": identity.client_ip,
        "interface": INTERFACE,
    });
    let networks = session.allowed_ips().join(", ");
    ctx.out.result(&document, || {
        let label = format::label(Some(&identity.name), identity.id.as_str());
        format!("connected as {label}, {}, to {networks}", identity.client_ip)
    })?;
    if let Some(server) = name_server(&session.client_config) {
        ctx.out.hint(&format!("names of sandboxes are answered at {server}"));
    }
    ctx.out.hint("Ctrl+C ends the connection");
    Ok(())
}

/// Who answers for names, where the configuration says so to people alone.
fn name_server(config: &str) -> Option<&str> {
    let servers = config.lines().find_map(|line| line.strip_prefix("# DNS = "))?;
    servers.split(',').next().map(str::trim)
}

fn unknown(message: &str) -> Failure {
    Failure::local(message).hint("register it: createos sandbox devices register")
}
