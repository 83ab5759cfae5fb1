//! `createos sandbox exec`.

use std::path::{Path, PathBuf};

use clap::Args;
use createos_sdk::{ErrorKind, ExecEvent, Output, Sandbox};
use futures::StreamExt;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Payload;
use crate::prompt;
use crate::resolve::{self, Found, Rules};
use crate::value::env_pair::{self, EnvPair};
use crate::wait;

/// Standard input travels inside the request.
const MAX_STDIN: u64 = 10 * 1024 * 1024;

/// Run a command inside a sandbox
///
/// The command is started directly, without a shell; use bash -c '…' for pipes
/// and expansion. Programs inside see pipes, not a terminal. The exit code is
/// the command's. Long commands are better run with --stream. Ctrl+C drops the
/// connection; without --stream the command may go on inside.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox exec my-box -- uname -a
  createos sandbox exec my-box -- python3 -c 'print(\"hi\")'
  createos sandbox exec my-box --stream -- pip install requests
  createos sandbox exec my-box -- bash -c 'ls | wc -l'")]
pub(super) struct ExecArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// The command, when it is not behind --
    #[arg(allow_hyphen_values = true, hide = true)]
    words: Vec<String>,

    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<String>,

    /// Print output as it arrives
    #[arg(short, long)]
    stream: bool,

    /// Override a variable that was set at create (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = env_pair::parse)]
    env: Vec<EnvPair>,

    /// Send this file as standard input; - is our own [default: our own, unless
    /// it is a terminal]
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,

    /// Never read standard input; for loops and jobs that inherit an open pipe
    #[arg(short = 'n', long, conflicts_with = "stdin")]
    no_stdin: bool,
}

pub(super) async fn run(mut args: ExecArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut command = command(&mut args)?;
    if command.is_empty() && !ctx.interactive() {
        return Err(Failure::usage("which command? write it behind --"));
    }
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::ACT).await? else {
        return Ok(Exit::Success);
    };
    if command.is_empty() {
        command = ask_command().await?;
    }
    let stdin = stdin(&args, ctx).await?;
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let run = Run { ctx, sandbox, found, command, env: args.env, stdin };
    if args.stream { run.streamed().await } else { run.buffered().await }
}

/// Everything behind `--` is the command. Without `--` the words after the
/// sandbox are, those with dashes included.
fn command(args: &mut ExecArgs) -> Result<Vec<String>, Failure> {
    let words = std::mem::take(&mut args.words);
    if let Some(flag) = words.first().filter(|word| word.starts_with('-')) {
        return Err(Failure::usage(format!("unexpected argument '{flag}' found")));
    }
    if words.iter().any(|word| word == "--") || !(words.is_empty() || args.command.is_empty()) {
        let text = format!("only the sandbox stands before --, but there is '{}' too", words[0]);
        return Err(Failure::usage(text));
    }
    let behind = std::mem::take(&mut args.command);
    Ok(if behind.is_empty() { words } else { behind })
}

async fn ask_command() -> Result<Vec<String>, Failure> {
    let line = prompt::line("command").await?;
    match shlex::split(&line) {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err(Failure::usage("no command was given")),
        None => Err(Failure::usage("the command has an open quote")),
    }
}

/// What is sent as standard input; `None` when there is nothing.
async fn stdin(args: &ExecArgs, ctx: &Context) -> Result<Option<String>, Failure> {
    let own = || async { read_stdin("standard input", tokio::io::stdin()).await };
    let terminal = ctx.out.terminal().stdin;
    match &args.stdin {
        _ if args.no_stdin => Ok(None),
        Some(path) if path == Path::new("-") && terminal => {
            Err(Failure::usage("standard input is a terminal, which is never read"))
        }
        Some(path) if path == Path::new("-") => own().await,
        Some(path) => {
            let name = path.display().to_string();
            let file = tokio::fs::File::open(path).await;
            let file = file.map_err(|error| Failure::io(format!("cannot open {name}"), &error))?;
            read_stdin(&name, file).await
        }
        None if terminal => Ok(None),
        None => own().await,
    }
}

async fn read_stdin(name: &str, source: impl AsyncRead + Unpin) -> Result<Option<String>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(MAX_STDIN + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Failure::io(format!("cannot read {name}"), &error))?;
    let instead = "send it as a file: createos sandbox push <sandbox> - /tmp/input";
    if bytes.len() as u64 > MAX_STDIN {
        return Err(Failure::local(format!("{name} is larger than 10 MiB")).hint(instead));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::local(format!("{name} is not UTF-8 text")).hint(instead))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// One command to run.
struct Run<'a> {
    ctx: &'a Context,
    sandbox: Sandbox,
    found: Found,
    command: Vec<String>,
    env: Vec<EnvPair>,
    stdin: Option<String>,
}

