//! What the `tracing` feature tells. A test of its own process: whether anybody listens is
//! decided once for all threads.

#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used)]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use createos_sdk::{Client, SandboxId};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, registry::LookupSpan};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

const ID: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Sink {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: Context<'_, S>,
    ) {
        if attributes.metadata().name() == "createos" {
            let mut text = Text("span".to_owned());
            attributes.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target().starts_with("createos_sdk") {
            let mut text = Text(context.event_span(event).map_or("", |span| span.name()).into());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

#[tokio::test]
async fn a_span_per_operation_and_an_event_per_attempt() {
    let server = MockServer::start().await;
    let view = json!({"status": "success", "data": {"id": ID, "status": "running"}});
    let once = ResponseTemplate::new(503).set_body_string("hunter2");
    Mock::given(any()).respond_with(once).up_to_n_times(1).mount(&server).await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_json(view))
        .mount(&server)
        .await;
    let sink = Sink::default();
    let subscriber = tracing_subscriber::registry().with(sink.clone());
    let _on = tracing::subscriber::set_default(subscriber);
    let client = Client::builder().base_url(server.uri()).api_key("skp_hunter2").build().unwrap();
    let sandbox = client.sandbox(ID.parse::<SandboxId>().unwrap());
    sandbox.refresh().await.unwrap();
    let told = sink.0.lock().unwrap().clone();
    let count = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    assert_eq!(told.iter().filter(|line| line.starts_with("span")).count(), 1, "{told:?}");
    assert!(told[0].contains("operation=\"sandbox.get\"") && told[0].contains(ID));
    assert_eq!(count("message=answered"), 2, "{told:?}");
    assert_eq!(count("message=trying again"), 1);
    assert!(told[1..].iter().all(|line| line.starts_with("createos ")), "{told:?}");
    assert_eq!(count("hunter2"), 0);
}
