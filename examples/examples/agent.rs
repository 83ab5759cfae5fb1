//! The loop of a coding agent: a model asks for tools, a sandbox carries them out, and what
//! came of it goes back to the model, bounded. The model here follows a script, so that no
//! network is needed; implement `Model` for yours.
//!
//! ```sh
//! cargo run -p examples --example agent
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::ErrorKind::{InvalidArgument, NotFound, Timeout};
use createos_sdk::{Client, RequestOptions, Sandbox};

/// What a model may ask for.
#[derive(Debug)]
enum Tool {
    Run { command: &'static str },
    Read { path: &'static str },
    Write { path: &'static str, content: &'static str },
}

enum Turn {
    Call(Tool),
    Answer(String),
}

trait Model {
    /// What to do next, after this came of the last turn; at first it is the task.
    async fn next(&mut self, heard: &str) -> examples::Result<Turn>;
}

/// A model reads no more than this of each end of a file or an output.
const BOUND: usize = 400;

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(async |client| agent(client, Script(0)).await).await
}

async fn agent(client: Client, mut model: impl Model) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    let mut heard = "How many primes are below 100?".to_owned();
    println!("task: {heard}");
    for _ in 0..20 {
        let tool = match model.next(&heard).await? {
            Turn::Call(tool) => tool,
            Turn::Answer(answer) => {
                println!("answer: {answer}");
                return Ok(sandbox.close().await?);
            }
        };
        println!("model: {tool:?}");
        heard = match call(&sandbox, tool).await {
            Ok(result) => result,
            // About other errors a model can do nothing.
            Err(error) if matches!(error.kind(), InvalidArgument | NotFound | Timeout) => {
                format!("error: {}: {}", error.kind(), error.message())
            }
            Err(error) => return Err(error.into()),
        };
        println!("  {}", heard.trim_end().replace('\n', "\n  "));
    }
    Err("no answer in so many turns".into())
}

async fn call(sandbox: &Sandbox, tool: Tool) -> createos_sdk::Result<String> {
    match tool {
        Tool::Run { command } => {
            let shell = sandbox.command("sh").args(["-c", command]).limit_output(BOUND, BOUND);
            let output =
                shell.with(RequestOptions::new().deadline(Duration::from_secs(30))).await?;
            Ok(format!("{}\n{}{}", output.status, output.stdout_marked(), output.stderr_marked()))
        }
        Tool::Read { path } => {
            let excerpt = sandbox.files().read_excerpt(path, BOUND, BOUND).await?;
            Ok(excerpt.marked().into_owned())
        }
        Tool::Write { path, content } => {
            sandbox.files().write(path, content).await?;
            Ok(format!("{} bytes written", content.len()))
        }
    }
}

/// Writes a program with a mistake, sees it fail, looks at it, and mends it.
struct Script(usize);

const PROGRAM: &str = "/workspace/primes.py";
const WRONG: &str = "print(sum(is_prime(n) for n in range(2, 100)))\n";
const RIGHT: &str = "print(sum(all(n % d for d in range(2, n)) for n in range(2, 100)))\n";

impl Model for Script {
    async fn next(&mut self, heard: &str) -> examples::Result<Turn> {
        self.0 += 1;
        Ok(Turn::Call(match self.0 {
            1 => Tool::Run { command: "seq -s, 100000" },
            2 => Tool::Read { path: PROGRAM },
            3 if heard.contains("not found") => Tool::Write { path: PROGRAM, content: WRONG },
            4 | 7 => Tool::Run { command: "python3 /workspace/primes.py" },
            5 if heard.contains("NameError") => Tool::Read { path: PROGRAM },
            6 if heard == WRONG => Tool::Write { path: PROGRAM, content: RIGHT },
            8 => return Ok(Turn::Answer(heard.lines().nth(1).unwrap_or("?").to_owned())),
            _ => return Err(format!("the script did not expect {heard:?}").into()),
        }))
    }
}
