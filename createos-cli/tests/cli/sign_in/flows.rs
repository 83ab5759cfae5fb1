//! The ways to sign in, with a person at the other end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use wiremock::matchers::any;
use wiremock::{Mock, MockServer};

use super::provider::{Browser, Provider};
use super::{CLIENT, callback_port, command, plane, session};
use crate::support::Answer;
use crate::support::plane::{Cli, fail};
use crate::support::terminal::Terminal;

/// A sign-in that waits for a person.
struct Waiting {
    process: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Waiting {
    fn start(cli: &Cli, issuer: &str, arguments: &[&str]) -> Self {
        let mut process = command(cli, issuer, arguments).spawn().expect("the program runs");
        let stderr = BufReader::new(process.stderr.take().expect("a pipe"));
        Self { process, stderr, said: String::new() }
    }

    /// The address in the first line that has this in it.
    fn address(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).expect("text"), 0, "{}", self.said);
            self.said.push_str(&line);
            if line.contains(part) {
                return line.split_whitespace().last().expect("an address").to_owned();
            }
        }
    }

    fn end(mut self) -> Answer {
        self.stderr.read_to_string(&mut self.said).expect("text");
        let output = self.process.wait_with_output().expect("an end");
        Answer { stderr: self.said, ..Answer::of(output) }
    }
}

#[tokio::test]
async fn a_code_signs_in() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    let mut waiting = Waiting::start(&cli, &provider.issuer, &["login", "--device", "-o", "json"]);
    let link = waiting.address("user_code=");
    let done = Browser::new().agree(&link);
    assert!(done.text.contains("Sign-in Success"), "{done:?}");
    let answer = waiting.end();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let document = answer.json();
    assert_eq!(document["action"], "signed_in");
    assert_eq!((&document["method"], &document["user_id"]), (&"device".into(), &"usr_1".into()));
    assert!(answer.stderr.contains("10m"), "how long the code lives: {answer:?}");

    let file = cli.home.path().join(".createos/.oauth");
    assert_eq!(std::fs::metadata(&file).expect("metadata").permissions().mode() & 0o777, 0o600);
    let session = session(&cli);
    for key in ["access_token", "refresh_token", "token_endpoint", "client_id"] {
        assert!(session[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {session}");
    }
    let left = session["expires_at"].as_u64().expect("seconds") - super::now();
    assert!((3500..=3600).contains(&left), "{left}");

    let who = command(&cli, "", &["whoami", "-o", "json"]).output().expect("runs");
    assert_eq!(Answer::of(who).json()["method"], "session");
    for request in plane.received_requests().await.expect("recorded") {
        assert!(!request.headers.contains_key("x-api-key"), "a token is no key");
    }
}

#[tokio::test]
async fn a_person_can_say_no() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    let mut waiting = Waiting::start(&cli, &provider.issuer, &["login", "--device", "-o", "table"]);
    let link = waiting.address("user_code=");
    let browser = Browser::new();
    let confirm = browser.submit(&browser.open(&link), &[]).expect("a form");
    browser.submit(&confirm, &[("abort", "yes")]).expect("a form");
    let answer = waiting.end();
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:?}");
    assert!(answer.stderr.contains("denied"), "{answer:?}");
    assert!(!cli.home.path().join(".createos/.oauth").exists());
}

#[tokio::test]
async fn a_browser_signs_in_and_replaces_the_key() {
    let _port = callback_port();
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    std::fs::create_dir(cli.home.path().join(".createos")).expect("a directory");
    std::fs::write(cli.home.path().join(".createos/.token"), "skp_old").expect("a key");
    // The browser is opened by itself: this one writes down what it is given.
    let opener = cli.home.path().join("browser");
    std::fs::write(&opener, "#!/bin/sh\necho \"$1\" > \"$HOME/opened\"\n").expect("a script");
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let mut login = command(&cli, &provider.issuer, &["login", "--browser", "-o", "table"]);
    let mut process = login.env("BROWSER", &opener).spawn().expect("the program runs");
    let stderr = BufReader::new(process.stderr.take().expect("a pipe"));
    let mut waiting = Waiting { process, stderr, said: String::new() };
    let url = waiting.address("code_challenge");
    assert!(url.contains("code_challenge_method=S256"), "{url}");
    let opened = cli.home.path().join("opened");
    crate::support::wait_until("the browser is opened", || {
        std::fs::read_to_string(&opened).is_ok_and(|text| text.trim() == url)
    });
    let browser = Browser::new();
    // What else a browser asks for is not an answer.
    let icon = browser.open("http://localhost:65341/favicon.ico");
    assert!(icon.text.contains("nothing"), "{icon:?}");
    let done = browser.agree(&url);
    assert!(done.url.starts_with("http://localhost:65341/callback?"), "{done:?}");
    assert!(done.text.contains("Back to the terminal"), "{done:?}");
    let answer = waiting.end();
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), "Signed in as usr_1.\n"));
    assert_eq!(session(&cli)["client_id"], CLIENT);
    assert!(!cli.home.path().join(".createos/.token").exists(), "one sign-in at a time");
}

