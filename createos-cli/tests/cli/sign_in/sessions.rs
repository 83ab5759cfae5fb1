//! A session while commands use it: renewed in time, by one at a time, never lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::provider::{Browser, Provider};
use super::{CLIENT, command, edit_session, now, plane, session};
use crate::support::Answer;
use crate::support::plane::Cli;

/// Signs in at the provider without the command, and stores the session.
fn signed_in(cli: &Cli, provider: &Provider) {
    let mut login = command(cli, &provider.issuer, &["login", "--device", "-o", "table"]);
    let mut process = login.spawn().expect("the program runs");
    let stderr = BufReader::new(process.stderr.take().expect("a pipe"));
    let mut lines = stderr.lines().map(|line| line.expect("text"));
    let line = lines.find(|line| line.contains("user_code=")).expect("a link");
    Browser::new().agree(line.split_whitespace().last().expect("a link"));
    assert!(process.wait().expect("an end").success());
}

/// A session as a sign-in leaves it, at a token address of the test's own.
fn stored(cli: &Cli, token_endpoint: &str, expires_at: u64) {
    let dir = cli.home.path().join(".createos");
    std::fs::create_dir_all(&dir).expect("a directory");
    let session = json!({"access_token": "old", "refresh_token": "refresh-1",
                         "expires_at": expires_at, "token_endpoint": token_endpoint});
    std::fs::write(dir.join(".oauth"), session.to_string()).expect("a session");
}

fn whoami(cli: &Cli) -> Answer {
    Answer::of(command(cli, "", &["whoami", "-o", "json"]).output().expect("runs"))
}

#[tokio::test]
async fn a_session_is_renewed_before_it_ends_and_after_a_refusal() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    signed_in(&cli, &provider);
    let first = session(&cli);
    assert_eq!(whoami(&cli).code, Some(0));
    assert_eq!(session(&cli), first, "a fresh session stays as it is");

    // Something another version knows survives.
    edit_session(&cli, |session| {
        session["expires_at"] = (now() + 59).into();
        session["scope"] = "kept".into();
    });
    assert_eq!(whoami(&cli).code, Some(0));
    let second = session(&cli);
    assert_ne!(second["access_token"], first["access_token"]);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert!(second["expires_at"].as_u64().expect("seconds") > now() + 3000);
    assert_eq!(second["scope"], "kept");

    let before = plane.received_requests().await.expect("recorded").len();
    edit_session(&cli, |session| session["access_token"] = "refused".into());
    assert_eq!(whoami(&cli).code, Some(0));
    let third = session(&cli);
    assert_ne!(third["refresh_token"], second["refresh_token"]);
    let after = plane.received_requests().await.expect("recorded").len();
    assert_eq!(after - before, 2, "the refused request and its repetition");
}

#[tokio::test]
async fn many_commands_at_once_renew_once() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    signed_in(&cli, &provider);
    for round in 0..3 {
        edit_session(&cli, |session| session["expires_at"] = now().into());
        let start = |_| command(&cli, "", &["whoami", "-o", "json"]).spawn().expect("it runs");
        let commands: Vec<Child> = (0..12).map(start).collect();
        for command in commands {
            let answer = Answer::of(command.wait_with_output().expect("an end"));
            assert_eq!(answer.code, Some(0), "{round}: {answer:?}");
        }
    }
    // A refresh token that was used twice would have ended the whole sign-in.
    edit_session(&cli, |session| session["expires_at"] = now().into());
    assert_eq!(whoami(&cli).code, Some(0));
}

#[tokio::test]
async fn a_session_that_cannot_be_renewed_says_so_and_stays() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    signed_in(&cli, &provider);
    edit_session(&cli, |session| {
        session["expires_at"] = now().into();
        session["refresh_token"] = "revoked".into();
    });
    let before = session(&cli);
    let answer = whoami(&cli);
    assert_eq!((answer.code, &answer.error()["code"]), (Some(1), &"unauthorized".into()));
    let message = answer.error()["message"].to_string();
    assert!(message.contains("session expired") && message.contains("sign in again"), "{message}");
    assert!(answer.error()["hint"].to_string().contains("createos login"));
    assert_eq!(session(&cli), before);
    assert!(plane.received_requests().await.expect("recorded").len() <= 1, "only the sign-in");

    for (change, part) in [
        ("refresh_token", "session expired"),
        ("token_endpoint", "session expired"),
        ("client_id", "CREATEOS_OIDC_CLIENT_ID"),
    ] {
        edit_session(&cli, |session| session[change] = Value::Null);
        if change == "token_endpoint" {
            edit_session(&cli, |session| session[change] = "http://example.org/token".into());
        }
        let mut whoami = command(&cli, "", &["whoami", "-o", "table"]);
        let output = whoami.env_remove("CREATEOS_OIDC_CLIENT_ID").output().expect("runs");
        let answer = Answer::of(output);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{change}: {answer:?}");
        assert!(answer.stderr.contains(part), "{change}: {answer:?}");
    }
}

