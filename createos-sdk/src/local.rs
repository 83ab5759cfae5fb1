//! For programs inside a sandbox: letting it pause or remove itself (api.md 5.11).
//!
//! The signal goes to this machine's loopback at port 1029, never through a proxy, and needs
//! no credential; where nobody answers, it goes into the pipe `/run/self`. The answer comes before the effect, but the sandbox may freeze at any moment
//! after it: do what must be done first.
//!
//! ```no_run
//! # async fn run() -> createos_sdk::Result<()> {
//! if createos_sdk::local::is_available().await? {
//!     createos_sdk::local::pause().reason("night run").await?;
//! }
//! # Ok(()) }
//! ```

use std::future::IntoFuture;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::options::{RequestOptions, RetryPolicy};
use crate::pending::Pending;
use crate::transport::request::Call;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1029);
/// Takes the same signals as lines, without a reason.
const PIPE: &str = "/run/self";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer reasons are cut by the server.
const LONGEST_REASON: usize = 128;

/// Lets the sandbox that this program runs in pause.
pub fn pause() -> SelfSignal {
    SelfSignal::new("pause", "park", "self.pause")
}

/// Lets the sandbox that this program runs in be destroyed, with everything in it.
pub fn delete() -> SelfSignal {
    SelfSignal::new("delete", "retire", "self.delete")
}

/// Whether this program runs in a sandbox that takes such signals. Nothing is signalled.
///
/// # Errors
///
/// `Timeout` when something listens there and does not answer; nobody listening is `false`.
pub async fn is_available() -> Result<bool> {
    is_available_at(ADDRESS).await
}

async fn is_available_at(address: SocketAddr) -> Result<bool> {
    let client = client(address)?;
    let call = client.call("self.probe", Method::GET, &["self", "pause"]);
    let call = Call { authenticated: false, also_accept: Some(405), ..call };
    let probe = Operation::new(client, call, |reply| Ok(reply.head.status == 405));
    match probe.with(once()).await {
        Ok(there) => Ok(there),
        Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
        Err(_) => Ok(false),
    }
}

fn once() -> RequestOptions {
    RequestOptions::new().retry(RetryPolicy::none())
}

/// A client for this machine alone: without a credential, and, as everything on loopback,
/// without a proxy.
fn client(address: SocketAddr) -> Result<Client> {
    Client::builder().base_url(format!("http://{address}")).timeout(TIMEOUT).build_anonymous()
}

/// A signal from inside a sandbox to itself. Made with [`pause`] and [`delete`].
///
/// It is sent once and fails after 10 s, unless other [`RequestOptions`] are given. When
/// nobody answers, it is written to `/run/self`, if that is there; its reason is then lost.
///
/// # Errors
///
/// `Connection`: nobody listens; this program does not run in a sandbox. `Protocol`: the
/// answer is anything but the 202 that says the signal was taken.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct SelfSignal {
    address: SocketAddr,
    pipe: PathBuf,
    segment: &'static str,
    word: &'static str,
    operation: &'static str,
    reason: Option<String>,
    options: RequestOptions,
}

impl SelfSignal {
    fn new(segment: &'static str, word: &'static str, operation: &'static str) -> Self {
        let pipe = PathBuf::from(PIPE);
        let (address, options) = (ADDRESS, once());
        Self { address, pipe, segment, word, operation, reason: None, options }
    }

    /// Why, for the records. Cut to 128 characters.
    pub fn reason(mut self, reason: impl AsRef<str>) -> Self {
        self.reason = Some(reason.as_ref().chars().take(LONGEST_REASON).collect());
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<()> {
        let (pipe, line) = (self.pipe.clone(), format!("{}\n", self.word));
        match self.request().await {
            Err(error) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout) => {
                write_line(&pipe, &line).await.map_err(|_| error)
            }
            outcome => outcome,
        }
    }

    async fn request(self) -> Result<()> {
        let client = client(self.address)?;
        let mut call = client.call(self.operation, Method::POST, &["self", self.segment]);
        call.authenticated = false;
        if let Some(reason) = &self.reason {
            call = call.query("reason", reason);
        }
        Operation::new(client, call, |reply| match reply.head.status {
            202 => Ok(()),
            status => Err(reply.head.stamp(Error::new(
                ErrorKind::Protocol,
                format!("status {status} instead of 202; the signal was not taken"),
            ))),
        })
        .with(self.options)
        .await
    }
}

