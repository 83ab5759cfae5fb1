//! Sending a call: attempts, their limits, and what each ended with.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::envelope;
use super::incoming::Incoming;
use super::outgoing::SendClock;
use super::request::{Call, Effect, Pace};
use super::retry::{self, Failure, GaveUp, Phase, Terms};
use crate::client::Inner;
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::observe::{self, Event, EventKind};
use crate::signer::{Signature, Signer};

/// Bytes of an error body that are read.
const ERROR_BODY: usize = 4 << 20;
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// The first part of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// How long to wait before asking how far the work is (api.md 1.4).
    pub(crate) poll_after: Option<Duration>,
    pub(crate) content_length: Option<u64>,
    content_type: String,
}

impl Head {
    fn read(response: &reqwest::Response) -> Self {
        let headers = response.headers();
        let retry_after = text(headers, RETRY_AFTER.as_str());
        Self {
            status: response.status().as_u16(),
            request_id: ["x-request-id", "x-fc-request-id"]
                .iter()
                .find_map(|name| text(headers, name))
                .map(|id| id.chars().take(128).collect()),
            retry_after: retry_after
                .and_then(|value| retry::parse_retry_after(value, SystemTime::now())),
            poll_after: text(headers, "x-poll-after").and_then(parse_poll_after),
            content_length: text(headers, CONTENT_LENGTH.as_str())
                .and_then(|length| length.parse().ok()),
            content_type: text(headers, CONTENT_TYPE.as_str()).unwrap_or_default().to_owned(),
        }
    }

    /// The content type without its parameters.
    pub(crate) fn media_type(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    #[cfg(test)]
    pub(crate) fn for_test(status: u16, content_type: &str) -> Self {
        Self { status, content_type: content_type.to_owned(), ..Self::default() }
    }

    /// Puts what is known from here onto an error.
    pub(crate) fn stamp(&self, error: Error) -> Error {
        error.with_status(self.status).with_request_id(self.request_id.clone())
    }
}

/// Reads `X-Poll-After`: seconds. Nonsense is as good as nothing.
fn parse_poll_after(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|value| !value.is_empty())
}

/// An answer with a good status, read whole.
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

/// The limits of a call, resolved from its options, its nature and the client.
#[derive(Debug, Clone, Copy)]
struct Limits {
    attempt: Option<Duration>,
    stall: Duration,
    deadline: Option<Instant>,
}

impl Limits {
    fn of(client: &Inner, call: &Call) -> Self {
        let attempt = call.options.timeout.or(match call.pace {
            Pace::AtLeast(least) => Some(client.timeout.max(least)),
            Pace::Unlimited | Pace::Stall => None,
        });
        Self {
            attempt,
            stall: call.options.stall_timeout.unwrap_or(client.stall_timeout),
            deadline: super::ends_at(call.options.deadline.or(client.deadline)),
        }
    }
}

/// An answer, how it came, and what is still to be observed while it is read.
struct Answered<T> {
    head: Head,
    body: T,
    facts: CallFacts,
    limits: Limits,
}

/// Sends a call and repeats it as its policy allows; `take` is the part of an attempt that
/// follows a good status. An answer with an error status is an error here.
async fn run<T, F>(
    client: &Inner,
    call: &Call,
    take: impl Fn(reqwest::Response, Limits) -> F,
) -> Result<Answered<T>>
where
    F: Future<Output = Result<T, Failure>>,
{
    observe::in_span(call, run_observed(client, call, take)).await
}

