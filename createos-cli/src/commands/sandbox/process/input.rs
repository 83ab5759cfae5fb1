//! `createos sandbox process input`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::target::ProcessRef;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Bytes of one request.
const PIECE: usize = 256 << 10;
/// Longest input that is read into memory.
const MOST: u64 = 64 << 20;

/// Write to the standard input, or the terminal, of a process
#[derive(Args)]
#[command(
    // Spelled out, the three ways do not fit the terminal.
    override_usage = "createos sandbox process input [OPTIONS] [SANDBOX] [PROCESS]",
    before_help = "\
Examples:
  createos sandbox process input my-box proc_01k... --text $'make test\\n'
  createos sandbox process input my-box proc_01k... --file answers.txt
  echo hello | createos sandbox process input my-box proc_01k... --file -"
)]
pub(super) struct InputArgs {
    #[command(flatten)]
    target: ProcessRef,

    #[command(flatten)]
    source: Source,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Send this text as it is, without a line break at its end
    #[arg(long, allow_hyphen_values = true)]
    text: Option<String>,

    /// Send this file; - is our standard input
    #[arg(long)]
    file: Option<PathBuf>,

    /// Send these bytes, given in base64
    #[arg(long, value_name = "DATA", value_parser = decoded)]
    base64: Option<Bytes>,
}

/// Bytes that were given on the line.
#[derive(Clone)]
struct Bytes(Vec<u8>);

fn decoded(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text.trim()).map(Bytes).map_err(|error| format!("it is no base64: {error}"))
}

impl Source {
    async fn bytes(self, ctx: &Context) -> Result<Vec<u8>, Failure> {
        match (self.text, self.file, self.base64) {
            (Some(text), ..) => Ok(text.into_bytes()),
            (_, _, Some(Bytes(bytes))) => Ok(bytes),
            (_, file, _) => read(&file.unwrap_or_else(|| "-".into()), ctx).await,
        }
    }
}

async fn read(path: &Path, ctx: &Context) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        if ctx.out.terminal().stdin {
            return Err(Failure::usage("standard input is a terminal, which is never read"));
        }
        let read = tokio::io::stdin().take(MOST + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| Failure::io("cannot read standard input", &error))?;
    } else {
        let cannot = |error| Failure::io(format!("cannot read {}", path.display()), &error);
        let file = tokio::fs::File::open(path).await.map_err(cannot)?;
        file.take(MOST + 1).read_to_end(&mut bytes).await.map_err(cannot)?;
    }
    if bytes.len() as u64 > MOST {
        return Err(Failure::local("the input is larger than 64 MiB")
            .hint("stream it: createos sandbox process attach <sandbox> <process> --stdin"));
    }
    Ok(bytes)
}

pub(super) async fn run(args: InputArgs, ctx: &Context) -> Result<Exit, Failure> {
    let bytes = args.source.bytes(ctx).await?;
    let Some((place, process)) = args.target.find(ctx).await? else { return Ok(Exit::Success) };
    let mut pieces = bytes.chunks(PIECE);
    let first = pieces.next().unwrap_or_default();
    let mut seq = place.on_running(ctx, async || process.input(first).await).await?;
    for piece in pieces {
        seq = process.input(piece).await.map_err(|error| place.explain(error))?;
    }
    ctx.out.result(&json!({ "input_seq": seq }), || {
        format!("sent {} bytes to {}", bytes.len(), process.id())
    })?;
    Ok(Exit::Success)
}
