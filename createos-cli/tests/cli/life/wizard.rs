//! The questions of `create`, answered on a real terminal.

use serde_json::json;

use super::{KEY, OTHER_KEY, file, id};
use crate::support::home::Home;
use crate::support::terminal::Terminal;

const DOWN: &str = "\x1b[B";

fn start(home: &Home, more: &[&str]) -> Terminal {
    Terminal::start(&home.command(&[&["sandbox", "create"], more].concat()), 100)
}

fn count(home: &Home) -> usize {
    home.ok(&["sandbox", "list", "--all", "-q"]).lines().count()
}

#[test]
fn each_answer_is_what_the_sandbox_gets() {
    let home = Home::new();
    let _engine = home.serve();
    let network = id(&home.json(&["sandbox", "network", "create", "my-net"]));
    file(&home, ".ssh/a.pub", KEY);
    file(&home, ".ssh/b.pub", OTHER_KEY);
    file(&home, ".ssh/config.pub", "no key\n");
    let mut wizard = start(&home, &[]);
    wizard.expect("which size?");
    wizard.expect("s-1vcpu-256mb ");
    wizard.send("\r");
    wizard.expect("name (empty: the server chooses):");
    wizard.send("  demx\x7fo \r");
    wizard.expect("which image?");
    wizard.expect("server default (devbox:1)");
    wizard.send(&format!("{DOWN}\r"));
    wizard.expect("public HTTPS address? [y/N]");
    wizard.send("y\r");
    wizard.expect("join which networks?");
    wizard.expect("my-net");
    wizard.send(" \r");
    wizard.expect("only for shell --ssh, sync");
    wizard.expect("admit which SSH keys?");
    let keys = wizard.expect("b.pub");
    assert!(keys.contains("a.pub"), "{keys}");
    wizard.send(&format!("{DOWN} \r"));
    wizard.expect("(empty: never)");
    wizard.send("5\r");
    wizard.expect("unit");
    wizard.expect("(empty: never)");
    wizard.send("30m\r");
    let summary = wizard.expect("create it? [Y/n]");
    for row in [
        "size        s-1vcpu-256mb",
        "name        demo",
        "public url  yes",
        "networks    net-",
        "ssh keys    1",
        "auto-pause  after 30m",
    ] {
        assert!(summary.contains(row), "{row} in {summary}");
    }
    wizard.send("\r");
    wizard.expect("Created demo (sb-");
    let (said, code) = wizard.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("auto-pause  after 30m without activity"), "{said}");
    let seen = home.json(&["sandbox", "get", "demo"]);
    assert_eq!(
        (&seen["shape"], &seen["ssh_pubkeys"]),
        (&json!("s-1vcpu-256mb"), &json!([OTHER_KEY]))
    );
    assert_eq!(
        (&seen["ingress_enabled"], &seen["auto_pause_after_seconds"]),
        (&json!(true), &json!(1800))
    );
    let members = home.json(&["sandbox", "network", "show", &network])["members"].clone();
    assert_eq!(members[0]["name"], "demo");
}

#[test]
fn what_a_flag_said_is_not_asked_and_enter_takes_the_defaults() {
    let home = Home::new();
    let _engine = home.serve();
    let mut wizard = start(&home, &["--name", "demo", "--auto-pause", "2h", "--env", "A=b"]);
    wizard.expect("which size?");
    wizard.send("\r");
    let between = wizard.expect("which image?");
    assert!(!between.contains("name ("), "{between}");
    // Leaving the images takes the default.
    wizard.send("\x1b");
    wizard.expect("default image is taken");
    wizard.expect("[y/N]");
    wizard.send("\r");
    // No networks, no key files: a path, which is asked for until it can be read.
    wizard.expect("file with a public key (empty: none):");
    wizard.send("nowhere.pub\r");
    wizard.expect("no such file");
    wizard.expect("file with a public key (empty: none):");
    wizard.send("\r");
    let summary = wizard.expect("create it? [Y/n]");
    assert!(
        summary.contains("auto-pause  after 2h") && summary.contains("image       server default")
    );
    wizard.send("yes\r");
    wizard.expect("Created demo (sb-");
    assert_eq!(wizard.end().1, Some(0));
    assert_eq!(home.json(&["sandbox", "get", "demo"])["envs"], json!(["A"]));
}

#[test]
fn leaving_creates_nothing() {
    let home = Home::new();
    let _engine = home.serve();
    for keys in ["q", "\x1b"] {
        let mut wizard = start(&home, &[]);
        wizard.expect("which size?");
        wizard.send(keys);
        let (said, code) = wizard.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("nothing was created"), "{said}");
    }
    let mut wizard = start(&home, &[]);
    wizard.expect("which size?");
    wizard.send("\r");
    wizard.expect("name (");
    wizard.send("half\x1b");
    let (said, code) = wizard.end();
    assert_eq!((code, said.contains("nothing was created")), (Some(0), true), "{said}");
    for (answer, exit) in [("n\r", 0), ("\x1b", 0), ("\x03", 130)] {
        let mut wizard = start(&home, &["--name", "demo", "--ingress", "--auto-pause", "off"]);
        wizard.expect("which size?");
        wizard.send("\r");
        wizard.expect("which image?");
        wizard.send("\r");
        wizard.expect("(empty: none):");
        wizard.send("\r");
        wizard.expect("create it?");
        wizard.send(answer);
        let (said, code) = wizard.end();
        assert_eq!(code, Some(exit), "{said}");
    }
    assert_eq!(count(&home), 0);
}
