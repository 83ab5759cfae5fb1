//! Every happy path on the real engine, as JSON and as text.

use serde_json::json;

use super::{KEY, SHAPE, answer, create, file, first_keys, id, text};
use crate::support::home::Home;
use crate::support::terminal::Terminal;

#[test]
fn everything_that_create_can_set_is_there_afterwards() {
    let home = Home::new();
    let _engine = home.serve();
    home.ok(&["sandbox", "network", "create", "my-net"]);
    let key = file(&home, ".ssh/id.pub", &format!("{KEY}\n"));
    let line = [
        "sandbox",
        "c",
        "--name",
        "demo",
        "--shape",
        SHAPE,
        "--ssh-key",
        &key,
        "--ingress",
        "--network",
        "my-net",
        "--egress",
        "example.org,127.0.0.1:9",
        "--egress",
        "10.0.0.0/8",
        "--env",
        "STAGE=ci",
        "--env",
        "LIST=a,b",
        "--env",
        "EMPTY=",
        "--auto-pause",
        "90.5m",
        "--disk-mib",
        "6000",
        "--rootfs",
        "devbox:1",
        "-o",
        "json",
    ];
    let made = answer(&home, &line);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stderr.contains("0.0.0.0"), "a public address is warned of: {made:?}");
    let keys = ["action", "id", "name", "shape", "rootfs", "ip", "ingress_url", "shell_command"];
    assert_eq!(first_keys(&made.stdout, keys.len()), keys);
    let made = made.json();
    let sandbox = id(&made);
    for (key, value) in [
        ("action", json!("created")),
        ("name", json!("demo")),
        ("shape", json!(SHAPE)),
        ("rootfs", json!("devbox:1")),
        ("shell_command", json!(format!("createos sandbox shell {sandbox}"))),
        ("status", json!("running")),
        ("disk_mib", json!(6000)),
        ("auto_pause_after_seconds", json!(5430)),
        ("egress", json!(["example.org", "127.0.0.1:9", "10.0.0.0/8"])),
    ] {
        assert_eq!(made[key], value, "{key} in {made}");
    }
    assert!(made["ingress_url"].as_str().expect("text").contains("<port>"), "{made}");

    let seen = home.json(&["sandbox", "get", "demo"]);
    assert_eq!(seen["envs"], json!(["EMPTY", "LIST", "STAGE"]));
    assert_eq!(seen["ssh_pubkeys"], json!([KEY]));
    assert!(seen["bandwidth"]["quota_bytes"].is_i64(), "{seen}");
    assert_eq!(seen["disks"], json!([]));
    let env = home.ok(&["sandbox", "exec", "demo", "--", "sh", "-c", "echo $STAGE,$LIST,$EMPTY."]);
    assert_eq!(env, "ci,a,b,.\n");
    let network = home.json(&["sandbox", "network", "show", "my-net"]);
    assert_eq!(network["members"][0]["sandbox_id"], json!(sandbox));

    let shown = text(&home, &["sandbox", "get", "demo"]);
    assert!(shown.starts_with(&format!("demo ({sandbox})\n  status ")), "{shown}");
    for row in [
        "size           s-1vcpu-256mb",
        "image          devbox:1",
        "vcpu           1",
        "ram            256 MiB",
        "disk           6000 MiB",
        "ip             10.",
        "public url     http",
        "firewall       example.org, 127.0.0.1:9, 10.0.0.0/8",
        "bandwidth      0 B used",
        "env keys       EMPTY, LIST, STAGE",
        "auto-pause     1h30m30s",
        "ssh keys       1",
        "created        20",
        "running since  20",
    ] {
        assert!(shown.contains(&format!("\n  {row}")), "{row} in {shown}");
    }
    assert!(!shown.contains("paused at"), "{shown}");
}

