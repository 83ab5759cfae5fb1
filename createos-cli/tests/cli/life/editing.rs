//! `edit`: by flags and by its menu, verified on the real engine.

use serde_json::json;

use super::{KEY, OTHER_KEY, answer, create, file, id, text};
use crate::support::home::Home;
use crate::support::terminal::Terminal;

#[test]
fn each_flag_changes_what_it_names() {
    let home = Home::new();
    let _engine = home.serve();
    let (key, both) =
        (file(&home, "id.pub", KEY), file(&home, "both.pub", &format!("{KEY}\n{OTHER_KEY}\n")));
    let sandbox = id(&create(&home, "demo", &[]));
    let edit = |line: &[&str]| home.json(&[&["sandbox", "edit", "demo"], line].concat());
    let on = edit(&["--ingress", "ENABLE"]);
    assert_eq!((&on["action"], &on["id"]), (&json!("ingress_updated"), &json!(sandbox)));
    assert_eq!(on["ingress"], true);
    assert!(on["ingress_url"].as_str().expect("text").contains("<port>"), "{on}");
    let off = edit(&["--ingress", "off"]);
    assert_eq!((&off["ingress"], &off["ingress_url"]), (&json!(false), &json!("")));
    let after = |seconds| {
        json!({"action": "auto_pause_updated", "id": sandbox,
                                 "auto_pause_after_seconds": seconds})
    };
    assert_eq!(edit(&["--auto-pause", "30m"]), after(Some(1800)));
    assert_eq!(edit(&["--auto-pause", "off"]), after(None));
    let keys = |added, total| {
        json!({"action": "ssh_keys_added", "id": sandbox,
                                     "keys_added": added, "total_keys": total})
    };
    assert_eq!(edit(&["--add-ssh-key", &key]), keys(1, 1));
    assert_eq!(edit(&["--add-ssh-key", &both]), keys(1, 2), "one was there already");
    let rules = edit(&["--egress", "example.org", "--egress", "10.0.0.0/8"]);
    assert_eq!(rules["egress"], json!(["example.org", "10.0.0.0/8"]));
    assert_eq!(home.json(&["sandbox", "get", "demo"])["egress"], rules["egress"]);
    let more = edit(&["--add-bandwidth", "5GB"]);
    assert_eq!(
        (&more["action"], &more["added_bytes"]),
        (&json!("bandwidth_added"), &json!(5_000_000_000_u64))
    );
    assert!(more["quota_bytes"].is_i64() && more["capped"] == json!(false), "{more}");

    // Several at once are one document, in one order.
    let line = ["--auto-pause", "2h", "--add-ssh-key", &key, "--ingress", "on"];
    let several = edit(&line);
    assert_eq!((&several["action"], &several["id"]), (&json!("updated"), &json!(sandbox)));
    let actions: Vec<&str> = several["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|change| change["action"].as_str())
        .collect();
    assert_eq!(actions, ["ingress_updated", "auto_pause_updated", "ssh_keys_added"]);
    let said = text(&home, &[&["sandbox", "edit", &sandbox], &line[..]].concat());
    let mut lines = said.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("public url on: http")), "{said}");
    assert_eq!(lines.next(), Some("auto-pause 2h"));
    assert_eq!(lines.next(), Some("added 0 keys, 2 in all"));
}

#[test]
fn a_change_that_fails_says_what_was_done_before_it() {
    let home = Home::new();
    let _engine = home.serve();
    create(&home, "demo", &[]);
    let line = ["sandbox", "edit", "demo", "--auto-pause", "1h", "--egress", "http://no/rule"];
    let half = answer(&home, &[&line[..], &["-o", "table"]].concat());
    assert_eq!((half.code, half.stdout.as_str()), (Some(1), ""));
    assert!(half.stderr.contains("done before: auto-pause 1h"), "{half:?}");
    let half = answer(&home, &[&line[..], &["-o", "json"]].concat());
    assert!(half.error()["hint"].as_str().expect("text").contains("done before"), "{half:?}");
    home.ok(&["sandbox", "pause", "demo"]);
    let prefix = answer(&home, &["sandbox", "edit", "dem", "--auto-pause", "2h", "-o", "json"]);
    assert_eq!((prefix.code, &prefix.error()["code"]), (Some(1), &json!("not_found")));
}

const DOWN: &str = "\x1b[B";

#[test]
fn the_menu_changes_what_is_chosen_until_it_is_left() {
    let home = Home::new();
    let _engine = home.serve();
    file(&home, "id.pub", KEY);
    file(&home, "id", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n");
    create(&home, "demo", &[]);
    let seen = || home.json(&["sandbox", "get", "demo"]);
    let mut menu = Terminal::start(&home.command(&["sandbox", "edit"]), 100);
    menu.expect("which sandbox?");
    menu.send("\r");
    menu.expect("public url  off");
    menu.expect("switch the public URL on");
    menu.send("\r");
    menu.expect("[Y/n]");
    menu.send("\r");
    menu.expect("public url on: http");
    menu.expect("done");
    assert_eq!(seen()["ingress_enabled"], true);

    // A key: a private one is refused, and the menu goes on.
    menu.send(&format!("{DOWN}\r"));
    menu.expect("public key");
    menu.send("id\r");
    menu.expect("private key");
    menu.expect("  done");
    menu.send("\r");
    menu.expect("public key");
    menu.send("id.pub\r");
    menu.expect("added 1 key, 1 in all");
    menu.expect("ssh keys    1");
    menu.expect("  done");
    assert_eq!(seen()["ssh_pubkeys"], json!([KEY]));

    // Auto-pause: a bad value is asked for again, an empty one goes back.
    menu.send(&format!("{DOWN}{DOWN}\r"));
    menu.expect("now off");
    menu.send("soon\r");
    menu.expect("warning:");
    menu.expect("now off");
    menu.send("45m\r");
    menu.expect("auto-pause 45m");
    menu.expect("  done");
    assert_eq!(seen()["auto_pause_after_seconds"], 2700);
    menu.send("\r");
    menu.expect("now 45m");
    menu.send("\x1b");
    menu.expect("  done");
    menu.send("\r");
    menu.expect("now 45m");
    menu.send("\r");
    menu.expect("  done");
    menu.send(&format!("{DOWN}\r"));
    let (said, code) = menu.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(seen()["auto_pause_after_seconds"], 2700);
    for (keys, code) in [("q", 0), ("\x1b", 0), ("\x03", 130)] {
        let mut menu = Terminal::start(&home.command(&["sandbox", "edit", "demo"]), 100);
        menu.expect("  done");
        menu.send(keys);
        assert_eq!(menu.end().1, Some(code), "{keys:?}");
    }
}
