//! The HTTP front: parse, call the core, answer. No logic.

mod access_token;
mod answer;
mod body;
mod catalog;
mod computer;
mod devices;
mod egress;
mod exec;
mod files;
mod guard;
mod ingress;
mod linger;
mod ndjson;
mod networks;
mod path;
mod processes;
mod query;
mod reach;
mod s3_disks;
mod sandboxes;
mod self_signal;
mod server;
mod service;
mod settings;
mod templates;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod tunnel;
mod upgrade;
mod usage;
mod view;
mod web_socket;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post, put};

use crate::auth::ApiKey;
use crate::core::Core;

pub(crate) use guard::HostRules;
pub(crate) use server::Server;

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

struct Inner {
    core: Core,
    key: ApiKey,
    hosts: HostRules,
    /// The port at which this machine's browsers reach the engine; `None` when it does not
    /// listen on loopback.
    ingress: Option<u16>,
}

impl Front {
    pub(crate) fn new(core: Core, key: ApiKey, hosts: HostRules, ingress: Option<u16>) -> Self {
        Self(Arc::new(Inner { core, key, hosts, ingress }))
    }

    fn core(&self) -> &Core {
        &self.0.core
    }
}

/// Every route of api.md section 2, behind the checks that all of them share.
fn router(front: Front) -> Router {
    let guarded = axum::middleware::from_fn_with_state(front.clone(), guard::guard);
    Router::new()
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/v1/whoami", get(service::whoami))
        .route("/v1/hosts", get(service::hosts))
        .route("/v1/metrics", get(usage::metrics))
        .route("/v1/metrics/timeseries", get(usage::timeseries))
        .route("/v1/shapes", get(catalog::shapes))
        .route("/v1/rootfs", get(catalog::rootfs))
        .route("/v1/templates", get(templates::list).post(templates::create))
        .route("/v1/templates/{template}", get(templates::get).delete(templates::delete))
        .route("/v1/templates/{template}/logs", get(templates::logs))
        .route("/v1/sandboxes", get(sandboxes::list).post(sandboxes::create))
        .route("/v1/sandboxes/by-ip/{ip}", get(sandboxes::by_ip))
        .route(
            "/v1/sandboxes/{id}",
            get(sandboxes::get).patch(settings::patch).delete(sandboxes::destroy),
        )
        .route("/v1/sandboxes/{id}/metrics", get(settings::metrics))
        .route("/v1/sandboxes/{id}/ssh-pubkeys", post(settings::ssh_pubkeys))
        .route("/v1/sandboxes/{id}/pause", post(sandboxes::pause))
        .route("/v1/sandboxes/{id}/resize", post(settings::resize))
        .route("/v1/sandboxes/{id}/resume", post(sandboxes::resume))
        .route("/v1/sandboxes/{id}/fork", post(sandboxes::fork))
        .route("/v1/sandboxes/{id}/exec", post(exec::exec))
        .route("/v1/sandboxes/{id}/files", put(files::upload).get(files::download))
        .route("/v1/sandboxes/{id}/egress", get(egress::get).put(egress::set))
        .route("/v1/sandboxes/{id}/bandwidth", get(egress::bandwidth))
        .route("/v1/sandboxes/{id}/bandwidth/recharge", post(egress::recharge))
        .route(
            "/v1/sandboxes/{id}/access-token",
            get(access_token::get).post(access_token::create).delete(access_token::revoke),
        )
        .route("/v1/sandboxes/{id}/access-token/rotate", post(access_token::rotate))
        .route("/v1/sandboxes/{id}/tunnel/{port}", post(tunnel::open))
        .route("/v1/sandboxes/{id}/shell", post(terminal::shell))
        .route("/v1/sandboxes/{id}/shell-ws", get(web_socket::shell))
        .merge(disk_routes())
        .merge(process_routes())
        .merge(network_routes())
        .merge(device_routes())
        .merge(computer::router())
        .fallback(answer::no_route)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(guarded)
        .with_state(front)
}

fn network_routes() -> Router<Front> {
    Router::new()
        .route("/v1/networks", get(networks::list).post(networks::create))
        .route("/v1/networks/{network}", get(networks::get).delete(networks::delete))
        .route("/v1/sandboxes/{id}/networks", post(networks::attach))
        .route("/v1/sandboxes/{id}/networks/{network}", delete(networks::detach))
}

fn device_routes() -> Router<Front> {
    let path = |rest: &str| format!("/v1/devices/{{device}}{rest}");
    Router::new()
        .route("/v1/devices", get(devices::list).post(devices::create))
        .route(&path(""), get(devices::get).delete(devices::delete))
        .route(&path("/networks"), get(devices::networks).post(devices::attach))
        .route(&path("/networks/{network}"), delete(devices::detach))
        .route(&path("/sessions"), post(devices::open_session))
        .route(
            &path("/sessions/{session}"),
            put(devices::renew_session).delete(devices::close_session),
        )
}

fn disk_routes() -> Router<Front> {
    Router::new()
        .route("/v1/disks", get(s3_disks::list).post(s3_disks::create))
        .route(
            "/v1/disks/{disk}",
            get(s3_disks::get).patch(s3_disks::patch).delete(s3_disks::delete),
        )
        .route("/v1/sandboxes/{id}/disks", get(s3_disks::attached).post(s3_disks::attach))
        .route("/v1/sandboxes/{id}/disks/{disk}", delete(s3_disks::detach))
}

fn process_routes() -> Router<Front> {
    let path = |rest: &str| format!("/v1/sandboxes/{{id}}/processes{rest}");
    Router::new()
        .route(&path(""), get(processes::list).post(processes::create))
        .route(&path("/{process}"), get(processes::get).delete(processes::delete))
        .route(&path("/{process}/connect"), get(processes::connect))
        .route(&path("/{process}/input"), post(processes::input))
        .route(&path("/{process}/stdin/close"), post(processes::close_input))
        .route(&path("/{process}/resize"), post(processes::resize))
        .route(&path("/{process}/signal"), post(processes::signal))
        .route(&path("/{process}/wait"), get(processes::wait))
}
