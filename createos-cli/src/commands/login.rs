//! `createos login`: verifies a key and stores it.

use std::io::Read;

use clap::Args;
use serde_json::json;

use super::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::store::credentials::Store;

/// A key is well below this; a larger input is another file.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Sign in to the hosted control plane with an API key
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos login --token skp_...
  createos login --token - < key.txt       the key stays out of the process list")]
pub(crate) struct LoginArgs {
    /// The API key; - reads it from standard input
    #[arg(short, long, value_name = "KEY")]
    token: Option<String>,
}

pub(super) async fn run(args: LoginArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(token) = args.token else {
        return Err(Failure::usage("a key is needed to sign in").hint(
            "store one:             createos login --token <key>\n\
             or set it per command: CREATEOS_API_KEY=<key>\n\
             or use this machine:   createos local start",
        ));
    };
    let key = if token == "-" { from_stdin()? } else { token };
    let key = key.trim();
    if key.is_empty() {
        return Err(Failure::usage("the key is empty").hint("createos login --token <key>"));
    }
    let plane = ctx.plane_for_login(key)?;
    let who = plane.client.whoami().await?;
    Store::open(&ctx.paths)?.save_key(key)?;
    ctx.leave_local()?;
    let document = json!({ "action": "signed_in", "method": "token", "user_id": who.user_id });
    ctx.out.result(&document, || match who.user_id.as_str() {
        "" => "Signed in.".to_owned(),
        user => format!("Signed in as {user}."),
    })?;
    Ok(Exit::Success)
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_KEY_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::io("cannot read the key from standard input", &error))?;
    Ok(text)
}