impl Run<'_> {
    fn command(&self) -> createos_sdk::Command {
        let (program, arguments) =
            self.command.split_first().map_or(("", &[][..]), |(p, a)| (p, a));
        let mut command = self.sandbox.command(program).args(arguments);
        for pair in &self.env {
            command = command.env(&pair.key, pair.value.as_str());
        }
        match &self.stdin {
            Some(text) => command.stdin(text),
            None => command,
        }
    }

    fn explain(&self, error: createos_sdk::Error) -> Failure {
        let lost = matches!(error.kind(), ErrorKind::StreamLost | ErrorKind::Timeout);
        let undeclared = error.kind() == ErrorKind::InvalidArgument && !self.env.is_empty();
        let failure = self.found.explain(error);
        if lost {
            let label = self.found.label();
            return failure
                .saying(format!("{label}: connection lost; the command may still be running"));
        }
        if undeclared {
            return failure.hint(
                "--env overrides variables that were set at create; for others:\n\
                 createos sandbox exec <sandbox> -- bash -c 'KEY=VALUE command'",
            );
        }
        failure
    }

    async fn buffered(&self) -> Result<Exit, Failure> {
        let run = async || self.command().output().await.map_err(|error| self.explain(error));
        let output = wait::on_running(self.ctx, &self.sandbox, &self.found, run).await?;
        if self.ctx.out.is_json() {
            self.ctx.out.document(&json!({
                "sandbox_id": self.found.id.as_str(),
                "exit_code": output.status.code(),
                "stdout": output.stdout_lossy(),
                "stderr": output.stderr_lossy(),
                "error": output.error,
                "exec_ms": output.exec_time.as_secs_f64() * 1000.0,
            }))?;
        } else {
            self.write(&output).await?;
        }
        Ok(self.exit(output.status.code(), output.error.as_deref()))
    }

    /// Both streams byte for byte. A terminal's prompt begins on a line of its own.
    async fn write(&self, output: &Output) -> Result<(), Failure> {
        let mut payload = Payload::new();
        let terminal = self.ctx.out.terminal();
        payload.stdout(&output.stdout).await?;
        if terminal.stdout && needs_newline(&output.stdout) {
            payload.stdout(b"\n").await?;
        }
        payload.stderr(&output.stderr).await?;
        if terminal.stderr && needs_newline(&output.stderr) {
            payload.stderr(b"\n").await?;
        }
        Ok(())
    }

    async fn streamed(&self) -> Result<Exit, Failure> {
        let open = async || self.command().stream().await.map_err(|error| self.explain(error));
        let mut events = wait::on_running(self.ctx, &self.sandbox, &self.found, open).await?;
        let mut payload = Payload::new();
        let (mut code, mut not_started) = (None, None);
        while let Some(event) = events.next().await {
            match event.map_err(|error| self.explain(error))? {
                ExecEvent::Stdout(bytes) => payload.stdout(&bytes).await?,
                ExecEvent::Stderr(bytes) => payload.stderr(&bytes).await?,
                ExecEvent::Error(why) => not_started = Some(why),
                ExecEvent::Exit(status) => code = Some(status.code()),
                _ => {}
            }
        }
        // The stream has failed above when it ended without a code.
        Ok(self.exit(code.unwrap_or(1), not_started.as_deref()))
    }

    /// The program's code; one that cannot be passed on becomes 1 (cli.md 1.8).
    fn exit(&self, code: i32, not_started: Option<&str>) -> Exit {
        if let Some(why) = not_started {
            self.ctx.complain(&Failure::local(format!("{}: {why}", self.command[0])));
            return Exit::Code(u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1));
        }
        match u8::try_from(code) {
            Ok(0) => Exit::Success,
            Ok(code) => Exit::Code(code),
            Err(_) => {
                self.ctx.out.warn(&format!("the command ended with {code}; reported as 1"));
                Exit::Code(1)
            }
        }
    }
}

fn needs_newline(bytes: &[u8]) -> bool {
    bytes.last().is_some_and(|last| *last != b'\n')
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::FromArgMatches;

    use super::*;
    use crate::cli;

    fn parse(line: &str) -> Result<(Option<String>, Vec<String>, bool), String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let matches = cli::definition().try_get_matches_from(words).map_err(|e| e.to_string())?;
        let (_, sandbox) = matches.subcommand().unwrap();
        let (_, exec) = sandbox.subcommand().unwrap();
        let mut args = ExecArgs::from_arg_matches(exec).map_err(|e| e.to_string())?;
        let command = command(&mut args).map_err(|failure| failure.message().to_owned())?;
        Ok((args.sandbox, command, args.stream))
    }

    fn split(line: &str) -> (Option<String>, String, bool) {
        let (sandbox, command, stream) = parse(line).unwrap();
        (sandbox, command.join(" "), stream)
    }

    fn is(sandbox: &str, command: &str, stream: bool) -> (Option<String>, String, bool) {
        (Some(sandbox).filter(|s| !s.is_empty()).map(str::to_owned), command.to_owned(), stream)
    }

    #[test]
    fn the_line_is_split_as_documented() {
        let cases = [
            ("exec box -- ls -la", is("box", "ls -la", false)),
            ("exec box --stream -- ls", is("box", "ls", true)),
            ("exec --stream box -- ls", is("box", "ls", true)),
            ("exec -s box ls", is("box", "ls", true)),
            ("exec box ls -la", is("box", "ls -la", false)),
            ("exec box ls --stream", is("box", "ls --stream", false)),
            ("exec box ls -o json --debug", is("box", "ls -o json --debug", false)),
            ("exec box -o json -- ls -o", is("box", "ls -o", false)),
            ("exec box -- ./ci.sh --stream -- x", is("box", "./ci.sh --stream -- x", false)),
            ("exec --env A=1 box -- env", is("box", "env", false)),
            ("exec box --env A=1 env", is("box", "env", false)),
            ("exec -- ls", is("", "ls", false)),
            ("exec box", is("box", "", false)),
        ];
        for (line, expected) in cases {
            assert_eq!(split(&format!("createos sandbox {line}")), expected, "{line}");
        }
    }

    #[test]
    fn lines_with_two_meanings_are_refused() {
        for line in
            ["exec a b -- ls", "exec a b c -- ls", "exec box --bogus -- ls", "exec box --bogus"]
        {
            assert!(parse(&format!("createos sandbox {line}")).is_err(), "{line}");
        }
    }
}
