//! Streams of lines: output of commands and of managed processes.

use createos_sdk::{ExecEvent, ProcessEvent, ProcessId, SandboxId};
use futures::StreamExt;

use crate::{Best, Clock, Outcome, Plan, Server, Time, heading, row};

/// What a stream is made of.
pub(crate) struct Shape {
    /// The word that selects it; the server reads it in the id of the sandbox.
    pub(crate) word: &'static str,
    what: &'static str,
    pub(crate) content: Content,
    /// Bytes of a line, its break included.
    pub(crate) size: usize,
    pub(crate) count: usize,
    pub(crate) chunks: Chunks,
}

/// How a stream is cut into chunks of HTTP.
#[derive(Clone, Copy)]
pub(crate) enum Chunks {
    /// So many lines to a chunk.
    Lines(usize),
    /// So many chunks to a line, as a network or a proxy may bring it.
    ToALine(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// One line of text.
    Line,
    /// Lines of about 60 bytes, each with an escaped break.
    Text,
    /// Such lines with colours, as compilers write them to a terminal.
    Colour,
    /// Text beyond ASCII.
    Wide,
    /// Events of a managed process, which are base64.
    Process,
}

const KIB: usize = 1 << 10;

pub(crate) const SHAPES: [Shape; 9] = [
    shape("small", "1,000,000 frames of 64 B", Content::Line, 64, 1_000_000, 1024),
    shape("alone", "500,000 frames of 64 B, a chunk each", Content::Line, 64, 500_000, 1),
    shape("large", "16,000 frames of 32 KiB", Content::Line, 32 * KIB, 16_000, 2),
    Shape {
        chunks: Chunks::ToALine(32),
        ..shape(
            "cut",
            "4,000 frames of 32 KiB, in chunks of 1 KiB",
            Content::Line,
            32 * KIB,
            4_000,
            1,
        )
    },
    shape("text", "16,000 frames of 32 KiB, broken into lines", Content::Text, 32 * KIB, 16_000, 2),
    shape("colour", "8,000 frames of 32 KiB, lines in colour", Content::Colour, 32 * KIB, 8_000, 2),
    shape("wide", "8,000 frames of 32 KiB, beyond ASCII", Content::Wide, 32 * KIB, 8_000, 2),
    shape("tiny", "500,000 process events of 129 B", Content::Process, 129, 500_000, 500),
    shape("events", "8,000 process events of 32 KiB", Content::Process, 32 * KIB + 1, 8_000, 2),
];

const fn shape(
    word: &'static str,
    what: &'static str,
    content: Content,
    size: usize,
    count: usize,
    per_chunk: usize,
) -> Shape {
    Shape { word, what, content, size, count, chunks: Chunks::Lines(per_chunk) }
}

pub(crate) const LINE: usize = 15 << 20;
/// The official client takes quadratic time for a long line, so it is given less.
pub(crate) const SHORT_LINE: usize = 1 << 20;

pub(crate) async fn run(server: &Server, plan: &Plan<'_>) -> Outcome<()> {
    let shapes = SHAPES.iter().filter(|shape| plan.wants(shape.word));
    let shapes: Vec<_> = shapes.collect();
    if !shapes.is_empty() {
        heading(&["stream", "ours", "official", "ratio", "of work", "bare reqwest", "of work"]);
    }
    for shape in shapes {
        frames(server, plan, shape).await?;
    }
    if plan.wants("line") {
        lines(server, plan).await?;
    }
    Ok(())
}

async fn frames(server: &Server, plan: &Plan<'_>, shape: &Shape) -> Outcome<()> {
    let (mut ours, mut official, mut bare) = (Best::new(), Best::new(), Best::new());
    let (mut our_bytes, mut their_bytes) = (None, None);
    for _ in 0..plan.rounds {
        if plan.side("ours") {
            let (bytes, took) = match shape.content {
                Content::Process => our_process(server, shape.word).await?,
                _ => our_stream(server, shape.word).await?,
            };
            our_bytes = Some(bytes);
            ours.saw(took);
        }
        if plan.side("official") {
            let (bytes, took) = match shape.content {
                Content::Process => official_process(server, shape.word).await?,
                _ => official_stream(server, shape.word).await?,
            };
            their_bytes = Some(bytes);
            official.saw(took);
        }
        if plan.side("bare") {
            bare.saw(drain(server, shape).await?);
        }
    }
    if let (Some(ours), Some(theirs)) = (our_bytes, their_bytes) {
        assert_eq!(ours, theirs, "both clients see the same output");
    }
    let size = shape.size * shape.count;
    row(&[
        shape.what,
        &ours.rate(size),
        &official.rate(size),
        &ours.ahead_of(official),
        &ours.less_work_than(official),
        &bare.rate(size),
        &bare.less_work_than(official),
    ]);
    Ok(())
}

/// Bytes of output that our client took from a command, and the time.
async fn our_stream(server: &Server, word: &str) -> Outcome<(usize, Time)> {
    let sandbox = server.ours()?.sandbox(format!("sb-{word}").parse::<SandboxId>()?);
    let clock = Clock::start();
    let mut events = sandbox.command("x").stream().await?;
    let mut bytes = 0;
    while let Some(event) = events.next().await {
        if let ExecEvent::Stdout(piece) = event? {
            bytes += piece.len();
        }
    }
    Ok((bytes, clock.stop()))
}

async fn official_stream(server: &Server, word: &str) -> Outcome<(usize, Time)> {
    let sandbox = server.official()?.sandbox(&format!("sb-{word}")).await?;
    let request = createos::RunCommandRequest { command: "x".into(), ..Default::default() };
    let clock = Clock::start();
    let mut events = sandbox.stream_command(request, createos::ExecOptions::default()).await?;
    let mut bytes = 0;
    while let Some(event) = events.next().await? {
        bytes += event.data.len();
    }
    Ok((bytes, clock.stop()))
}

async fn our_process(server: &Server, word: &str) -> Outcome<(usize, Time)> {
    let sandbox = server.ours()?.sandbox(format!("sb-{word}").parse::<SandboxId>()?);
    let process = sandbox.process("prc-1".parse::<ProcessId>()?);
    let clock = Clock::start();
    let mut events = process.attach().await?;
    let mut bytes = 0;
    while let Some(event) = events.next().await {
        if let ProcessEvent::Output { bytes: piece, .. } = event? {
            bytes += piece.len();
        }
    }
    Ok((bytes, clock.stop()))
}

async fn official_process(server: &Server, word: &str) -> Outcome<(usize, Time)> {
    let sandbox = server.official()?.sandbox(&format!("sb-{word}")).await?;
    let processes = sandbox.processes();
    let options = createos::ManagedProcessConnectOptions::default();
    let clock = Clock::start();
    let mut events = processes.connect("prc-1", options).await?;
    let mut bytes = 0;
    while let Some(event) = events.next().await? {
        bytes += event.data.len();
    }
    Ok((bytes, clock.stop()))
}

/// The same answer, thrown away: what the HTTP stack under both clients takes by itself.
async fn drain(server: &Server, shape: &Shape) -> Outcome<Time> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = &server.url;
    let request = match shape.content {
        Content::Process => {
            http.get(format!("{url}/v1/sandboxes/sb-{}/processes/prc-1/connect", shape.word))
        }
        _ => http.post(format!("{url}/v1/sandboxes/sb-{}/exec", shape.word)),
    };
    let clock = Clock::start();
    let mut body = request.send().await?.bytes_stream();
    let mut bytes = 0;
    while let Some(chunk) = body.next().await {
        bytes += chunk?.len();
    }
    assert!(bytes >= shape.size * shape.count);
    Ok(clock.stop())
}

async fn lines(server: &Server, plan: &Plan<'_>) -> Outcome<()> {
    heading(&["one line in chunks of 1 KiB", "ours", "official", "ratio"]);
    let (mut short, mut long) = (Best::new(), Best::new());
    for _ in 0..plan.rounds {
        short.saw(our_stream(server, "shortline").await?.1);
        let (bytes, took) = our_stream(server, "line").await?;
        assert!(bytes > LINE - 100);
        long.saw(took);
    }
    let mut official = Best::new();
    if plan.side("official") {
        official.saw(official_stream(server, "shortline").await?.1);
    }
    row(&["1 MiB", &short.millis(), &official.millis(), &short.ahead_of(official)]);
    // Its time grows with the square of the length.
    let factor = (LINE / SHORT_LINE).pow(2) as u32;
    let expected = Best(official.0.map(|time| time.times(factor)));
    let theirs = format!("{} (extrapolated)", expected.millis());
    row(&["15 MiB", &long.millis(), &theirs, &long.ahead_of(expected)]);
    Ok(())
}
