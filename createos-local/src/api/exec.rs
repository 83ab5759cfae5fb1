//! Running a command, buffered or streamed (api.md 4.11).

use std::io;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::Bytes;
use createos_sdk::wire::{ExecAnswer, ExecFrame, ExecRequest, ExecResult};
use futures::Stream;
use tokio::sync::mpsc;

use super::Front;
use super::answer::{Answer, ok};
use super::body;
use super::path::Id;
use super::query::Query;
use super::text::Pieces;
use crate::core::{Command, CoreError, Started, Step};

/// The most a buffered answer keeps of each stream. A command that says more is killed:
/// cutting its output silently would be a lie, and the stream has no such bound.
const MAX_BUFFERED: usize = 64 << 20;

/// How often a silent stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Frames that wait for a slow reader before the command is held up.
const FRAMES_AHEAD: usize = 4;

pub(super) async fn exec(
    State(front): State<Front>,
    Id(id): Id,
    query: Query,
    body: Body,
) -> Answer {
    let live = front.core().live(&id).await?;
    let request: ExecRequest = body::read_json(body).await?;
    let stream = query.is_true("stream") || request.stream;
    let begun = Instant::now();
    match (live.exec(request).await?, stream) {
        (Started::Command(command), true) => Ok(streamed(command)),
        (Started::Command(command), false) => buffered(collect(command).await?, begun),
        (Started::Not { message, exit_code }, true) => {
            let frames = [ExecFrame::error(message), ExecFrame::exit(exit_code)];
            Ok(ndjson(Body::from(frames.iter().flat_map(line).collect::<Vec<u8>>())))
        }
        (Started::Not { message, exit_code }, false) => {
            buffered(ExecResult::not_started(message, exit_code), begun)
        }
    }
}

fn buffered(result: ExecResult, begun: Instant) -> Answer {
    ok(ExecAnswer::new(result, begun.elapsed().as_secs_f64() * 1000.0))
}

/// Runs a command to its end. Dropped half-way, because the client went away, it kills it.
async fn collect(mut command: Command) -> Result<ExecResult, CoreError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (exit_code, error) = loop {
        let (kept, chunk) = match command.next().await? {
            Step::Stdout(chunk) => (&mut stdout, chunk),
            Step::Stderr(chunk) => (&mut stderr, chunk),
            Step::Exited(code) => break (code, None),
            Step::Killed { message, exit_code } => break (exit_code, Some(message)),
        };
        let room = MAX_BUFFERED - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            let message = format!(
                "killed after {} MiB of output, the most a buffered answer holds; stream it, or \
                 write it to a file and download that",
                MAX_BUFFERED >> 20
            );
            break (Command::KILLED, Some(message));
        }
    };
    drop(command);
    let mut result = ExecResult::new(&stdout, &stderr, exit_code);
    result.error = error;
    Ok(result)
}

fn ndjson(body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn line(frame: &ExecFrame) -> Vec<u8> {
    // Text and numbers only: writing them cannot fail.
    let mut line = serde_json::to_vec(frame).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A frame on its way to the client.
struct Line {
    text: Vec<u8>,
    is_last: bool,
}

fn streamed(command: Command) -> Response {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let pump = Pump { command, stdout: Pieces::default(), stderr: Pieces::default(), sender };
    tokio::spawn(pump.run());
    ndjson(Body::from_stream(lines(receiver)))
}

/// The lines of the answer. Without its last one the answer breaks off, so that no client
/// takes a lost command for a finished one.
fn lines(receiver: mpsc::Receiver<Line>) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(Some(receiver), |state| async {
        let mut receiver = state?;
        match receiver.recv().await {
            Some(line) => Some((Ok(line.text.into()), (!line.is_last).then_some(receiver))),
            None => Some((Err(io::Error::other("the command was lost")), None)),
        }
    })
}

/// Carries a command's output to the client. A task of its own, so that the command's limits
/// hold for a client that does not read; it ends, and the command with it, when the client
/// goes away.
struct Pump {
    command: Command,
    stdout: Pieces,
    stderr: Pieces,
    sender: mpsc::Sender<Line>,
}

/// The client does not listen any more, or the command is over its limits.
struct Gone;

impl Pump {
    async fn run(mut self) -> Result<(), Gone> {
        loop {
            let step = tokio::select! {
                biased;
                () = self.sender.closed() => return Err(Gone),
                step = tokio::time::timeout(HEARTBEAT, self.command.next()) => step,
            };
            match step {
                Err(_) => self.send(&ExecFrame::heartbeat()).await?,
                Ok(Ok(Step::Stdout(chunk))) => {
                    for piece in self.stdout.push(chunk) {
                        self.send(&ExecFrame::stdout(&piece)).await?;
                    }
                }
                Ok(Ok(Step::Stderr(chunk))) => {
                    for piece in self.stderr.push(chunk) {
                        self.send(&ExecFrame::stderr(&piece)).await?;
                    }
                }
                Ok(Ok(Step::Exited(code))) => return self.finish(None, Some(code)).await,
                Ok(Ok(Step::Killed { message, exit_code })) => {
                    return self.finish(Some(message), Some(exit_code)).await;
                }
                // How it ended is unknown, so there is no exit frame: the answer breaks off.
                Ok(Err(error)) => return self.finish(Some(error.to_string()), None).await,
            }
        }
    }

    async fn finish(&mut self, error: Option<String>, code: Option<i32>) -> Result<(), Gone> {
        if let Some(rest) = self.stdout.rest() {
            self.send(&ExecFrame::stdout(&rest)).await?;
        }
        if let Some(rest) = self.stderr.rest() {
            self.send(&ExecFrame::stderr(&rest)).await?;
        }
        if let Some(error) = error {
            self.send(&ExecFrame::error(error)).await?;
        }
        match code {
            Some(code) => self.send_line(line(&ExecFrame::exit(code)), true).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, frame: &ExecFrame) -> Result<(), Gone> {
        self.send_line(line(frame), false).await
    }

    async fn send_line(&mut self, text: Vec<u8>, is_last: bool) -> Result<(), Gone> {
        tokio::select! {
            biased;
            sent = self.sender.send(Line { text, is_last }) => sent.map_err(|_| Gone),
            () = self.command.over() => Err(Gone),
        }
    }
}