async fn run_observed<T, F>(
    client: &Inner,
    call: &Call,
    take: impl Fn(reqwest::Response, Limits) -> F,
) -> Result<Answered<T>>
where
    F: Future<Output = Result<T, Failure>>,
{
    let started = Instant::now();
    let mut facts = call.facts();
    if let Err(error) = call.check(client) {
        return Err(error.in_call(&facts));
    }
    let limits = Limits::of(client, call);
    let tell = |attempt, kind: EventKind<'_>| {
        let event = Event { attempt, elapsed: started.elapsed(), ..Event::of(&facts, kind) };
        client.observer.tell(&event);
    };
    let terms = Terms {
        policy: call.options.retry.unwrap_or(client.retry),
        effect: call.effect,
        replayable: call.is_replayable(),
        deadline: limits.deadline,
        quota: &client.quota,
        on_repeat: &|number, error, wait| {
            tell(number, EventKind::Retry { error: error.kind(), wait });
        },
    };
    let mut signing = match Signing::begin(client, call, limits).await {
        Ok(signing) => signing,
        Err(error) => return Err(error.in_call(&facts)),
    };
    let mut before = 0;
    let outcome = loop {
        let signature = signing.signature.as_ref();
        let outcome = retry::run(&terms, async |number| {
            let (number, began) = (before + number, Instant::now());
            tell(number, EventKind::Request);
            let outcome = attempt(client, call, signature, limits, &take).await;
            tell(number, ending(&outcome, began.elapsed()));
            outcome
        });
        match outcome.await {
            Ok((answer, made)) => break Ok((answer, before + made)),
            Err(gave_up) => {
                before += gave_up.attempts;
                if let Some(error) = signing.renew(gave_up.error).await {
                    break Err(GaveUp { error, attempts: before });
                }
                let kind = ErrorKind::NotAuthenticated;
                tell(before, EventKind::Retry { error: kind, wait: Duration::ZERO });
            }
        }
    };
    facts.elapsed = started.elapsed();
    match outcome {
        Ok(((head, body), attempts)) => {
            facts.attempts = attempts;
            Ok(Answered { head, body, facts, limits })
        }
        Err(gave_up) => {
            facts.attempts = gave_up.attempts;
            Err(gave_up.error.in_call(&facts))
        }
    }
}

/// How a call is signed: once, and once more when its signature was refused.
struct Signing<'a> {
    signer: Option<&'a Signer>,
    signature: Option<Signature>,
    limits: Limits,
    /// Whether there can be another signature, and the call made with it.
    renewable: bool,
    /// Whether an earlier attempt may have done the work.
    acted: bool,
}

impl<'a> Signing<'a> {
    async fn begin(client: &'a Inner, call: &Call, limits: Limits) -> Result<Self> {
        let signer = client.signer.as_ref().filter(|_| call.authenticated);
        let signature = match signer {
            Some(signer) => Some(within(limits, signer.sign()).await?),
            None => None,
        };
        let renewable = call.is_replayable();
        Ok(Self { signer, signature, limits, renewable, acted: false })
    }

    /// Gets another signature after a refusal; otherwise the error that remains.
    async fn renew(&mut self, error: Error) -> Option<Error> {
        self.acted |= error.may_have_acted();
        let error = error.with_acted(self.acted);
        let renewable = std::mem::take(&mut self.renewable) && error.status() == Some(401);
        let (Some(signer), Some(refused), true) = (self.signer, &self.signature, renewable) else {
            return Some(error);
        };
        match within(self.limits, signer.renew(refused)).await {
            Ok(Some(renewed)) => {
                self.signature = Some(renewed);
                None
            }
            Ok(None) => Some(error),
            Err(failed) => Some(failed.with_status(401).with_acted(self.acted)),
        }
    }
}

/// The deadline of a call holds for what comes before it is sent, too.
async fn within<T>(limits: Limits, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(deadline) = limits.deadline else { return work.await };
    timeout_at(deadline, work).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "the deadline of the call passed while it was signed"))
    })
}