#[tokio::test]
async fn a_foreign_answer_ends_the_sign_in() {
    let _port = callback_port();
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    for (query, part) in [
        ("?code=x&state=wrong", "wrong state"),
        ("?code=x", "wrong state"),
        ("?error=access_denied&state=wrong", "wrong state"),
    ] {
        let mut waiting = Waiting::start(&cli, &provider.issuer, &["login", "--browser"]);
        waiting.address("code_challenge");
        Browser::new().open(&format!("http://localhost:65341/callback{query}"));
        let answer = waiting.end();
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(part), "{query}: {answer:?}");
    }
    assert!(!cli.home.path().join(".createos/.oauth").exists());
}

#[tokio::test]
async fn a_refusal_in_the_browser_is_told() {
    let _port = callback_port();
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    let mut waiting = Waiting::start(&cli, &provider.issuer, &["login", "--browser", "-o", "json"]);
    let url = waiting.address("code_challenge");
    let state = url.split('&').find_map(|part| part.strip_prefix("state=")).expect("a state");
    let query = format!("?error=access_denied&error_description=not+today&state={state}");
    let page = Browser::new().open(&format!("http://localhost:65341/callback{query}"));
    assert!(page.text.contains("not signed in"), "{page:?}");
    let answer = waiting.end();
    assert_eq!((answer.code, &answer.error()["code"]), (Some(1), &"forbidden".into()));
    assert!(answer.error()["message"].as_str().expect("text").contains("not today"));
}

#[tokio::test]
async fn a_taken_port_is_named_with_another_way() {
    let _port = callback_port();
    let taken = TcpListener::bind("127.0.0.1:65341").expect("the port");
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    let answer = Waiting::start(&cli, &provider.issuer, &["login", "--browser"]).end();
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.contains("65341") && answer.stderr.contains("--device"), "{answer:?}");
    drop(taken);
}

#[tokio::test]
async fn what_the_control_plane_refuses_is_not_stored() {
    let provider = Provider::start(3600);
    let refusing = MockServer::start().await;
    let refusal = fail(403, "this account has no sandboxes".into());
    Mock::given(any()).respond_with(refusal).mount(&refusing).await;
    let cli = Cli::new(&refusing.uri());
    let mut waiting = Waiting::start(&cli, &provider.issuer, &["login", "--device", "-o", "json"]);
    let link = waiting.address("user_code=");
    Browser::new().agree(&link);
    let answer = waiting.end();
    assert_eq!((answer.code, &answer.error()["code"]), (Some(1), &"forbidden".into()));
    assert!(!cli.home.path().join(".createos/.oauth").exists());
}

