//! How results look: where, in which locale, on which terminal, and when nobody reads them.
//!
//! `INSTA_UPDATE=always cargo test -p createos-cli --test cli look` writes the tables anew.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use wiremock::MockServer;

use crate::support::Answer;
use crate::support::plane::{Cli, furnished};
use crate::support::terminal::Terminal;

/// Runs on a terminal of this width; what was printed, line by line.
fn on_a_terminal(command: &Command, columns: u16) -> String {
    let (said, code) = Terminal::start(command, columns).end();
    assert_eq!(code, Some(0), "{said}");
    said.replace("\r\n", "\n")
}

/// The same with variables that the test terminal would set itself.
fn with(command: &Command, variables: &[&str]) -> Command {
    let mut env = Command::new("env");
    env.args(variables).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        env.envs(value.map(|value| (name, value)));
    }
    env
}

/// Does what needs threads of its own beside the server's.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        plain.push_str(&rest[..at]);
        let end = rest[at..].find(|c: char| c.is_ascii_alphabetic()).expect("an end");
        rest = &rest[at + end + 1..];
    }
    plain + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_at_three_widths() {
    let server = furnished().await;
    let url = server.uri();
    beside(move || {
        let cli = Cli::new(&url);
        for line in [
            &["sandbox", "list"][..],
            &["sandbox", "list", "--wide"],
            &["sandbox", "shapes"],
            &["sandbox", "rootfs"],
            &["sandbox", "disk", "ls"],
            &["sandbox", "network", "ls"],
            &["sandbox", "template", "ls"],
        ] {
            let mut command = cli.command(line);
            command.env("TZ", "UTC").env("LANG", "C.UTF-8").env("NO_COLOR", "1");
            let tables = [60, 80, 120].map(|columns| {
                let text = plain(&on_a_terminal(&command, columns));
                for line in text.lines() {
                    assert!(line.chars().count() <= columns.into(), "{columns}: {line}");
                }
                format!("{columns} columns\n{text}")
            });
            insta::with_settings!({
                snapshot_path => "../snapshots/tables",
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                insta::assert_snapshot!(line.join("-"), tables.join("\n"));
            });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_for_terminals_that_want_it() {
    let server = furnished().await;
    let url = server.uri();
    beside(move || {
        let cli = Cli::new(&url);
        let list = cli.command(&["sandbox", "list"]);
        let shown = |variables: &[&str]| on_a_terminal(&with(&list, variables), 80);
        assert!(shown(&["TERM=xterm"]).contains("\x1b[1m"));
        assert!(shown(&["NO_COLOR=", "TERM=xterm"]).contains("\x1b[1m"), "an empty one is none");
        for variables in
            [&["NO_COLOR=1"][..], &["TERM=dumb"], &["NO_COLOR=1", "TERM=xterm-256color"]]
        {
            assert!(!shown(variables).contains('\x1b'), "{variables:?}: {:?}", shown(variables));
        }
        let piped = cli.run(&["sandbox", "list", "--output", "table"]);
        assert!(!piped.stdout.contains('\x1b'), "{piped:?}");
        let failed = cli.run(&["sandbox", "get", "nobody", "--output", "table"]);
        assert!(!failed.stderr.contains('\x1b'), "{failed:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_comes_from_the_flag_the_environment_or_the_terminal() {
    let server = furnished().await;
    let url = server.uri();
    beside(move || {
        let cli = Cli::new(&url);
        let run = |line: &[&str], output: &str| {
            let mut command = cli.command(line);
            Answer::of(command.env("CREATEOS_OUTPUT", output).output().expect("it runs"))
        };
        let list = &["sandbox", "list"][..];
        assert!(run(list, "table").stdout.starts_with("ID"));
        assert!(run(list, " ").stdout.starts_with('['), "blank is unset");
        assert!(run(list, "JSON").stdout.starts_with('['));
        let flag = run(&["sandbox", "list", "-o", "table"], "json");
        assert!(flag.stdout.starts_with("ID"), "the flag wins");
        let wrong = run(list, "yaml");
        assert_eq!(wrong.code, Some(2));
        assert!(wrong.stderr.contains("CREATEOS_OUTPUT") && wrong.stderr.contains("yaml"));
        let mut explicit = cli.command(&["sandbox", "get", "nobody"]);
        let answer = Answer::of(explicit.env("CREATEOS_OUTPUT", "json").output().expect("runs"));
        assert_eq!((answer.stderr.as_str(), answer.code), ("", Some(1)), "asked for: only JSON");
        assert_eq!(answer.error()["code"], "not_found");

        let list = cli.command(list);
        assert!(plain(&on_a_terminal(&with(&list, &["CREATEOS_OUTPUT="]), 80)).starts_with("ID"));
        assert!(on_a_terminal(&with(&list, &["CREATEOS_OUTPUT=json"]), 80).starts_with('['));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_drawn_with_the_letters_of_the_locale() {
    let server = furnished().await;
    let url = server.uri();
    beside(move || {
        let cli = Cli::new(&url);
        for (locale, rich) in [
            (&["LANG=C.UTF-8"][..], true),
            (&["LANG=en_US.utf8"], true),
            (&["LANG=C.UTF-8", "LC_ALL=C"], false),
            (&["LANG=de_DE.ISO-8859-1"], false),
            (&[], false),
        ] {
            let mut command = cli.command(&["sandbox", "get"]);
            command.stdin(Stdio::inherit());
            let mut terminal = Terminal::start(&with(&command, locale), 80);
            let mut said = terminal.expect("demo");
            terminal.send("q");
            said.push_str(&terminal.end().0);
            assert_eq!(said.is_ascii(), !rich, "{locale:?}: {said:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure_and_a_full_disk_is_one() {
    let server = furnished().await;
    let cli = Cli::new(&server.uri());
    for line in [
        &["--help"][..],
        &["version"],
        &["completion", "bash"],
        &["sandbox", "list", "-o", "json"],
        &["sandbox", "list", "-o", "table"],
        &["sandbox", "list", "--quiet"],
    ] {
        let mut command = cli.command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // The reading end is closed before a byte is written.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let process = command.stdout(writer).spawn().expect("it runs");
        let answer = Answer::of(process.wait_with_output().expect("an end"));
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{line:?}");

        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let output = cli.command(line).stdout(full).output().expect("it runs");
        let answer = Answer::of(output);
        assert_eq!(answer.code, Some(1), "{line:?}: {answer:?}");
        assert!(
            answer.stderr.contains("standard output") || line.contains(&"json"),
            "{line:?}: {answer:?}"
        );
    }
    let mut closed = Command::new("sh");
    closed.args(["-c", r#""$0" sandbox get nobody -o table 2>&-"#, env!("CARGO_BIN_EXE_createos")]);
    let status = closed.envs(cli.command(&[]).get_envs().filter_map(|(n, v)| Some((n, v?))));
    assert_eq!(status.status().expect("it runs").code(), Some(1), "nobody hears the error");
}

/// Asks a question on a terminal, sends a signal, and looks at the terminal afterwards.
fn signalled(server: &MockServer, signal: Signal) -> (String, String) {
    let cli = Cli::new(&server.uri());
    let script = r#"stty -g; sh -c 'echo pid=$$; exec "$0" sandbox rm demo' "$0"
                    echo "code=$?"; stty -g"#;
    let mut shell = cli.command(&[]);
    let environment: Vec<_> =
        shell.get_envs().filter_map(|(n, v)| Some((n.to_owned(), v?.to_owned()))).collect();
    shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_createos")]).envs(environment);
    let mut terminal = Terminal::start(&shell, 80);
    let before = terminal.expect("pid=").trim().to_owned();
    let pid: i32 = terminal.expect("\n").trim().parse().expect("a number");
    terminal.expect("demo");
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("a signal");
    terminal.expect("code=");
    let (rest, _) = terminal.end();
    let rest = plain(&rest);
    let mut lines = rest.lines().map(str::trim).filter(|line| !line.is_empty());
    let code = lines.next().expect("a code").to_owned();
    assert_eq!(lines.next_back(), Some(before.as_str()), "the settings are as they were: {rest}");
    (code, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_a_question_leaves_the_terminal_as_it_was() {
    let server = furnished().await;
    beside(move || {
        for (signal, code) in [(Signal::TERM, "143"), (Signal::INT, "130"), (Signal::HUP, "129")] {
            assert_eq!(signalled(&server, signal).0, code, "{signal:?}");
        }
        drop(server);
    })
    .await;
}