/// Reads a request to its end and gives its body.
fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    String::from_utf8(body).expect("text")
}

#[tokio::test]
async fn ctrl_c_does_not_lose_a_rotated_token() {
    let plane = plane().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let cli = Cli::new(&plane.uri());
    stored(&cli, &format!("http://{address}/token"), now());
    let process = command(&cli, "", &["whoami"]).spawn().expect("the program runs");
    let (mut stream, _) = listener.accept().expect("a connection");
    let body = request(&mut stream);
    for part in ["grant_type=refresh_token", "refresh_token=refresh-1", "client_id=createos-test"] {
        assert!(body.contains(part), "{body}");
    }
    assert_eq!(CLIENT, "createos-test");
    // The old token is spent, the new one on its way: now the command is told to end.
    kill_process(Pid::from_child(&process), Signal::INT).expect("a signal");
    std::thread::sleep(Duration::from_millis(500));
    let answer = json!({"access_token": "new", "token_type": "Bearer", "expires_in": 3600,
                        "refresh_token": "refresh-2"});
    let answer = answer.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    write!(stream, "{head}: {}\r\n\r\n{answer}", answer.len()).expect("answered");
    let ended = Answer::of(process.wait_with_output().expect("an end"));
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(session(&cli)["refresh_token"], "refresh-2");
}

#[tokio::test]
async fn a_second_ctrl_c_ends_at_once() {
    let plane = plane().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let cli = Cli::new(&plane.uri());
    stored(&cli, &format!("http://{address}/token"), now());
    let process = command(&cli, "", &["whoami"]).spawn().expect("the program runs");
    let (_stream, _) = listener.accept().expect("a connection");
    let (pid, begun) = (Pid::from_child(&process), Instant::now());
    kill_process(pid, Signal::INT).expect("a signal");
    // One that follows at once is the same Ctrl+C, passed on by whoever started us.
    kill_process(pid, Signal::INT).expect("a signal");
    std::thread::sleep(Duration::from_millis(700));
    kill_process(pid, Signal::INT).expect("a signal");
    let ended = Answer::of(process.wait_with_output().expect("an end"));
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!((700..5_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(session(&cli)["refresh_token"], "refresh-1");
}

#[tokio::test]
async fn a_session_without_a_time_is_used_until_it_is_refused() {
    let plane = plane().await;
    let cli = Cli::new(&plane.uri());
    stored(&cli, "http://127.0.0.1:1/token", 0);
    assert_eq!(whoami(&cli).code, Some(0));
    edit_session(&cli, |session| session["access_token"] = "refused".into());
    let answer = whoami(&cli);
    assert_eq!(answer.code, Some(1));
    assert!(answer.error()["message"].to_string().contains("cannot reach"), "{answer:?}");
}

#[tokio::test]
async fn signing_out_forgets_the_session_and_a_damaged_one_is_named() {
    let plane = plane().await;
    let cli = Cli::new(&plane.uri());
    stored(&cli, "http://127.0.0.1:1/token", now() + 3600);
    let logout =
        |cli: &Cli| Answer::of(command(cli, "", &["logout", "-o", "json"]).output().expect("runs"));
    assert_eq!(logout(&cli).json(), json!({"action": "signed_out"}));
    assert!(!cli.home.path().join(".createos/.oauth").exists());
    let again = logout(&cli);
    assert_eq!((again.code, &again.error()["message"]), (Some(1), &"not signed in".into()));

    std::fs::write(cli.home.path().join(".createos/.oauth"), "{").expect("a file");
    let answer = whoami(&cli);
    assert_eq!(answer.code, Some(1));
    assert!(answer.error()["message"].to_string().contains(".oauth"), "{answer:?}");
}

#[tokio::test]
async fn a_session_that_others_can_read_is_warned_about_once() {
    use std::os::unix::fs::PermissionsExt;
    let plane = plane().await;
    let cli = Cli::new(&plane.uri());
    stored(&cli, "http://127.0.0.1:1/token", now() + 3600);
    let file = cli.home.path().join(".createos/.oauth");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("mode");
    let answer = whoami(&cli);
    assert_eq!(answer.code, Some(0));
    assert_eq!(answer.stderr.matches("chmod 600").count(), 1, "{answer:?}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    assert_eq!(whoami(&cli).stderr, "");
}

#[tokio::test]
async fn debug_shows_no_token() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    signed_in(&cli, &provider);
    edit_session(&cli, |session| session["expires_at"] = now().into());
    let before = session(&cli);
    let answer = Answer::of(command(&cli, "", &["whoami", "--debug"]).output().expect("runs"));
    assert_eq!(answer.code, Some(0));
    for session in [&before, &session(&cli)] {
        for key in ["access_token", "refresh_token"] {
            let token = session[key].as_str().expect("a token");
            assert!(!answer.stderr.contains(token), "{key}: {answer:?}");
        }
    }
}
