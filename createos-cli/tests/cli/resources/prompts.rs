//! Pickers and questions of these commands, answered on a real terminal.

use serde_json::json;

use super::{create, text};
use crate::support::home::Home;
use crate::support::terminal::Terminal;

const COLUMNS: u16 = 100;
const DOWN: &str = "\x1b[B";

fn terminal(home: &Home, line: &[&str]) -> Terminal {
    Terminal::start(&home.command(line), COLUMNS)
}

#[test]
fn networks_are_picked_and_questions_default_to_no() {
    let home = Home::new();
    let _engine = home.serve();
    let empty = terminal(&home, &["sandbox", "network", "show"]).end();
    assert!(empty.0.contains("there are no networks"), "{}", empty.0);
    assert_eq!(empty.1, Some(0));
    create(&home, "demo", &[]);
    let mut asked = terminal(&home, &["sandbox", "network", "create"]);
    asked.expect("name of the network");
    asked.send("my-net\r");
    let (said, code) = asked.end();
    assert!(said.contains("Created network my-net"), "{said}");
    assert_eq!(code, Some(0));
    home.ok(&["sandbox", "network", "create", "other"]);

    // Who, then where.
    let mut attach = terminal(&home, &["sandbox", "network", "attach"]);
    attach.expect("which sandbox or device?");
    attach.expect("demo");
    attach.send("\r");
    attach.expect("which network?");
    attach.expect("other");
    let other_first = text(&home, &["sandbox", "network", "ls"]);
    let other_first = other_first.find("other") < other_first.find("my-net");
    attach.send(&format!("{}\r", if other_first { DOWN } else { "" }));
    let (said, code) = attach.end();
    assert!(said.contains("joined my-net"), "{said}");
    assert_eq!(code, Some(0));

    // Leaving asks; Enter alone is no.
    for (keys, left) in [("\r", false), ("n\r", false), ("y\r", true)] {
        let mut detach = terminal(&home, &["sandbox", "network", "detach", "demo"]);
        detach.expect("which network?");
        detach.expect("my-net");
        detach.send("\r");
        detach.expect("off my-net?");
        detach.send(keys);
        let (said, code) = detach.end();
        assert_eq!((said.contains("left my-net"), code), (left, Some(0)), "{said}");
        assert_eq!(said.contains("nothing was changed"), !left, "{said}");
    }
    let nobody = terminal(&home, &["sandbox", "network", "detach", "my-net"]).end();
    assert!(nobody.0.contains("nothing is on my-net"), "{}", nobody.0);

    // The question counts who has to leave.
    home.ok(&["sandbox", "network", "attach", "demo", "my-net"]);
    let mut rm = terminal(&home, &["sandbox", "network", "rm", "my-net"]);
    rm.expect("for good and take 1 sandbox off?");
    rm.send("\x03");
    assert_eq!(rm.end().1, Some(130), "Ctrl+C is no answer");
    let mut rm = terminal(&home, &["sandbox", "network", "rm"]);
    rm.expect("which networks?");
    rm.send(&format!(" {DOWN} \r"));
    rm.expect("delete 2 networks for good and take 1 sandbox off?");
    rm.send("y\r");
    let (said, code) = rm.end();
    assert!(said.contains("removed my-net") && said.contains("removed other"), "{said}");
    assert_eq!(code, Some(0));
    assert_eq!(home.json(&["sandbox", "network", "ls"]), json!([]));
}

#[test]
fn rules_are_typed_over_those_that_hold_and_clearing_asks() {
    let home = Home::new();
    let _engine = home.serve();
    create(&home, "demo", &["--egress", "a.example"]);
    let mut set = terminal(&home, &["sandbox", "firewall", "set", "demo"]);
    set.expect("a.example");
    set.send(" b.example:443\r");
    let (said, code) = set.end();
    assert!(said.contains("2 rules") && said.contains("b.example:443"), "{said}");
    assert_eq!(code, Some(0));
    let mut left = terminal(&home, &["sandbox", "firewall", "set"]);
    left.expect("which sandbox?");
    left.send("q");
    let (said, code) = left.end();
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(code, Some(0));
    for (keys, rules) in [("\r", json!(["a.example", "b.example:443"])), ("y\r", json!([]))] {
        let mut clear = terminal(&home, &["sandbox", "firewall", "clear", "demo"]);
        clear.expect("reach everything?");
        clear.send(keys);
        assert_eq!(clear.end().1, Some(0));
        assert_eq!(home.json(&["sandbox", "firewall", "show", "demo"])["rules"], rules);
    }
    let forced = terminal(&home, &["sandbox", "firewall", "clear", "demo", "--force"]).end();
    assert!(forced.0.contains("is open"), "{}", forced.0);
}

