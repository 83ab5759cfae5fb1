//! Running a command, buffered or streamed (api.md 4.11).

use std::io;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use createos_sdk::wire::{ExecAnswer, ExecFrame, ExecRequest, ExecResult};
use futures::Stream;
use tokio::sync::mpsc;

use super::Front;
use super::answer::{self, Answer, ok};
use super::body;
use super::ndjson::{self, line};
use super::path::Id;
use super::query::Query;
use super::text::Pieces;
use super::view::millis;
use crate::core::{Command, CoreError, End, Started, Step};

/// How long the last frames of a command wait for a client that does not read.
const LAST_WORDS: Duration = Duration::from_secs(10);

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
    let tuning = front.core().tuning();
    let begun = Instant::now();
    match (live.exec(request).await?, stream) {
        (Started::Command(command), true) => Ok(streamed(command, tuning.heartbeat)),
        (Started::Command(command), false) => {
            buffered(collect(command, tuning.max_buffered).await?, begun)
        }
        (Started::Not { message, exit_code }, true) => {
            let frames = [ExecFrame::error(message), ExecFrame::exit(exit_code)];
            Ok(ndjson::answer(Body::from(frames.iter().flat_map(line).collect::<Vec<u8>>())))
        }
        (Started::Not { message, exit_code }, false) => {
            buffered(ExecResult::not_started(message, exit_code), begun)
        }
    }
}

fn buffered(result: ExecResult, begun: Instant) -> Answer {
    ok(ExecAnswer::new(result, millis(begun.elapsed())))
}

/// Runs a command to its end. Dropped half-way, because the client went away, it kills it.
async fn collect(mut command: Command, max: usize) -> Result<ExecResult, CoreError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (exit_code, error) = loop {
        let room = max - stdout.len() - stderr.len();
        let (kept, chunk) = match command.next().await? {
            Step::Stdout(chunk) => (&mut stdout, chunk),
            Step::Stderr(chunk) => (&mut stderr, chunk),
            Step::Ended(End::Exited(code)) => break (code, None),
            Step::Ended(End::Killed { message, exit_code }) => break (exit_code, Some(message)),
        };
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            let message = format!(
                "killed after {} MiB of output, the most a buffered answer holds; stream it, or \
                 write it to a file and download that",
                max >> 20
            );
            break (Command::KILLED, Some(message));
        }
    };
    drop(command);
    let mut result = ExecResult::new(&stdout, &stderr, exit_code);
    result.error = error;
    Ok(result)
}

/// A frame on its way to the client.
struct Line {
    text: Vec<u8>,
    is_last: bool,
}

fn streamed(command: Command, heartbeat: Duration) -> Response {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let (stdout, stderr) = (Pieces::default(), Pieces::default());
    let pump = Pump { command, heartbeat, stdout, stderr, sender };
    tokio::spawn(pump.run());
    ndjson::answer(answer::streamed(lines(receiver)))
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
    heartbeat: Duration,
    stdout: Pieces,
    stderr: Pieces,
    sender: mpsc::Sender<Line>,
}

/// Why there is nothing more to carry.
enum Stop {
    ClientGone,
    /// How the command ended; an error means that this is unknown.
    Ended(Result<End, CoreError>),
}

impl Pump {
    async fn run(mut self) {
        let stop = loop {
            if let Err(stop) = self.step().await {
                break stop;
            }
        };
        if let Stop::Ended(end) = stop {
            // A client that does not read is not waited for any longer.
            let _ = tokio::time::timeout(LAST_WORDS, self.finish(end)).await;
        }
    }

    async fn step(&mut self) -> Result<(), Stop> {
        let step = tokio::select! {
            biased;
            () = self.sender.closed() => return Err(Stop::ClientGone),
            step = tokio::time::timeout(self.heartbeat, self.command.next()) => step,
        };
        match step {
            Err(_) => self.send(&ExecFrame::heartbeat()).await,
            Ok(Ok(Step::Stdout(chunk))) => {
                for piece in self.stdout.push(chunk) {
                    self.send(&ExecFrame::stdout(&piece)).await?;
                }
                Ok(())
            }
            Ok(Ok(Step::Stderr(chunk))) => {
                for piece in self.stderr.push(chunk) {
                    self.send(&ExecFrame::stderr(&piece)).await?;
                }
                Ok(())
            }
            Ok(Ok(Step::Ended(end))) => Err(Stop::Ended(Ok(end))),
            Ok(Err(error)) => Err(Stop::Ended(Err(error))),
        }
    }

    /// Sends a frame, unless the command is cut off while the client does not read.
    async fn send(&mut self, frame: &ExecFrame) -> Result<(), Stop> {
        let line = Line { text: line(frame), is_last: false };
        tokio::select! {
            biased;
            sent = self.sender.send(line) => sent.map_err(|_| Stop::ClientGone),
            end = self.command.cut_off() => Err(Stop::Ended(end)),
        }
    }

    /// Sends the last frames. Without knowing how the command ended there is no exit frame,
    /// and the answer breaks off.
    async fn finish(&mut self, end: Result<End, CoreError>) {
        let rest = (self.stdout.rest(), self.stderr.rest());
        let mut frames: Vec<ExecFrame> = Vec::new();
        frames.extend(rest.0.map(|rest| ExecFrame::stdout(&rest)));
        frames.extend(rest.1.map(|rest| ExecFrame::stderr(&rest)));
        match end {
            Ok(End::Exited(code)) => frames.push(ExecFrame::exit(code)),
            Ok(End::Killed { message, exit_code }) => {
                frames.extend([ExecFrame::error(message), ExecFrame::exit(exit_code)]);
            }
            Err(error) => frames.push(ExecFrame::error(error.to_string())),
        }
        for frame in frames {
            let line = Line { text: line(&frame), is_last: frame.exit_code.is_some() };
            if self.sender.send(line).await.is_err() {
                return;
            }
        }
    }
}
