//! Managed processes (api.md 5.1 to 5.4).

use std::io;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use createos_sdk::Timestamp;
use createos_sdk::wire::{
    Ack, CreateProcess, ForegroundJob, InputAccepted, OutputRange, ProcessFrame, ProcessInput,
    ProcessKind, ProcessList, ProcessState, ProcessView, PtySize, SendSignal,
};
use futures::Stream;

use super::Front;
use super::answer::{self, Answer, Fail, ok, success};
use super::path::{Id, Process};
use super::query::Query;
use super::{body, ndjson};
use crate::core::{Following, signal_name};
use crate::runtime::{ExitReason, ProcessEvent, ProcessStatus, When};

/// A wait for which no time was given; shorter than the time-out of most clients.
const WAIT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(1);
/// More is brought down to this.
const LONGEST: Duration = Duration::from_secs(3600);

pub(super) async fn create(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    let live = front.core().live(&id).await?;
    let request: CreateProcess = body::read_json(body).await?;
    Ok(success(StatusCode::CREATED, view(live.spawn(request).await?)))
}

pub(super) async fn list(State(front): State<Front>, Id(id): Id) -> Answer {
    let processes = front.core().live(&id).await?.processes().await?;
    ok(ProcessList::new(processes.into_iter().map(view).collect()))
}

pub(super) async fn get(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
) -> Answer {
    ok(view(front.core().live(&id).await?.process(&process?).await?))
}

pub(super) async fn delete(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    query: Query,
) -> Answer {
    let live = front.core().live(&id).await?;
    let grace = query_time(&query, "grace_ms", GRACE)?;
    ok(view(live.terminate(&process?, grace).await?))
}

pub(super) async fn wait(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    query: Query,
) -> Answer {
    let live = front.core().live(&id).await?;
    let limit = query_time(&query, "timeout_ms", WAIT)?;
    let when = match query.get("scope") {
        None | Some("" | "leader") => When::LeaderEnded,
        Some("tree") => When::TreeEnded,
        Some(_) => return Err(Fail::field("scope", "must be `leader` or `tree`")),
    };
    ok(view(live.wait(&process?, when, limit).await?))
}

/// A time in milliseconds.
fn query_time(query: &Query, name: &str, usual: Duration) -> Result<Duration, Fail> {
    match query.get(name) {
        None | Some("") => Ok(usual),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // Digits that do not fit are simply very many.
            let time = digits.parse().map_or(LONGEST, Duration::from_millis);
            Ok(time.min(LONGEST))
        }
        Some(_) => Err(Fail::field(name, "must be a whole number of milliseconds")),
    }
}

pub(super) async fn input(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    body: Body,
) -> Answer {
    let live = front.core().live(&id).await?;
    let request: ProcessInput = body::read_json(body).await?;
    let bytes = request.bytes().map_err(|_| Fail::field("data_base64", "is not base64"))?;
    ok(InputAccepted::new(live.feed(&process?, bytes).await?))
}

pub(super) async fn close_input(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    front.core().live(&id).await?.close_input(&process?).await?;
    ok(Ack::new())
}

pub(super) async fn resize(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    body: Body,
) -> Answer {
    let live = front.core().live(&id).await?;
    let size: PtySize = body::read_json(body).await?;
    live.resize(&process?, size).await?;
    ok(Ack::new())
}

pub(super) async fn signal(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    body: Body,
) -> Answer {
    let live = front.core().live(&id).await?;
    let request: SendSignal = body::read_json(body).await?;
    live.signal(&process?, &request.signal).await?;
    ok(Ack::new())
}

pub(super) async fn connect(
    State(front): State<Front>,
    Id(id): Id,
    Process(process): Process,
    query: Query,
) -> Answer {
    let live = front.core().live(&id).await?;
    let after = match query.get("after") {
        None | Some("") => 0,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().unwrap_or(u64::MAX)
        }
        Some(_) => return Err(Fail::field("after", "must be a sequence number")),
    };
    let following = live.follow(&process?, after).await?;
    let lines = lines(following, front.core().tuning().heartbeat);
    Ok(ndjson::answer(answer::streamed(lines)))
}

/// The lines of the answer. A sandbox that ends breaks them off, so that no client takes the
/// process for ended.
fn lines(following: Following, heartbeat: Duration) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(Some(following), move |state| async move {
        let mut following = state?;
        let (frame, is_last) = match tokio::time::timeout(heartbeat, following.next()).await {
            Err(_) => (ProcessFrame::Heartbeat, false),
            Ok(Some(Ok(event))) => frame(event),
            Ok(Some(Err(error))) => return Some((Err(io::Error::other(error)), None)),
            Ok(None) => return None,
        };
        let line = Bytes::from(ndjson::line(&frame));
        Some((Ok(line), (!is_last).then_some(following)))
    })
}

/// A frame, and whether it is the last.
fn frame(event: ProcessEvent) -> (ProcessFrame, bool) {
    match event {
        ProcessEvent::Output { place, stream, bytes } => {
            (ProcessFrame::data(place, stream, &bytes), false)
        }
        ProcessEvent::Exited { place, reason } => {
            let (exit_code, signal) = exit(reason);
            (ProcessFrame::Exit { seq: place, exit_code, signal }, true)
        }
        ProcessEvent::Expired { oldest } => {
            let error = ProcessFrame::OFFSET_EXPIRED.to_owned();
            (ProcessFrame::Error { error, oldest_available_seq: Some(oldest) }, true)
        }
    }
}

/// Either a code or the name of a signal.
fn exit(reason: ExitReason) -> (Option<i32>, Option<String>) {
    match reason {
        ExitReason::Code(code) => (Some(code), None),
        ExitReason::Signal(signal) => (None, Some(signal_name(signal))),
    }
}

fn view(status: ProcessStatus) -> ProcessView {
    let kind = if status.has_terminal { ProcessKind::Pty } else { ProcessKind::Process };
    let state = match () {
        () if status.tree_ended => ProcessState::Exited,
        () if status.terminating => ProcessState::Terminating,
        () => ProcessState::Running,
    };
    let mut view = ProcessView::new(status.id, kind, state);
    view.pid = status.pid.into();
    view.leader_exited = status.exit.is_some();
    view.tree_exited = status.tree_ended;
    view.created_at = time(status.created);
    view.finished_at = status.finished.and_then(time);
    (view.exit_code, view.signal) = status.exit.map_or((None, None), exit);
    let mut words = status.argv.into_iter();
    view.cmd = words.next();
    view.args = words.collect();
    view.cwd = status.directory;
    view.foreground = status.foreground.and_then(|(pid, argv)| {
        let mut words = argv.into_iter();
        let mut job = ForegroundJob::new(words.next()?);
        job.pid = Some(pid.into());
        job.args = words.collect();
        Some(job)
    });
    let kept = status.output;
    view.output = OutputRange::new(kept.oldest, kept.newest, kept.bytes);
    view
}

fn time(milliseconds: u64) -> Option<Timestamp> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?;
    Timestamp::try_from(time).ok()
}