#[test]
fn a_plain_create_says_what_comes_next() {
    let home = Home::new();
    let _engine = home.serve();
    let made = answer(&home, &["sandbox", "create", "--shape", SHAPE, "-o", "table"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let title = made.stdout.lines().next().expect("a line");
    assert!(title.starts_with("Created ") && title.contains("(sb-"), "{made:?}");
    assert!(made.stdout.contains("\n  size   s-1vcpu-256mb\n  image  devbox:1\n  ip     10."));
    assert!(made.stderr.contains("next: createos sandbox shell "), "{made:?}");
    assert!(!made.stderr.contains("warning"), "{made:?}");
    let shown = text(&home, &["sandbox", "get", &home.ok(&["sandbox", "ls", "-q"])]);
    for row in ["public url     off", "firewall       open (no rules)", "auto-pause     off"] {
        assert!(shown.contains(row), "{row} in {shown}");
    }
    let off = create(&home, "never", &["--auto-pause", "OFF", "--no-wait"]);
    assert_eq!(off.get("auto_pause_after_seconds"), None, "{off}");
    let refused = answer(&home, &["sandbox", "create", "--shape", "s-99", "-o", "json"]);
    assert_eq!(refused.code, Some(1));
    let said = refused.error()["message"].as_str().expect("text").to_owned();
    assert!(said.contains("s-1vcpu-256mb"), "the server lists the sizes: {said}");
    let twice = answer(&home, &["sandbox", "create", "--shape", SHAPE, "--name", "never"]);
    assert_eq!((twice.code, &twice.error()["code"]), (Some(1), &json!("conflict")));
}

#[test]
fn pausing_resuming_and_forking_lead_where_they_say() {
    let home = Home::new();
    let _engine = home.serve();
    let key = file(&home, "id.pub", KEY);
    let made = create(&home, "demo", &["--env", "STAGE=ci", "--auto-pause", "1h"]);
    let sandbox = id(&made);
    home.ok(&["sandbox", "exec", "demo", "--", "sh", "-c", "echo kept > /root/file"]);

    let running = answer(&home, &["sandbox", "fork", "demo", "-o", "table"]);
    assert_eq!((running.code, running.stdout.as_str()), (Some(1), ""));
    for part in ["is running", "createos sandbox pause demo\n", "createos sandbox fork demo"] {
        assert!(running.stderr.contains(part), "{part} in {running:?}");
    }

    let paused = answer(&home, &["sandbox", "pause", "demo", "-o", "table"]);
    assert_eq!(paused.stdout, format!("demo ({sandbox}) is paused\n"), "{paused:?}");
    let again = answer(&home, &["sandbox", "pause", "demo", "-o", "table"]);
    assert_eq!(again.code, Some(0));
    assert!(again.stderr.contains("was paused already"), "{again:?}");
    let document = home.json(&["sandbox", "pause", &sandbox]);
    assert_eq!((&document["action"], &document["status"]), (&json!("paused"), &json!("paused")));
    let shown = text(&home, &["sandbox", "get", "demo"]);
    assert!(shown.contains("\n  paused at   20") && !shown.contains("running since"), "{shown}");
    let exec = answer(&home, &["sandbox", "exec", "demo", "--", "true"]);
    assert_eq!(exec.code, Some(1));
    assert!(exec.stderr.contains("createos sandbox resume demo"), "{exec:?}");

    let line = ["sandbox", "fork", "demo", "--paused", "-o", "json"];
    let forked = answer(&home, &line);
    let keys =
        ["action", "id", "name", "status", "ip", "ingress_url", "source_id", "shell_command"];
    assert_eq!(first_keys(&forked.stdout, keys.len()), keys, "{forked:?}");
    let forked = forked.json();
    assert_eq!((&forked["action"], &forked["status"]), (&json!("forked"), &json!("paused")));
    assert_eq!((&forked["source_id"], &forked["forked_from"]), (&json!(sandbox), &json!(sandbox)));
    home.ok(&["sandbox", "resume", forked["name"].as_str().expect("a name")]);
    assert_eq!(home.ok(&["sandbox", "exec", &id(&forked), "--", "cat", "/root/file"]), "kept\n");

    let many = home.json(&[
        "sandbox",
        "fork",
        "demo",
        "--count",
        "2",
        "--ssh-key",
        &key,
        "--egress",
        "example.org",
        "--env",
        "SEED=2",
        "--ingress",
    ]);
    let many = many.as_array().expect("a list").clone();
    assert_eq!(many.len(), 2);
    for clone in &many {
        assert_eq!(clone["status"], "running");
        let seen = home.json(&["sandbox", "get", &id(clone)]);
        assert_eq!(seen["egress"], json!(["example.org"]));
        assert_eq!((&seen["envs"], &seen["ssh_pubkeys"]), (&json!(["SEED"]), &json!([KEY])));
        assert_eq!(seen.get("auto_pause_after_seconds"), None, "it is not inherited");
    }
    let said = text(&home, &["sandbox", "fork", "demo", "--count", "2"]);
    assert_eq!(said.matches("demo cloned to ").count(), 2, "{said}");
    assert_eq!(said.matches("\n  id ").count(), 2, "{said}");

    let resumed = home.json(&["sandbox", "resume", "demo"]);
    assert_eq!((&resumed["action"], &resumed["status"]), (&json!("resumed"), &json!("running")));
    let again = answer(&home, &["sandbox", "resume", &sandbox, "-o", "table"]);
    assert_eq!(again.stdout, format!("{sandbox} is running\n"));
    assert!(again.stderr.contains("was running already"), "{again:?}");
    let shown = text(&home, &["sandbox", "get", "demo"]);
    assert!(shown.contains("\n  last resumed   20"), "{shown}");
    let clone = text(&home, &["sandbox", "get", &id(&forked)]);
    assert!(clone.contains(&format!("forked from    {sandbox}")), "{clone}");
}

#[test]
fn lists_show_what_was_asked_for() {
    let home = Home::new();
    let _engine = home.serve();
    let empty = answer(&home, &["sandbox", "ls", "-o", "table"]);
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(0), "No active sandboxes.\n"));
    assert!(empty.stderr.contains("createos sandbox create"), "{empty:?}");
    let ids: Vec<String> = ["one", "two", "three"].map(|name| id(&create(&home, name, &[]))).into();
    home.ok(&["sandbox", "pause", "one"]);
    home.ok(&["sandbox", "rm", "two", "--force", "--wait"]);

    let quiet = |line: &[&str]| home.ok(&[&["sandbox", "list", "-q"], line].concat());
    let lines = |at: &[usize]| at.iter().map(|&at| format!("{}\n", ids[at])).collect::<String>();
    assert_eq!(quiet(&[]), lines(&[2, 0]), "newest first, without those that are gone");
    assert_eq!(quiet(&["--all"]), lines(&[2, 1, 0]));
    assert_eq!(quiet(&["--status", "paused"]), lines(&[0]));
    assert_eq!(quiet(&["--status", "destroyed", "--all"]), lines(&[1]), "a state beats --all");
    assert_eq!(quiet(&["--limit", "1"]), lines(&[2]));
    assert_eq!(quiet(&["--limit", "1", "--offset", "1"]), lines(&[0]));
    assert_eq!(quiet(&["--offset", "9"]), "");
    assert_eq!(quiet(&["-o", "json"]), lines(&[2, 0]), "quiet beats JSON");

    let rows = home.json(&["sandbox", "list"]);
    let states: Vec<&str> =
        rows.as_array().expect("a list").iter().filter_map(|row| row["status"].as_str()).collect();
    assert_eq!(states, ["running", "paused"]);
    for (line, said) in [
        (&["--status", "failed"][..], "No sandboxes in state failed.\n"),
        (&["--offset", "9"], "No sandboxes behind the first 9.\n"),
    ] {
        assert_eq!(text(&home, &[&["sandbox", "list"], line].concat()), said);
        assert_eq!(home.json(&[&["sandbox", "list"], line].concat()), json!([]));
    }
    for (width, line, header) in [
        (120, &["ls"][..], "ID NAME STATUS SIZE IP"),
        (120, &["ls", "--wide"], "ID NAME STATUS SIZE IP CREATED"),
        (90, &["ls"], "ID NAME STATUS SIZE IP"),
        (89, &["ls", "--wide"], "ID NAME STATUS SIZE"),
        (69, &["ls"], "NAME STATUS SIZE"),
    ] {
        let command = home.command(&[&["sandbox"], line].concat());
        let (said, code) = Terminal::start(&command, width).end();
        assert_eq!(code, Some(0));
        let said = console::strip_ansi_codes(&said).into_owned();
        let first: Vec<&str> = said.lines().next().expect("a header").split_whitespace().collect();
        assert_eq!(first.join(" "), header, "at {width}");
        assert!(said.lines().all(|line| line.chars().count() <= width.into()), "{width}: {said}");
    }
}

