//! Signing in at a real OpenID provider, and what becomes of the session.

mod flows;
mod provider;
mod sessions;

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::support::plane::{Cli, fail, success};

const CLIENT: &str = "createos-test";

/// A control plane that signs in who shows any access token but `refused`.
async fn plane() -> MockServer {
    let server = MockServer::start().await;
    let answer = |request: &Request| -> ResponseTemplate {
        let token = request.headers.get("x-access-token").and_then(|token| token.to_str().ok());
        match token {
            Some(token) if token != "refused" => {
                let stats = json!({"running": 0, "paused": 0, "other": 0, "total": 0});
                success(json!({"user_id": "usr_1", "stats": stats}))
            }
            _ => fail(401, json!("token refused")),
        }
    };
    let whoami = Mock::given(method("GET")).and(path("/v1/whoami"));
    whoami.respond_with(answer).mount(&server).await;
    server
}

/// The command, knowing the identity server and no key.
fn command(cli: &Cli, issuer: &str, arguments: &[&str]) -> Command {
    let mut command = cli.command(arguments);
    command
        .env_remove("CREATEOS_API_KEY")
        .env("CREATEOS_OIDC_ISSUER", issuer)
        .env("CREATEOS_OIDC_CLIENT_ID", CLIENT)
        // Opens nothing on the machine that the tests run on.
        .env("BROWSER", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The stored session.
fn session(cli: &Cli) -> Value {
    let text = fs::read_to_string(cli.home.path().join(".createos/.oauth")).expect("a session");
    serde_json::from_str(&text).expect("JSON")
}

/// Changes the stored session.
fn edit_session(cli: &Cli, change: impl FnOnce(&mut Value)) {
    let mut session = session(cli);
    change(&mut session);
    fs::write(cli.home.path().join(".createos/.oauth"), session.to_string()).expect("written");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The browser always comes back to one port of this machine: one test at a time, also of
/// other runs of these tests.
fn callback_port() -> File {
    let path = std::env::temp_dir().join("createos-tests-callback-port.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.expect("a lock file");
    file.lock().expect("locked");
    file
}
