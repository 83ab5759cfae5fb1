//! Help, manual pages, version and overview: what teaches the command, without a network.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use crate::support::Answer;
use crate::support::plane::Cli;

#[test]
fn nothing_that_explains_the_command_opens_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a mode");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let cli = Cli::new(&url);
    // A session that would have to be renewed first.
    let dir = cli.home.path().join(".createos");
    std::fs::create_dir(&dir).expect("a directory");
    let session = json!({"access_token": "a", "refresh_token": "b", "expires_at": 1,
                         "token_endpoint": format!("{url}/token")});
    let file = dir.join(".oauth");
    std::fs::write(&file, session.to_string()).expect("a session");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    for line in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["version"],
        &[],
        &["sandbox"],
        &["sandbox", "create", "--help"],
        &["completion", "bash"],
        &["man", "pages"],
    ] {
        let mut command = cli.command(line);
        let output = command.env_remove("CREATEOS_API_KEY").output().expect("it runs");
        let answer = Answer::of(output);
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{line:?}");
    }
    let mut completing = cli.command(&["--", "createos", "sandbox", ""]);
    completing.env("CREATEOS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2");
    assert!(completing.output().expect("it runs").status.success());
    let accepted = listener.accept().expect_err("no connection was made");
    assert_eq!(accepted.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn short_help_leaves_out_what_long_help_has() {
    let cli = Cli::new("http://127.0.0.1:1");
    let help = |line: &[&str]| {
        let answer = cli.run(line);
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{line:?}");
        answer.stdout
    };
    for path in [&["sandbox", "create"][..], &["sb", "c"], &["-o", "json", "sandbox", "create"]] {
        let short = help(&[path, &["-h"]].concat());
        let long = help(&[path, &["--help"]].concat());
        assert!(short.contains("createos sandbox create [OPTIONS]"), "{short}");
        assert!(!short.contains("Examples:") && !short.contains("--api-key"), "{short}");
        for part in ["Examples:", "--api-key", "See also:", "CREATEOS_API_KEY", "[default"] {
            assert!(long.contains(part), "{part}: {long}");
        }
        let at = |part: &str| long.find(part).expect("a part");
        assert!(at("Usage:") < at("Examples:") && at("Examples:") < at("Options:"), "{long}");
    }
    assert_eq!(help(&["sandbox"]), help(&["sandbox", "--help"]), "a bare group explains itself");
    assert!(!help(&["--help"]).contains('\x1b'), "no colours in a pipe");
}

#[test]
fn a_slip_is_answered_with_what_was_meant() {
    let cli = Cli::new("http://127.0.0.1:1");
    for (line, meant) in [
        (&["sandbx"][..], "sandbox"),
        (&["sandbox", "lisst"], "list"),
        (&["sandbox", "create", "--shpae", "x"], "--shape"),
        (&["sandbox", "list", "--quite"], "--quiet"),
        (&["completion", "bsh"], "bash"),
        (&["--ouptut", "json", "whoami"], "--output"),
    ] {
        let answer = cli.run(&[&["-o", "table"], line].concat());
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{line:?}: {answer:?}");
        assert!(answer.stderr.contains(meant), "{line:?}: {answer:?}");
    }
}

#[test]
fn every_command_has_a_manual_page_that_reads() {
    let cli = Cli::new("http://127.0.0.1:1");
    let answer = cli.run(&["man", "pages/man1", "-o", "json"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let dir = cli.home.path().join("pages/man1");
    let pages: Vec<_> = std::fs::read_dir(&dir).expect("pages").flatten().collect();
    assert_eq!(answer.json()["pages"], pages.len());
    assert!(pages.len() > 20, "{}", pages.len());
    for page in pages {
        let path = page.path();
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&path).output();
        let lint = Answer::of(lint.expect("mandoc runs"));
        assert_eq!(lint.code, Some(0), "{}: {lint:?}", path.display());
        let text = Command::new("mandoc").args(["-T", "ascii"]).arg(&path).output();
        let text = Answer::of(text.expect("mandoc runs")).stdout;
        // Letters struck twice are bold.
        let mut plain = String::new();
        for letter in text.chars() {
            match letter {
                '\u{8}' => plain.truncate(plain.len().saturating_sub(1)),
                letter => plain.push(letter),
            }
        }
        for part in ["NAME", "SYNOPSIS", "EXAMPLES", "createos"] {
            assert!(plain.contains(part), "{part} in {}: {plain}", path.display());
        }
    }
    let create = std::fs::read_to_string(dir.join("createos-sandbox-create.1")).expect("a page");
    assert!(create.contains("\\-\\-shape s\\-1vcpu"), "the examples are in it: {create}");
    let denied = cli.run(&["man", "/proc/nowhere", "-o", "json"]);
    assert_eq!((denied.code, &denied.error()["code"]), (Some(1), &json!("error")));
}

#[test]
fn the_version_says_what_was_built() {
    let cli = Cli::new("http://127.0.0.1:1");
    let document = cli.run(&["version"]).json();
    for key in ["version", "commit", "target"] {
        assert!(document[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {document}");
    }
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    let line = cli.run(&["--version"]).stdout;
    assert_eq!(line, format!("createos {}\n", env!("CARGO_PKG_VERSION")));
    let text = cli.run(&["version", "-o", "table"]).stdout;
    assert!(text.starts_with(&line) && text.contains("target"), "{text}");
}

#[test]
fn the_overview_knows_where_one_stands() {
    let overview = |cli: &Cli, key: Option<&str>, url: Option<&str>| {
        let mut command = cli.command(&[]);
        command.env_remove("CREATEOS_API_KEY").env_remove("CREATEOS_SANDBOX_URL");
        command.envs(key.map(|key| ("CREATEOS_API_KEY", key)));
        command.envs(url.map(|url| ("CREATEOS_SANDBOX_URL", url)));
        let answer = Answer::of(command.output().expect("it runs"));
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
        answer.stdout
    };
    let cli = Cli::new("");
    let nobody = overview(&cli, None, None);
    for part in ["Not signed in", "api.sb.createos.sh", "createos login", "createos local start"] {
        assert!(nobody.contains(part), "{part}: {nobody}");
    }
    let somebody = overview(&cli, Some("skp_secret_0123456789"), Some("http://127.0.0.1:7"));
    for part in ["http://127.0.0.1:7", "CREATEOS_API_KEY", "createos sandbox list"] {
        assert!(somebody.contains(part), "{part}: {somebody}");
    }
    assert!(!somebody.contains("skp_secret"), "{somebody}");
    let odd = overview(&cli, None, Some("http://example.org"));
    assert!(odd.contains("CREATEOS_SANDBOX_URL"), "{odd}");
    // An engine that was started here and is gone.
    let engine = json!({"url": "http://127.0.0.1:9", "api_key": "k", "pid": 4_000_000,
                        "started": 1, "data_dir": "/x", "version": "0", "active": true});
    let dir = cli.home.path().join(".config/createos");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("local.json"), engine.to_string()).expect("a record");
    let gone = overview(&cli, None, None);
    assert!(gone.contains("not running") && gone.contains("local start"), "{gone}");
}
