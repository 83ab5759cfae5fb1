//! One server that takes everything down, and both clients on it.

use std::collections::BTreeMap;
use std::future::IntoFuture;

use createos_sdk::{Client, RetryPolicy, Sandbox, SandboxId};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::Url;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

pub(crate) const ID: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";
const HEADERS: [&str; 3] = ["x-api-key", "content-type", "accept"];

pub(crate) struct Pair {
    server: MockServer,
    pub(crate) theirs: createos::Client,
    pub(crate) instance: createos::Instance,
    pub(crate) ours: Client,
    pub(crate) sandbox: Sandbox,
    /// What differs, by call and part of the request: theirs and ours.
    pub(crate) found: BTreeMap<(&'static str, &'static str), (String, String)>,
    pub(crate) calls: usize,
}

/// Something that satisfies most calls. What the clients make of it is another test's matter.
fn answer() -> Value {
    json!({"status": "success", "data": {
        "id": ID, "status": "running", "vcpu": 1, "mem_mib": 1024, "disk_mib": 10240,
        "ip": "10.0.0.2", "shape": "s-1vcpu-1gb", "spawn_ms": 1.0, "bandwidth_quota_bytes": 1,
        "name": "n", "base": "", "created_at": "2026-08-02T10:00:00Z", "ok": true, "up": true,
        "ready": true, "data": [], "processes": [],
        "pagination": {"total": 0, "limit": 500, "offset": 0, "count": 0}
    }})
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_json(answer());
        Mock::given(any()).respond_with(answer).mount(&server).await;
        let theirs =
            createos::Client::builder().base_url(server.uri()).api_key("k").without_retry();
        let theirs = theirs.build().unwrap();
        let ours = Client::builder().base_url(server.uri()).api_key("k");
        let ours = ours.retry(RetryPolicy::none()).build().unwrap();
        let instance = theirs.sandbox(ID).await.unwrap();
        let sandbox = ours.sandbox(ID.parse::<SandboxId>().unwrap());
        let (found, calls) = (BTreeMap::new(), 0);
        Self { server, theirs, instance, ours, sandbox, found, calls }
    }

    /// Makes a call with both clients and compares the first request of each.
    pub(crate) async fn same<A, B>(
        &mut self,
        call: &'static str,
        theirs: impl Future<Output = A>,
        ours: impl IntoFuture<Output = B>,
    ) {
        self.calls += 1;
        let before = self.requests().await.len();
        let _ = theirs.await;
        let between = self.requests().await.len();
        let _ = ours.await;
        let requests = self.requests().await;
        assert!(between > before, "{call}: the official client sent nothing");
        assert!(requests.len() > between, "{call}: this client sent nothing");
        let (theirs, ours) = (Seen::of(&requests[before]), Seen::of(&requests[between]));
        for ((part, theirs), (_, ours)) in theirs.0.into_iter().zip(ours.0) {
            if theirs != ours {
                self.found.insert((call, part), (theirs, ours));
            }
        }
    }

    async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }
}

/// A request with everything brought to one spelling that means the same.
struct Seen(Vec<(&'static str, String)>);

impl Seen {
    fn of(request: &Request) -> Self {
        let segments = request.url.path_segments().unwrap();
        let segments: Vec<_> =
            segments.map(|segment| percent_decode_str(segment).decode_utf8().unwrap()).collect();
        let body = serde_json::from_slice(&request.body)
            .map_or_else(|_| String::from_utf8_lossy(&request.body).into(), canonical);
        let mut parts = vec![
            ("method", request.method.to_string()),
            ("path", format!("{segments:?}")),
            ("query", query(&request.url)),
            ("body", body),
        ];
        for name in HEADERS {
            let value = request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            parts.push((name, value.unwrap_or_default()));
        }
        Self(parts)
    }
}

/// With the members of objects in order, which they keep as they came where a crate of the
/// same build asks `serde_json` for that.
fn canonical(mut body: Value) -> String {
    body.sort_all_objects();
    body.to_string()
}

fn query(url: &Url) -> String {
    let mut pairs: Vec<_> = url.query_pairs().collect();
    pairs.sort();
    format!("{pairs:?}")
}
