//! The official client and this one make the same calls, and what they send is compared. Every
//! difference stands in [`INTENDED`] with its reason; one that is not there fails the test, and
//! so does one that no longer occurs.

#![allow(clippy::unwrap_used)]

mod account;
mod computer;
mod recorder;
mod sandbox;

use std::collections::BTreeSet;

use recorder::Pair;

const SCREENSHOT: &str = "a picture is asked for as one";
const STREAM: &str = "a stream is asked for as one; servers must not care (api.md 1.4)";
const BYTES: &str = "bytes are asked for as bytes; servers must not care (api.md 1.4)";
const TEXT: &str = "plain text is asked for as such; servers must not care (api.md 1.4)";
const NO_BODY: &str = "without content there is no body; the official client sends `null`";
const SHORT: &str = "what changes nothing is left out";
const FOLLOW: &str = "this client waits in pieces below the request timeout";

/// Call, part of the request, and why it differs.
const INTENDED: &[(&str, &str, &str)] = &[
    ("sandbox.stream", "accept", STREAM),
    ("process.connect", "accept", STREAM),
    ("template.follow", "accept", STREAM),
    ("files.download", "accept", BYTES),
    ("template.logs", "accept", TEXT),
    ("computer.screenshot", "accept", SCREENSHOT),
    ("process.close_stdin", "body", NO_BODY),
    ("process.close_stdin", "content-type", NO_BODY),
    ("window.focus", "body", NO_BODY),
    ("window.focus", "content-type", NO_BODY),
    ("window.maximize", "body", NO_BODY),
    ("window.maximize", "content-type", NO_BODY),
    ("window.minimize", "body", NO_BODY),
    ("window.minimize", "content-type", NO_BODY),
    ("window.restore", "body", NO_BODY),
    ("window.restore", "content-type", NO_BODY),
    ("sandbox.set_auto_pause", "body", SHORT),
    ("process.wait", "query", FOLLOW),
];

#[tokio::test]
async fn both_clients_send_the_same() {
    let mut pair = Pair::start().await;
    account::run(&mut pair).await;
    sandbox::run(&mut pair).await;
    computer::run(&mut pair).await;
    assert!(pair.calls > 80, "{} calls were compared", pair.calls);

    let listed: BTreeSet<(&str, &str)> =
        INTENDED.iter().map(|(call, part, _)| (*call, *part)).collect();
    let found: BTreeSet<(&str, &str)> = pair.found.keys().copied().collect();
    let unlisted: Vec<_> = found.difference(&listed).map(|key| (key, &pair.found[key])).collect();
    assert!(unlisted.is_empty(), "differences that nobody intended: {unlisted:#?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "these no longer differ; strike them from the list: {gone:?}");
}
