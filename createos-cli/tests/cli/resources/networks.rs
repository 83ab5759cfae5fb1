//! Private networks between real sandboxes.

use serde_json::json;

use super::{answer, create, sh, text};
use crate::support::home::Home;
use crate::support::wait_until;

const SERVE: &str = "mkdir -p /srv/www && cd /srv/www && hostname > index.html && \
    nohup python3 -m http.server 8000 >/dev/null 2>&1 </dev/null &";

/// What the neighbour's page says, or nothing.
fn page(home: &Home, from: &str, name: &str) -> String {
    sh(home, from, &format!("curl -s --max-time 3 http://{name}:8000/")).trim().to_owned()
}

#[test]
fn sandboxes_reach_each_other_while_they_are_on_one_network() {
    let home = Home::new();
    let _engine = home.serve();
    let (web, visitor) = (create(&home, "web", &[]), create(&home, "visitor", &[]));
    sh(&home, "web", SERVE);
    assert_eq!(home.json(&["sandbox", "network", "ls"]), json!([]));

    let made = home.json(&["sandbox", "network", "create", "my-net"]);
    assert_eq!((&made["action"], &made["name"]), (&json!("network_created"), &json!("my-net")));
    let id = made["id"].as_str().expect("an id").to_owned();
    assert!(text(&home, &["sb", "net", "create", "other"]).contains("other (net-"), "names both");
    assert_eq!(page(&home, "visitor", "web.fc.local"), "");

    let attached = home.json(&["sandbox", "network", "attach", "web", "my-net"]);
    let document = json!({"action": "network_attached", "network": "my-net", "endpoint": web,
                          "type": "sandbox"});
    assert_eq!(attached, document);
    // The order of the official client: the network first.
    let swapped = answer(&home, &["sandbox", "network", "attach", "my-net", "visitor"]);
    assert_eq!(swapped.json()["endpoint"], json!(visitor));
    wait_until("they reach each other", || page(&home, "visitor", "web.my-net.fc.local") == "web");
    for name in ["web.fc.local", &format!("{web}.fc.local")] {
        assert_eq!(page(&home, "visitor", name), "web", "{name}");
    }
    look(&home, &id, &web);

    let detached = home.json(&["sandbox", "network", "detach", "my-net", &visitor, "--yes"]);
    assert_eq!(
        (&detached["action"], &detached["endpoint"], &detached["network"]),
        (&json!("network_detached"), &json!(visitor), &json!("my-net"))
    );
    wait_until("they are apart", || page(&home, "visitor", "web.my-net.fc.local").is_empty());
    remove(&home, &id, &web);
}

fn look(home: &Home, id: &str, web: &str) {
    let shown = home.json(&["sandbox", "networks", "show", "my-net"]);
    let members = shown["members"].as_array().expect("members");
    let member = members.iter().find(|member| member["name"] == "web").expect("web");
    assert_eq!((&member["sandbox_id"], &member["status"]), (&json!(web), &json!("running")));
    assert!(member["ip"].is_string(), "{member}");
    let shown = text(home, &["sandbox", "network", "show", id]);
    for part in [&format!("my-net ({id})"), "sandboxes  2", "web.my-net.fc.local", "  SANDBOX"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let rows = home.json(&["sandbox", "network", "list"]);
    let row = rows.as_array().expect("rows").iter().find(|row| row["id"] == id).expect("my-net");
    assert_eq!(row["member_count"], 2);
    let table = text(home, &["sandbox", "network", "ls"]);
    let line = table.lines().find(|line| line.starts_with("my-net")).expect("a row");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[1..3], [id, "2"], "{table}");
    let quiet = home.ok(&["sandbox", "network", "ls", "-q", "--output", "json"]);
    assert!(quiet.lines().any(|line| line == id), "{quiet}");
    assert!(quiet.lines().all(|line| line.starts_with("net-")), "{quiet}");
}

fn remove(home: &Home, id: &str, web: &str) {
    let removed = answer(
        home,
        &["sandbox", "network", "rm", "my-net", id, "nowhere", "other", "-y", "-o", "json"],
    );
    assert_eq!((removed.code, removed.stderr.as_str()), (Some(1), ""));
    let document = removed.json();
    assert_eq!(
        (&document["action"], &document["deleted"], &document["failed"]),
        (&json!("network_deleted"), &json!(2), &json!(1))
    );
    assert_eq!(document["results"][0], json!({"ref": "my-net", "id": id, "deleted": true}));
    let lost = &document["results"][1];
    assert_eq!((&lost["ref"], &lost["deleted"]), (&json!("nowhere"), &json!(false)));
    assert!(lost["error"].as_str().expect("text").contains("no network called"), "{lost}");
    assert_eq!(home.json(&["sandbox", "network", "ls"]), json!([]));

    home.ok(&["sandbox", "network", "create", "last"]);
    home.ok(&["sandbox", "network", "attach", "last", web]);
    let said = answer(home, &["sandbox", "network", "rm", "last", "--force", "-o", "table"]);
    assert!(said.stdout.contains("removed last (net-"), "{said:?}");
    assert!(said.stderr.contains(&format!("web ({web}) left last")), "{said:?}");
}

#[test]
fn devices_and_paused_sandboxes_have_their_own_answers() {
    let home = Home::new();
    let _engine = home.serve();
    home.ok(&["sandbox", "network", "create", "my-net"]);
    create(&home, "sleeper", &[]);
    let (url, key) = home.target().expect("an engine");
    let device = register(&url, &key);
    let attached = home.json(&["sandbox", "network", "attach", &device, "my-net"]);
    assert_eq!((&attached["endpoint"], &attached["type"]), (&json!(device), &json!("device")));
    // The other way round as well.
    let detached = home.json(&["sandbox", "network", "detach", "my-net", &device, "--force"]);
    assert_eq!((&detached["endpoint"], &detached["type"]), (&json!(device), &json!("device")));
    let again = answer(&home, &["sandbox", "network", "detach", &device, "my-net", "--force"]);
    assert_eq!((again.code, &again.error()["code"]), (Some(1), &json!("not_found")));

    let missing = answer(&home, &["sandbox", "network", "attach", "sleeper", "nowhere"]);
    assert_eq!((missing.code, &missing.error()["code"]), (Some(1), &json!("not_found")));
    let twice = answer(&home, &["sandbox", "network", "create", "my-net"]);
    assert_eq!((twice.code, &twice.error()["code"]), (Some(1), &json!("bad_request")));
    let unknown = answer(&home, &["sandbox", "network", "attach", "my-net", "nobody"]);
    assert_eq!((unknown.code, &unknown.error()["code"]), (Some(1), &json!("not_found")));
}

fn register(url: &str, key: &str) -> String {
    let pubkey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let output = std::process::Command::new("curl")
        .args(["-sf", "-H", &format!("X-Api-Key: {key}"), "-H", "Content-Type: application/json"])
        .args(["-d", &json!({"name": "laptop", "pubkey": pubkey}).to_string()])
        .arg(format!("{url}/v1/devices"))
        .output()
        .expect("curl");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["data"]["id"].as_str().expect("an id").to_owned()
}