/// What is told of the end of an attempt.
fn ending<T>(outcome: &Result<(Head, T), Failure>, took: Duration) -> EventKind<'_> {
    match outcome {
        Ok((Head { status, request_id, .. }, _)) => {
            EventKind::Response { status: *status, request_id: request_id.as_deref(), took }
        }
        Err(Failure { error, phase: Phase::Status(status) }) => {
            EventKind::Response { status: *status, request_id: error.request_id(), took }
        }
        Err(Failure { error, .. }) => EventKind::Failure { error: error.kind(), took },
    }
}

/// Sends a call and reads its answer with `read`; whatever fails carries the call's facts.
pub(crate) async fn send<T>(
    client: &Inner,
    call: &Call,
    read: impl FnOnce(Reply) -> Result<T>,
) -> Result<T> {
    let stall = matches!(call.pace, Pace::Stall);
    let answered = run(client, call, |response, limits: Limits| {
        read_whole(response, call.limit, stall.then_some(limits.stall))
    })
    .await?;
    // The server said yes, so a change was made even if what it said cannot be read.
    let acted = call.effect != Effect::Reads;
    let facts = answered.facts;
    read(Reply { head: answered.head, body: answered.body })
        .map_err(|error| error.with_acted(acted).in_call(&facts))
}

/// Sends a call and leaves its answer open.
pub(crate) async fn open(client: &Inner, call: &Call) -> Result<Incoming> {
    let answered = run(client, call, |response, _| async { Ok(response) }).await?;
    let Answered { head, body, facts, limits } = answered;
    Ok(Incoming::new(body, facts, &head, limits.stall, limits.deadline)
        .observed(client.observer.clone()))
}

/// Sends a call that asks to go on with another protocol, and gives the connection once the
/// server agreed. Bytes that came with its answer are the first to be read.
pub(crate) async fn upgrade(client: &Inner, call: &Call) -> Result<reqwest::Upgraded> {
    let take = |response, _| super::upgrade::take(call.upgrade.as_ref(), response);
    run(client, call, take).await.map(|answered| answered.body)
}

/// One attempt, within its limits.
async fn attempt<T, F>(
    client: &Inner,
    call: &Call,
    signature: Option<&Signature>,
    limits: Limits,
    take: &impl Fn(reqwest::Response, Limits) -> F,
) -> Result<(Head, T), Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let (request, clock) =
        call.build(signature).await.map_err(|error| Failure { error, phase: Phase::Local })?;
    let ends = [super::ends_at(limits.attempt), limits.deadline].into_iter().flatten().min();
    let work = async {
        let (head, response) = exchange(client, call, request, clock, limits).await?;
        match take(response, limits).await {
            Ok(body) => Ok((head, body)),
            Err(Failure { error, phase }) => Err(Failure { error: head.stamp(error), phase }),
        }
    };
    match ends {
        None => work.await,
        Some(ends) => timeout_at(ends, work).await.unwrap_or_else(|_| {
            let message = if limits.deadline == Some(ends) {
                "the deadline of the call passed"
            } else {
                "no complete answer in time"
            };
            Err(Failure {
                error: Error::new(ErrorKind::Timeout, message),
                phase: Phase::Unanswered,
            })
        }),
    }
}

/// Request out, head of a good answer in.
async fn exchange(
    client: &Inner,
    call: &Call,
    request: reqwest::Request,
    clock: Option<SendClock>,
    limits: Limits,
) -> Result<(Head, reqwest::Response), Failure> {
    let stall = matches!(call.pace, Pace::Stall).then_some(limits.stall);
    let http = match &call.upgrade {
        None => &client.http,
        Some(_) => {
            client.upgrades.client().map_err(|error| Failure { error, phase: Phase::Local })?
        }
    };
    let response = tokio::select! {
        biased;
        answered = http.execute(request) => {
            answered.map_err(|error| broken(error, clock.as_ref()))?
        }
        () = stalled(clock.as_ref(), stall) => return Err(silent()),
    };
    check_stack(call, &response)?;
    let head = Head::read(&response);
    let expected = if call.upgrade.is_some() { Some(101) } else { call.also_accept };
    let good = response.status().is_success() || expected == Some(head.status);
    if !good {
        let body = read_error_body(response).await;
        let error = envelope::failure(&head, &body);
        // Nothing listens on the port (api.md 4.19); asking again at once changes nothing.
        let is_final = call.upgrade.is_some() && head.status == 502;
        let phase = if is_final { Phase::Final } else { Phase::Status(head.status) };
        return Err(Failure { error, phase });
    }
    Ok((head, response))
}

