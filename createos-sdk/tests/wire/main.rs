//! The client against scripted servers: what it sends, and what it makes of what comes back.

#![allow(clippy::unwrap_used)]

#[cfg(feature = "blocking")]
mod blocking;
mod computer;
mod endings;
mod errors;
mod excerpts;
mod exec;
mod files;
mod golden;
mod guards;
mod guest;
mod lists;
mod network;
#[cfg(feature = "oauth")]
mod oauth;
mod observation;
#[cfg(feature = "reqwest012")]
mod own_http;
mod processes;
mod proxied;
mod readiness;
mod renewal;
mod resources;
mod retries;
mod safety;
mod server;
mod settings;
mod signatures;
mod table;
mod templates;
mod terminal;
mod tunnel;
mod waiting;

use std::time::Duration;

use createos_sdk::{Client, ClientBuilder, RetryPolicy, Sandbox};
use serde_json::{Value, json};
use wiremock::{MockServer, ResponseTemplate};

pub(crate) const ID: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";
pub(crate) const KEY: &str = "skp_planted_key";

/// A client whose retries do not slow the tests down.
pub(crate) fn builder(url: &str) -> ClientBuilder {
    let quick = RetryPolicy::default().base_delay(Duration::from_millis(1));
    Client::builder().base_url(url).api_key(KEY).retry(quick)
}

pub(crate) fn client(url: &str) -> Client {
    builder(url).build().unwrap()
}

pub(crate) fn sandbox(url: &str) -> Sandbox {
    client(url).sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap())
}

/// A server that answers every request like this.
pub(crate) async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    wiremock::Mock::given(wiremock::matchers::any()).respond_with(answer).mount(&server).await;
    server
}

pub(crate) fn success(data: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": data}))
}

pub(crate) fn fail(status: u16, why: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"status": "fail", "data": why}))
}

pub(crate) fn view(status: &str) -> Value {
    json!({"id": ID, "status": status, "vcpu": 1, "mem_mib": 1024, "disk_mib": 10240,
           "created_at": "2026-08-02T10:00:00Z", "ingress_enabled": false, "region": "us"})
}