#[tokio::test]
async fn ctrl_c_gives_up_and_leaves_nothing() {
    let (provider, plane) = (Provider::start(3600), plane().await);
    let cli = Cli::new(&plane.uri());
    let mut waiting = Waiting::start(&cli, &provider.issuer, &["login", "--device"]);
    waiting.address("user_code=");
    let pid = rustix::process::Pid::from_child(&waiting.process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(waiting.end().code, Some(130));
    assert!(!cli.home.path().join(".createos/.oauth").exists());
}

#[test]
fn the_ways_exclude_each_other_and_have_to_be_named_without_a_terminal() {
    let cli = Cli::new("http://127.0.0.1:1");
    let run = |issuer: &str, arguments: &[&str]| {
        let mut command = command(&cli, issuer, &[arguments, &["-o", "table"]].concat());
        Answer::of(command.output().expect("runs"))
    };
    for (line, parts) in [
        (&["login", "--device", "--browser"][..], &["--browser"][..]),
        (&["login", "--token", "x", "--device"], &["--device"]),
        (&["login"], &["--token", "--device", "CREATEOS_API_KEY"]),
        (&["login", "--token", "  "], &["empty"]),
    ] {
        let answer = run("https://id.example.org", line);
        assert_eq!(answer.code, Some(2), "{line:?}: {answer:?}");
        for part in parts {
            assert!(answer.stderr.contains(part), "{part} for {line:?}: {answer:?}");
        }
    }
    for way in ["--device", "--browser"] {
        let answer = run("", &["login", way]);
        assert_eq!(answer.code, Some(2), "{answer:?}");
        for part in ["CREATEOS_OIDC_ISSUER", "--token", "CREATEOS_API_KEY"] {
            assert!(answer.stderr.contains(part), "{part}: {answer:?}");
        }
        for issuer in ["http://id.example.org", "ftp://localhost", "nonsense"] {
            let answer = run(issuer, &["login", way]);
            assert_eq!(answer.code, Some(2), "{issuer}: {answer:?}");
            assert!(answer.stderr.contains("issuer"), "{issuer}: {answer:?}");
        }
        let answer = run("http://127.0.0.1:1", &["login", way]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.stderr.contains("cannot reach"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_and_the_key_is_not_shown() {
    let plane = MockServer::start().await;
    let stats = serde_json::json!({"running": 0, "paused": 0, "other": 0, "total": 0});
    let who = serde_json::json!({"user_id": "usr_2", "stats": stats});
    let good = Mock::given(wiremock::matchers::header("x-api-key", "skp_typed_0123"));
    good.respond_with(crate::support::plane::success(who)).mount(&plane).await;
    let cli = Cli::new(&plane.uri());
    let asked = move || {
        let mut login = command(&cli, "https://id.example.org", &["login"]);
        login.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let mut terminal = Terminal::start(&login, 80);
        terminal.expect("how do you want to sign in?");
        terminal.expect("with an API key");
        terminal.send("\x1b[B");
        terminal.send("\x1b[B");
        terminal.send("\r");
        terminal.expect("API key:");
        // Pasted at once, with a slip that is taken back.
        terminal.send("skp_typed_012X\x7f3\r");
        let (said, code) = terminal.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("**************"), "{said}");
        assert!(!said.contains("skp_typed"), "{said}");
        assert!(said.contains("Signed in as usr_2."), "{said}");
        let stored = std::fs::read_to_string(cli.home.path().join(".createos/.token"));
        assert_eq!(stored.expect("stored"), "skp_typed_0123");

        for (keys, code) in [("q", 0), ("\x1b", 0), ("\x03", 130)] {
            let mut terminal = Terminal::start(&login, 80);
            terminal.expect("with an API key");
            std::thread::sleep(Duration::from_millis(100));
            terminal.send(keys);
            let (said, ended) = terminal.end();
            assert_eq!(ended, Some(code), "{keys:?}: {said}");
            assert!(code != 0 || said.contains("nothing was changed"), "{keys:?}: {said}");
        }
        // Without an identity server there is but one way.
        let mut login = command(&cli, "", &["login"]);
        login.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let mut terminal = Terminal::start(&login, 80);
        terminal.expect("API key:");
        terminal.send("\x03");
        let (said, code) = terminal.end();
        assert_eq!(code, Some(130), "{said}");
    };
    tokio::task::spawn_blocking(asked).await.expect("no panic");
}

#[test]
fn a_key_comes_from_standard_input_at_most_once() {
    let cli = Cli::new("http://127.0.0.1:1");
    let mut login = command(&cli, "", &["login", "--token", "-", "-o", "table"]);
    let mut process = login.stdin(Stdio::piped()).spawn().expect("the program runs");
    process.stdin.take().expect("a pipe").write_all(b" \n").expect("written");
    let answer = Answer::of(process.wait_with_output().expect("an end"));
    assert_eq!(answer.code, Some(2), "{answer:?}");
    assert!(answer.stderr.contains("empty"), "{answer:?}");
}
