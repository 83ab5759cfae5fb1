//! Lines that cannot be run are refused before any request.

use wiremock::MockServer;

use crate::support::plane::Cli;

#[tokio::test]
async fn mistakes_on_the_line_are_found_before_any_request() {
    let server = MockServer::start().await;
    let cli = Cli::new(&server.uri());
    let write = |name: &str, text: &str| {
        std::fs::write(cli.home.path().join(name), text).expect("a file");
    };
    write("private", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n");
    write("words", "these are words\n");
    std::fs::create_dir(cli.home.path().join("dir")).expect("a directory");
    let create = |more: &[&'static str]| [&["create", "--shape", "s"], more].concat();
    let lines: Vec<(Vec<&str>, i32, &str)> = vec![
        (create(&["--env", "NOVALUE"]), 2, "KEY=VALUE"),
        (create(&["--env", " =x"]), 2, "KEY=VALUE"),
        (create(&["--disk", "data"]), 2, "my-disk:/mnt/data"),
        (create(&["--disk", "data:mnt"]), 2, "my-disk:/mnt/data"),
        (create(&["--disk", ":/mnt"]), 2, "my-disk:/mnt/data"),
        (create(&["--disk-mib", "0"]), 2, "--disk-mib"),
        (create(&["--disk-mib", "-5"]), 2, "-5"),
        (create(&["--disk-mib", "many"]), 2, "many"),
        (create(&["--auto-pause", "30"]), 2, "30m"),
        (create(&["--auto-pause", "59s"]), 2, "between 1m and 24h"),
        (create(&["--auto-pause", "24h1s"]), 2, "between 1m and 24h"),
        (create(&["--auto-pause", "2d"]), 2, "units"),
        (create(&["--egress", ""]), 2, "empty"),
        (create(&["--egress", "a b"]), 2, "blank"),
        (create(&["--network", " "]), 2, "empty"),
        (create(&["--name", ""]), 2, "empty"),
        (create(&["--ssh-key", "nowhere"]), 1, "nowhere: no such file"),
        (create(&["--ssh-key", "dir"]), 1, "directory"),
        (create(&["--ssh-key", "words"]), 2, "no SSH public key"),
        (create(&["--ssh-key", "private"]), 2, "private key"),
        (create(&["extra"]), 2, "extra"),
        (create(&["--bogus"]), 2, "--bogus"),
        (vec!["create", "--shape", " "], 2, "empty"),
        (vec!["create"], 2, "createos sandbox shapes"),
        (vec!["list", "--status", "sleeping"], 2, "destroyed"),
        (vec!["list", "--limit", "0"], 2, "limit"),
        (vec!["list", "--offset", "-1"], 2, "-1"),
        (vec!["list", "extra"], 2, "extra"),
        (vec!["get"], 2, "which sandbox?"),
        (vec!["get", "  "], 2, "which sandbox?"),
        (vec!["edit", "demo"], 2, "--auto-pause"),
        (vec!["edit", "--ingress", "on"], 2, "which sandbox?"),
        (vec!["edit", "demo", "--ingress", "maybe"], 2, "on or off"),
        (vec!["edit", "demo", "--auto-pause", "10"], 2, "10m"),
        (vec!["edit", "demo", "--add-bandwidth", "lots"], 2, "5GB"),
        (vec!["edit", "demo", "--add-bandwidth", "0"], 2, "at least one"),
        (vec!["edit", "demo", "--ingress", "on", "--add-ssh-key", "nowhere"], 1, "nowhere"),
        (vec!["edit", "demo", "--add-ssh-key", "private"], 2, "private key"),
        (vec!["edit", "demo", "--bogus"], 2, "--bogus"),
        (vec!["pause"], 2, "which sandbox?"),
        (vec!["resume", ""], 2, "which sandbox?"),
        (vec!["fork"], 2, "which sandbox?"),
        (vec!["fork", "demo", "--count", "0"], 2, "count"),
        (vec!["fork", "demo", "--env", "x"], 2, "KEY=VALUE"),
        (vec!["fork", "demo", "--ssh-key", "private"], 2, "private key"),
        (vec!["rm"], 2, "which sandbox?"),
        (vec!["rm", "demo", "other"], 2, "createos sandbox rm demo other --force"),
        (vec!["shapes", "extra"], 2, "extra"),
    ];
    for (line, code, part) in lines {
        let line = [&["sandbox"], line.as_slice()].concat();
        let answer = cli.run(&[&line[..], &["--output", "table"]].concat());
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(code), ""), "{line:?}: {answer:?}");
        assert!(answer.stderr.starts_with("error: "), "{line:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{part:?} for {line:?}: {answer:?}");
        assert!(!answer.stderr.contains("c2VjcmV0"), "{answer:?}");
        if code == 2 {
            assert!(answer.stderr.contains("Usage: createos sandbox "), "{line:?}: {answer:?}");
        }
        let document = cli.run(&[&line[..], &["--output", "json"]].concat());
        assert_eq!((document.code, document.stderr.as_str()), (Some(code), ""), "{line:?}");
        let class = if code == 2 { "usage" } else { "error" };
        let error = document.error();
        assert_eq!(error["code"], class, "{line:?}: {error}");
    }
    assert!(server.received_requests().await.expect("recorded").is_empty());
}
