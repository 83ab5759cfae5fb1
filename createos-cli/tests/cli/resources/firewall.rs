//! Outbound rules that act.

use serde_json::json;

use super::neighbour::Neighbour;
use super::{answer, create, sh, text};
use crate::support::home::Home;
use crate::support::wait_until;

#[test]
fn rules_decide_what_is_reached_and_the_list_is_what_was_typed() {
    let home = Home::new();
    let _engine = home.serve();
    let outside = Neighbour::start();
    let address = outside.address.as_str();
    let id = create(&home, "demo", &[]);
    let reached = |port: u16| {
        let ask = format!("curl -so/dev/null --max-time 5 http://{address}:{port}/ && echo yes");
        sh(&home, "demo", &ask) == "yes\n"
    };
    assert!(reached(80) && reached(81));
    let open = answer(&home, &["sandbox", "firewall", "show", "demo", "-o", "table"]);
    assert!(open.stdout.contains("open"), "{open:?}");
    assert!(open.stderr.contains("firewall set demo"), "{open:?}");
    assert_eq!(home.json(&["sb", "fw", "show", "demo"]), json!({"id": id, "rules": []}));

    let (first, second) = (format!("{address}:80"), "api.example.com");
    let typed = format!("{first}, {second} {first}");
    let set = home.json(&["sandbox", "firewall", "set", "demo", &typed, second]);
    assert_eq!(set, json!({"action": "firewall_updated", "id": id, "rules": [first, second]}));
    wait_until("only port 80 is left", || reached(80) && !reached(81));
    let shown = answer(&home, &["sandbox", "firewall", "show", "demo", "-o", "table"]);
    assert_eq!(shown.stdout, format!("firewall of demo ({id}): 2 rules\n  {first}\n  {second}\n"));
    assert!(shown.stderr.contains("everything else is blocked"), "{shown:?}");

    let other = format!("{address}:81");
    let added = text(&home, &["sandbox", "firewall", "add", "demo", &other]);
    assert!(added.contains("3 rules"), "{added}");
    wait_until("both are reached", || reached(80) && reached(81));
    let removed = home.json(&["sandbox", "firewall", "remove", "demo", &first, second]);
    assert_eq!(removed["rules"], json!([other]));
    wait_until("only port 81 is left", || !reached(80) && reached(81));
    let last = answer(&home, &["sandbox", "firewall", "remove", "demo", &other, "-o", "json"]);
    assert_eq!(last.code, Some(1));
    let error = last.error();
    assert!(error["hint"].as_str().expect("a hint").contains("firewall clear demo"), "{error}");
    let unknown = answer(&home, &["sandbox", "firewall", "remove", "demo", "x.example"]);
    assert!(unknown.error()["message"].as_str().expect("text").contains("x.example"));

    // Nobody can be asked here, and none needs to be.
    let cleared = home.json(&["sandbox", "firewall", "clear", "demo"]);
    assert_eq!(cleared, json!({"action": "firewall_cleared", "id": id, "rules": []}));
    wait_until("everything is open", || reached(80) && reached(81));
    let first_rule = answer(&home, &["sandbox", "firewall", "add", "demo", second]);
    assert_eq!(first_rule.code, Some(1), "a first rule closes everything else: {first_rule:?}");
    let bad = answer(&home, &["sandbox", "firewall", "set", "demo", "http://x.example/"]);
    assert_eq!((bad.code, &bad.error()["code"]), (Some(1), &json!("bad_request")));
    // The beginning of a name does not change a firewall, but may look at one.
    assert_eq!(home.json(&["sandbox", "firewall", "show", "dem"])["id"], json!(id));
    let prefix = answer(&home, &["sandbox", "firewall", "set", "dem", "x.example"]);
    assert_eq!((prefix.code, &prefix.error()["code"]), (Some(1), &json!("not_found")));
}