#[test]
fn a_disk_is_made_from_answers_and_its_secret_shows_as_stars() {
    let home = Home::new();
    let _engine = home.serve();
    let s3 = createos_tests::s3::S3::start();
    let (config, keys) = (s3.config(), s3.keys());
    create(&home, "demo", &[]);
    let line = ["sandbox", "disk", "create", "--path-style", "--region", "us-east-1"];
    let mut asked = terminal(&home, &line);
    for (question, answer) in [
        ("name of the disk", "my-disk"),
        ("bucket", &*config.bucket),
        ("address of the S3 service", &*config.endpoint),
        ("access key", keys.access_key.expose()),
    ] {
        asked.expect(question);
        asked.send(&format!("{answer}\r"));
    }
    asked.expect("secret key");
    asked.send(&format!("x\x7f{}\r", keys.secret_key.expose()));
    let (said, code) = asked.end();
    assert!(said.contains("*") && !said.contains(keys.secret_key.expose()), "{said}");
    assert!(said.contains("Created disk my-disk"), "{said}");
    assert_eq!(code, Some(0));

    let mut attach = terminal(&home, &["sandbox", "disk", "attach"]);
    attach.expect("which sandbox?");
    attach.expect("demo");
    attach.send("\r");
    attach.expect("which disk?");
    attach.send("\r");
    attach.expect("/mnt/my-disk");
    attach.send("\r");
    let (said, code) = attach.end();
    assert!(said.contains("is mounted in demo") && said.contains("at /mnt/my-disk"), "{said}");
    assert_eq!(code, Some(0));
    home.ok(&["sandbox", "disk", "attach", "demo", "my-disk:/mnt/two"]);
    let mut detach = terminal(&home, &["sandbox", "disk", "detach", "demo", "my-disk"]);
    detach.expect("which mount?");
    detach.expect("my-disk:/mnt/two");
    detach.send(&format!("{DOWN}\r"));
    detach.expect("take my-disk out of demo");
    detach.send("y\r");
    assert_eq!(detach.end().1, Some(0));
    let left = home.json(&["sandbox", "get", "demo"])["disks"].clone();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");

    // Where it is mounted is said before it is taken out.
    let mut rm = terminal(&home, &["sandbox", "disk", "rm", "my-disk"]);
    rm.expect("(the bucket itself stays)?");
    rm.send("y\r");
    rm.expect("is mounted in demo");
    rm.send("n\r");
    assert_eq!(rm.end().1, Some(1), "it is still there");
    let mut rm = terminal(&home, &["sandbox", "disk", "rm", "my-disk"]);
    rm.expect("for good");
    rm.send("y\r");
    rm.expect("detach and delete it?");
    rm.send("y\r");
    assert_eq!(rm.end().1, Some(0));
    assert_eq!(home.json(&["sandbox", "disk", "ls"]), json!([]));
}

#[test]
fn templates_are_picked_and_deleted_after_a_yes() {
    let home = Home::new();
    let _engine = home.serve();
    std::fs::write(
        home.dir.path().join("Dockerfile"),
        "FROM nodeops/sandbox:debian\nRUN echo hi\n",
    )
    .expect("a file");
    let mut submit = terminal(&home, &["sandbox", "template", "submit"]);
    submit.expect("name of the template");
    submit.send("tools\r");
    let (said, code) = submit.end();
    assert!(said.contains("hi\r\n") && said.contains("is ready"), "{said}");
    assert_eq!(code, Some(0));
    let mut logs = terminal(&home, &["sandbox", "template", "logs"]);
    logs.expect("which template?");
    logs.send("\r");
    let (said, code) = logs.end();
    assert!(said.contains("hi\r\n"), "{said}");
    assert_eq!(code, Some(0));
    for (keys, left) in [("\r", 1), ("y\r", 0)] {
        let mut rm = terminal(&home, &["sandbox", "template", "rm", "tools"]);
        rm.expect("for good?");
        rm.send(keys);
        let (said, code) = rm.end();
        assert_eq!(code, Some(0), "{said}");
        let rows = home.json(&["sandbox", "template", "ls"]);
        assert_eq!(rows.as_array().map(Vec::len), Some(left), "{said}");
    }
}
