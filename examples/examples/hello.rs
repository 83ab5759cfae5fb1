//! A sandbox, commands in it, and its end.
//!
//! ```sh
//! cargo run -p examples --example hello
//! ```

use std::process::ExitCode;

use createos_sdk::{Client, ErrorKind};

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(hello).await
}

async fn hello(client: Client) -> examples::Result {
    // Guarded: on every way out of this function the sandbox is destroyed.
    let creating = client.create_sandbox("s-1vcpu-1gb").env("GREETING", "hello");
    let sandbox = creating.guarded().await?;
    println!("sandbox {} runs", sandbox.id());

    let script = r#"echo "$GREETING from $(uname -s)""#;
    let output = sandbox.command("sh").args(["-c", script]).await?.ensure_success()?;
    print!("it says: {}", output.stdout_str()?);

    let shout = sandbox.command("tr").args(["a-z", "A-Z"]).stdin("from standard input\n");
    print!("it can shout: {}", shout.await?.stdout_str()?);

    // A command that fails is an answer. `ensure_success` makes it an error.
    let failing = sandbox.command("sh").args(["-c", "echo no such luck >&2; exit 3"]);
    let output = failing.await?;
    print!("{}: {}", output.status, output.stderr_str()?);
    if let Err(error) = output.ensure_success() {
        println!("as an error: {error}");
    }

    let id = sandbox.id().clone();
    sandbox.close().await?;
    match client.sandbox(id).command("true").await {
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
            println!("it is gone: {}", error.kind());
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err("a command ran in a sandbox that was destroyed".into()),
    }
}