#[test]
fn what_can_be_ordered_is_listed() {
    let home = Home::new();
    let _engine = home.serve();
    let shapes = text(&home, &["sandbox", "shapes"]);
    let mut lines = shapes.lines();
    let header: Vec<&str> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(header.join(" "), "ID VCPU RAM DISK CPU SHARE");
    let ram = |line: &str| line.split_whitespace().nth(2).and_then(|ram| ram.parse::<u64>().ok());
    let ram: Vec<u64> = lines.filter_map(ram).collect();
    assert!(ram.len() > 1 && ram.is_sorted(), "{shapes}");
    assert!(shapes.contains("256 MiB"), "{shapes}");
    let quiet = home.ok(&["sandbox", "shapes", "-q"]);
    assert_eq!(quiet.lines().next(), Some(SHAPE), "{quiet}");
    let rootfs = answer(&home, &["sandbox", "images", "-o", "table"]);
    assert!(rootfs.stdout.starts_with("NAME "), "{rootfs:?}");
    let default = rootfs.stdout.lines().find(|line| line.ends_with("  default"));
    assert!(default.is_some_and(|line| line.starts_with("devbox:1 ")), "{rootfs:?}");
    assert!(rootfs.stderr.contains("createos sandbox template ls"), "{rootfs:?}");
    assert_eq!(home.json(&["sandbox", "rootfs"])["default"], "devbox:1");
    assert!(home.ok(&["sandbox", "rootfs", "-q"]).lines().any(|name| name == "devbox:1"));
}

