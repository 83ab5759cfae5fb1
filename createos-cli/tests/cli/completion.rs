//! Completion in the shells themselves: the script is loaded, a line is typed, Tab is pressed.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::Answer;
use crate::support::plane::{Cli, furnished, rows};
use crate::support::terminal::Terminal;

/// The program's directory first, so that scripts find it by its name.
fn search_path() -> OsString {
    let program = Path::new(env!("CARGO_BIN_EXE_createos")).parent().expect("a directory");
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = [program.to_owned()].into_iter().chain(std::env::split_paths(&others));
    std::env::join_paths(all).expect("a search path")
}

fn shell(cli: &Cli, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir(cli.home.path());
    for (name, value) in cli.command(&[]).get_envs() {
        command.envs(value.map(|value| (name, value)));
    }
    command.env("PATH", search_path()).env("LANG", "C.UTF-8");
    command
}

/// What a shell is offered for a line, its last word not finished.
fn offered(cli: &Cli, line: &[&str]) -> Vec<String> {
    let words = ["--", "createos"].iter().chain(line);
    let words: Vec<&str> = words.copied().collect();
    let mut command = cli.command(&words);
    command.env("CREATEOS_COMPLETE", "bash").env("_CLAP_IFS", "\n");
    let answer = Answer::of(
        command.env("_CLAP_COMPLETE_INDEX", line.len().to_string()).output().expect("it runs"),
    );
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{line:?}");
    answer.stdout.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn names_of_what_exists_are_offered_where_they_belong() {
    let server = furnished().await;
    let cli = Cli::new(&server.uri());
    let id = crate::support::plane::ID;
    for (line, expected) in [
        (&["sandbox", "get", "d"][..], "demo"),
        (&["sb", "rm", "--force", ""], "demo"),
        (&["sandbox", "exec", "sb-"], id),
        (&["sandbox", "create", "--shape", ""], "s-1vcpu-256mb"),
        (&["sandbox", "create", "--rootfs", "dev"], "devbox:1"),
        (&["sandbox", "create", "--rootfs", "py"], "python-tools"),
        (&["sandbox", "create", "--network", ""], "backend"),
        (&["sandbox", "create", "--disk", "da"], "data:"),
        (&["sandbox", "disk", "show", ""], "data"),
        (&["sandbox", "template", "logs", "py"], "python-tools"),
        (&["sandbox", "network", "show", "b"], "backend"),
        (&["sandb"], "sandbox"),
        (&["sandbox", "list", "--qu"], "--quiet"),
        (&["--output", "j"], "json"),
    ] {
        let found = offered(&cli, line);
        assert!(found.iter().any(|name| name == expected), "{line:?}: {found:?}");
    }
    for line in [
        &["sandbox", "get", "x"][..],
        // It runs already.
        &["sandbox", "resume", "d"],
        &["sandbox", "create", "--name", "d"],
    ] {
        assert!(!offered(&cli, line).iter().any(|name| name == "demo"), "{line:?}");
    }
}

#[tokio::test]
async fn the_line_decides_which_plane_is_asked() {
    let server = furnished().await;
    let cli = Cli::new("http://127.0.0.1:1");
    assert!(offered(&cli, &["sandbox", "get", ""]).iter().all(|name| name.starts_with('-')));
    let url = server.uri();
    let found = offered(&cli, &["--sandbox-api-url", &url, "sandbox", "get", ""]);
    assert!(found.iter().any(|name| name == "demo"), "{found:?}");
}

#[tokio::test]
async fn a_slow_or_absent_server_is_no_obstacle_and_the_last_names_are_kept() {
    let slow = MockServer::start().await;
    let late = rows(json!([])).set_delay(Duration::from_secs(30));
    Mock::given(method("GET")).respond_with(late).mount(&slow).await;
    let begun = Instant::now();
    offered(&Cli::new(&slow.uri()), &["sandbox", "get", ""]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let server = furnished().await;
    let cli = Cli::new(&server.uri());
    let demo = |cli: &Cli| offered(cli, &["sandbox", "get", "d"]) == ["demo"];
    assert!(demo(&cli));
    let asked = server.received_requests().await.expect("recorded").len();
    assert!(demo(&cli));
    assert_eq!(server.received_requests().await.expect("recorded").len(), asked, "from memory");
    server.reset().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(500)).mount(&server).await;
    let cache = walk(&cli.home.path().join(".cache/createos/completion"));
    assert!(!cache.is_empty());
    let past = std::time::SystemTime::now() - Duration::from_secs(60);
    for file in &cache {
        let file = std::fs::File::options().write(true).open(file).expect("a file");
        file.set_modified(past).expect("a time");
    }
    assert!(demo(&cli), "what was there a minute ago is better than nothing");
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

/// Types a line into an interactive shell that has loaded the script, and presses Tab.
fn typed(mut terminal: Terminal, load: &str, line: &str, completed: &str) {
    terminal.send(&format!("{load} && echo loa''ded\r"));
    terminal.expect("loaded");
    terminal.expect("ready> ");
    // The shell throws away what comes while it sets the terminal up.
    std::thread::sleep(Duration::from_millis(300));
    terminal.send(&format!("{line}\t"));
    terminal.expect(completed);
    // The line is left as it is: Ctrl+C, then the end.
    terminal.send("\x03");
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("exit\r");
    terminal.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_a_command_and_a_name() {
    let server = furnished().await;
    let cli = Cli::new(&server.uri());
    tokio::task::spawn_blocking(move || {
        let load = "source <(createos completion bash)";
        for (line, completed) in [
            ("createos sandbox ge", "createos sandbox get"),
            ("createos sandbox get de", "createos sandbox get demo"),
            ("createos sandbox create --rootfs de", "--rootfs devbox:1"),
        ] {
            // Without echo, which test terminals begin with, bash shows nothing.
            let start = "stty echo && exec bash --norc --noprofile -i";
            let mut bash = shell(&cli, "sh", &["-c", start]);
            bash.env("PS1", "ready> ");
            typed(Terminal::start(&bash, 100), load, line, completed);
        }
    })
    .await
    .expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn zsh_completes_a_command_and_a_name() {
    let server = furnished().await;
    let cli = Cli::new(&server.uri());
    tokio::task::spawn_blocking(move || {
        // As a user has it: the script lies where fpath says.
        let functions = cli.home.path().join("functions");
        std::fs::create_dir(&functions).expect("a directory");
        let script = cli.run(&["completion", "zsh"]).stdout;
        std::fs::write(functions.join("_createos"), script).expect("written");
        let load = "fpath=(~/functions $fpath); autoload -U compinit; compinit -u -D";
        for (line, completed) in
            [("createos sandbox ge", "createos sandbox get"), ("createos sandbox get de", "mo")]
        {
            let mut zsh = shell(&cli, "zsh", &["-f", "-i"]);
            zsh.env("PROMPT", "ready> ");
            typed(Terminal::start(&zsh, 100), load, line, completed);
        }
    })
    .await
    .expect("no panic");
}

#[tokio::test]
async fn fish_completes_a_command_and_a_name() {
    let server = furnished().await;
    let cli = Cli::new(&server.uri());
    for (line, expected) in [
        ("createos sandbox ge", "get"),
        ("createos sandbox get de", "demo\trunning"),
        ("createos sandbox create --shape ", "s-1vcpu-256mb\t1 vCPU, 256 MiB"),
    ] {
        let script = format!("createos completion fish | source; complete -C '{line}'");
        let mut fish = shell(&cli, "fish", &["--no-config", "-c", &script]);
        let output = fish.stdin(Stdio::null()).output().expect("fish runs");
        let answer = Answer::of(output);
        assert!(answer.stdout.lines().any(|offer| offer.starts_with(expected)), "{answer:?}");
    }
}