/// An HTTP client that was given to us may do what it must not, or not what it has to.
fn check_stack(call: &Call, response: &reqwest::Response) -> Result<(), Failure> {
    let refuse = |kind, message: String| {
        Err(Failure { error: Error::new(kind, message), phase: Phase::Final })
    };
    if response.url() != &call.url {
        let host = response.url().host_str().unwrap_or_default();
        let message = format!(
            "the HTTP client given to this one followed a redirect to {host} and took the key \
             along; make it with redirect::Policy::none()"
        );
        return refuse(ErrorKind::Protocol, message);
    }
    if call.upgrade.is_some() && response.version() >= reqwest::Version::HTTP_2 {
        let message = "an HTTP/2 connection cannot change protocols; the HTTP client given to \
                       this one needs another beside it, made with http1_only";
        return refuse(ErrorKind::Unsupported, message.to_owned());
    }
    Ok(())
}

/// Ends when nothing has moved for `stall`; never without one.
async fn stalled(clock: Option<&SendClock>, stall: Option<Duration>) {
    let Some(stall) = stall else { return std::future::pending().await };
    let started = Instant::now();
    loop {
        let last = clock.map_or(started, SendClock::last_moved);
        match last.checked_add(stall) {
            Some(end) if end <= Instant::now() => return,
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}

fn silent() -> Failure {
    Failure {
        error: Error::new(ErrorKind::Timeout, "nothing moved for the stall timeout"),
        phase: Phase::Unanswered,
    }
}

/// As much of an error body as comes in a short time: one that never ends must not hide the
/// status.
async fn read_error_body(mut response: reqwest::Response) -> BytesMut {
    let mut body = BytesMut::new();
    let reading = async {
        while body.len() < ERROR_BODY {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            let room = ERROR_BODY - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    let _ = timeout(ERROR_BODY_WAIT, reading).await;
    body
}

/// Reads a body of at most `limit` bytes.
async fn read_whole(
    mut response: reqwest::Response,
    limit: u64,
    stall: Option<Duration>,
) -> Result<Bytes, Failure> {
    let too_large = || {
        let message = format!("the answer is larger than the limit of {limit} bytes");
        Err(Failure { error: Error::new(ErrorKind::Protocol, message), phase: Phase::Final })
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return too_large();
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let next = tokio::select! {
            biased;
            chunk = response.chunk() => chunk.map_err(|error| broken(error, None))?,
            () = stalled(None, stall) => return Err(silent()),
        };
        let Some(chunk) = next else { break };
        if (first.len() + all.len() + chunk.len()) as u64 > limit {
            return too_large();
        }
        // Most answers are one chunk, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// An attempt that got no complete answer.
fn broken(error: reqwest::Error, clock: Option<&SendClock>) -> Failure {
    if let Some(error) = clock.and_then(SendClock::take_failure) {
        return Failure { error, phase: Phase::Final };
    }
    let (phase, what) = match () {
        () if error.is_connect() => (Phase::NotSent, "cannot connect"),
        () if error.is_builder() => (Phase::Local, "the request cannot be made"),
        () => (Phase::Unanswered, "the connection broke before the answer was complete"),
    };
    let cause = root_cause(&error);
    // The address may hold a query, and the error carries the path already.
    let error = Error::new(ErrorKind::Connection, format!("{what}: {cause}"))
        .with_source(error.without_url());
    Failure { error, phase }
}

/// The innermost reason, which is the one that tells a person something.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