/// Writes to a pipe that is there and read by somebody; nothing is made, and nobody waited for.
#[cfg(unix)]
async fn write_line(pipe: &Path, line: &str) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    tokio::net::unix::pipe::OpenOptions::new().open_sender(pipe)?.write_all(line.as_bytes()).await
}

#[cfg(not(unix))]
async fn write_line(_pipe: &Path, _line: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl IntoFuture for SelfSignal {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wiremock::matchers::any;
    use wiremock::{Mock, MockServer, ResponseTemplate};

    async fn answering(answer: ResponseTemplate) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(answer).mount(&server).await;
        server
    }

    fn at(server: &MockServer, signal: SelfSignal) -> SelfSignal {
        SelfSignal { address: *server.address(), ..signal }
    }

    #[tokio::test]
    async fn a_signal_is_one_request_without_body_or_credential() {
        let server = answering(ResponseTemplate::new(202)).await;
        at(&server, pause().reason("night run")).await.unwrap();
        at(&server, delete()).await.unwrap();
        let long = "ä".repeat(LONGEST_REASON + 1);
        at(&server, pause().reason(long)).await.unwrap();
        let requests = server.received_requests().await.unwrap();
        let lines: Vec<_> = requests
            .iter()
            .map(|request| {
                let query = request.url.query().unwrap_or_default();
                format!("{} {}?{query}", request.method, request.url.path())
            })
            .collect();
        assert_eq!(lines[0], "POST /self/pause?reason=night+run");
        assert_eq!(lines[1], "POST /self/delete?");
        assert_eq!(lines[2].matches("%C3%A4").count(), LONGEST_REASON);
        for request in &requests {
            assert!(request.body.is_empty());
            assert!(!request.headers.contains_key("x-api-key"));
            assert!(!request.headers.contains_key("content-type"));
        }
    }

    #[tokio::test]
    async fn anything_but_202_is_an_error_and_nothing_is_repeated() {
        for (status, kind) in [
            (200, ErrorKind::Protocol),
            (204, ErrorKind::Protocol),
            (404, ErrorKind::NotFound),
            (429, ErrorKind::RateLimited),
            (500, ErrorKind::Server),
        ] {
            let server = answering(ResponseTemplate::new(status)).await;
            let error = at(&server, pause()).await.unwrap_err();
            assert_eq!((error.kind(), error.status()), (kind, Some(status)));
            assert_eq!(server.received_requests().await.unwrap().len(), 1, "{status}");
        }
    }

    #[tokio::test]
    async fn a_silent_answer_times_out_and_nobody_is_a_failed_connection() {
        let late = ResponseTemplate::new(202).set_delay(Duration::from_secs(60));
        let server = answering(late).await;
        let quick = RequestOptions::new().timeout(Duration::from_millis(100));
        let error = at(&server, pause()).with(quick).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);

        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = SelfSignal { address: closed, ..pause() };
        let error = nobody.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(!error.may_have_acted());
        assert!(!is_available_at(closed).await.unwrap());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn where_nobody_answers_the_pipe_takes_the_word() {
        use tokio::io::AsyncReadExt;
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("self");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let signal =
            |signal: SelfSignal| SelfSignal { address: closed, pipe: pipe.clone(), ..signal };
        std::fs::write(&pipe, "a file").unwrap();
        assert!(signal(pause()).await.is_err());
        assert_eq!(std::fs::read_to_string(&pipe).unwrap(), "a file", "only a pipe is written to");
        std::fs::remove_file(&pipe).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(signal(pause()).await.is_err(), "nobody reads");
        let reader = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&pipe).unwrap();
        signal(pause().reason("lost")).await.unwrap();
        signal(delete()).await.unwrap();
        let mut heard = [0; 12];
        tokio::io::BufReader::new(reader).read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"park\nretire\n");

        let server = answering(ResponseTemplate::new(404)).await;
        let refused = SelfSignal { pipe: pipe.clone(), ..at(&server, pause()) };
        assert!(refused.await.is_err(), "a refusal is no silence");
    }

    #[tokio::test]
    async fn the_probe_looks_for_405() {
        for (status, there) in [(405, true), (200, false), (404, false), (500, false)] {
            let server = answering(ResponseTemplate::new(status)).await;
            assert_eq!(is_available_at(*server.address()).await.unwrap(), there, "{status}");
            let request = &server.received_requests().await.unwrap()[0];
            assert_eq!((request.method.as_str(), request.url.path()), ("GET", "/self/pause"));
        }
    }

    #[test]
    fn it_goes_to_loopback_and_to_the_agreed_port() {
        assert!(pause().address.ip().is_loopback());
        assert_eq!(delete().address.port(), 1029);
    }
}