#[test]
fn removals_can_be_tried_waited_for_and_repeated() {
    let home = Home::new();
    let _engine = home.serve();
    let one = id(&create(&home, "one", &[]));
    let two = id(&create(&home, "two", &[]));
    let tried = answer(&home, &["sandbox", "rm", "one", "nobody", "--dry-run", "-o", "json"]);
    assert_eq!(tried.code, Some(1));
    let document = tried.json();
    assert_eq!((&document["action"], &document["deleted"]), (&json!("would_delete"), &json!(0)));
    assert_eq!(document["results"][0], json!({"ref": "one", "id": one, "deleted": false}));
    assert_eq!(
        text(&home, &["sandbox", "rm", "one", "--dry-run"]),
        format!("would remove one ({one})\n")
    );
    assert_eq!(home.json(&["sandbox", "list"]).as_array().map(Vec::len), Some(2));

    // The same one by name, by id, and once more: deleted once.
    let removed = home.json(&["sandbox", "delete", "one", &one, "one", "--yes", "--wait"]);
    assert_eq!(
        removed,
        json!({"action": "deleted", "deleted": 1, "failed": 0,
        "results": [{"ref": "one", "id": one, "deleted": true}]})
    );
    assert_eq!(home.json(&["sandbox", "get", &one])["status"], "destroyed");
    assert_eq!(text(&home, &["sandbox", "destroy", "-y", "two"]), format!("removed two ({two})\n"));
    assert_eq!(home.ok(&["sandbox", "list", "-q"]), "");
}
