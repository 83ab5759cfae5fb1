//! What these commands say when they cannot do what was asked.

use serde_json::{Value, json};
use wiremock::matchers::{body_json, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::plane::{Cli, ID, fail, plane, rows, success};

/// Each is refused as a usage error in both forms, before any request.
#[tokio::test]
async fn lines_that_cannot_be_run_are_refused_before_any_request() {
    let server = MockServer::start().await;
    let cli = Cli::new(&server.uri());
    let key = ["--access-key", "AKTEST", "--secret-key", "hunter2"];
    let half: Vec<&str> = [&["disk", "create", "d", "--bucket", "b"][..], &key].concat();
    let lines: &[(&[&str], &str)] = &[
        (&["network", "create"], "network create my-net"),
        (&["network", "create", " "], "empty"),
        (&["network", "show"], "which network?"),
        (&["network", "attach"], "which sandbox"),
        (&["network", "attach", "demo"], "both needed"),
        (&["network", "attach", "demo", ""], "empty"),
        (&["network", "attach", "a", "b", "c"], "c"),
        (&["network", "detach", "demo", "my-net"], "network detach demo my-net --force"),
        (&["network", "detach", "--force"], "which sandbox"),
        (&["network", "rm"], "network rm my-network --force"),
        (&["network", "rm", "a", "b"], "network rm a b --force"),
        (&["network", "rm", "", "--force"], "which network?"),
        (&["network", "lss"], "ls"),
        (&["firewall", "show"], "which sandbox?"),
        (&["firewall", "set"], "firewall clear"),
        (&["firewall", "set", "demo"], "firewall clear demo"),
        (&["firewall", "set", "demo", " , "], "firewall clear demo"),
        (&["firewall", "add", "demo"], "RULE"),
        (&["firewall", "clear"], "which sandbox?"),
        (&["disk", "create"], "<name>, --bucket, --endpoint, --access-key, --secret-key"),
        (&["disk", "create", "d", "--bucket", "b"], "CREATEOS_DISK_SECRET_KEY"),
        (&half, "missing: --endpoint"),
        (&["disk", "show"], "which disk?"),
        (&["disk", "attach", "demo", "d"], "disk attach my-box my-disk:/mnt/data"),
        (&["disk", "attach", "demo", "d", "mnt"], "start with /"),
        (&["disk", "attach", "demo", "d:mnt"], "start with /"),
        (&["disk", "attach", "demo", "d:/a", "/b"], "<disk>:/mount/path"),
        (&["disk", "attach", "demo", ":/a"], "<disk>:/mount/path"),
        (&["disk", "detach", "demo", "d"], "disk detach demo d --force"),
        (&["disk", "detach", "demo", "d", "/mnt"], "disk detach demo d:/mnt --force"),
        (&["disk", "detach", "demo", "--force"], "a sandbox and a disk"),
        (&["disk", "rm", "d"], "disk rm d --force"),
        (&["template", "show"], "which template?"),
        (&["template", "logs"], "which template?"),
        (&["template", "rm", "t"], "template rm t --force"),
    ];
    for (line, part) in lines {
        let text = cli.run(&[&["sandbox", "--output", "table"], *line].concat());
        assert_eq!((text.code, text.stdout.as_str()), (Some(2), ""), "{line:?}: {text:?}");
        assert!(text.stderr.contains(part), "{part} for {line:?}: {text:?}");
        assert!(text.stderr.contains("Usage:"), "the usage line for {line:?}: {text:?}");
        assert!(!text.stderr.contains("hunter2"), "{text:?}");
        let json = cli.run(&[&["sandbox", "--output", "json"], *line].concat());
        assert_eq!((json.code, json.stderr.as_str()), (Some(2), ""), "{line:?}: {json:?}");
        assert_eq!(json.error()["code"], "usage", "{line:?}");
        assert!(json.error().to_string().contains(&part.replace('"', "\\\"")), "{json:?}");
    }
    assert!(server.received_requests().await.expect("recorded").is_empty());
}

#[tokio::test]
async fn files_that_are_no_dockerfile_are_refused_before_any_request() {
    let server = MockServer::start().await;
    let cli = Cli::new(&server.uri());
    let file = |name: &str| cli.home.path().join(name);
    std::fs::write(file("empty"), " \n").expect("a file");
    std::fs::write(file("binary"), b"FROM \xff").expect("a file");
    std::fs::write(file("huge"), "#".repeat(2 << 20)).expect("a file");
    std::fs::write(file("long"), format!("FROM x\n# {}", "x".repeat(70_000))).expect("a file");
    std::fs::create_dir(file("dir")).expect("a directory");
    for (name, part) in [
        ("nowhere", "cannot open nowhere: no such file"),
        ("empty", "empty is empty"),
        ("binary", "not UTF-8"),
        ("huge", "larger than 1 MiB"),
        ("long", "64 KiB"),
        ("dir", "is a directory"),
    ] {
        let line = ["sandbox", "template", "submit", "t", "-f", name];
        let answer = cli.run(&[&line[..], &["-o", "table"]].concat());
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{name}: {answer:?}");
        assert!(answer.stderr.contains(part), "{part}: {answer:?}");
        let error = cli.run(&[&line[..], &["-o", "json"]].concat()).error();
        assert!(error["message"].as_str().expect("text").contains(part), "{error}");
    }
    let default = cli.run(&["sandbox", "template", "submit", "t", "-o", "table"]);
    assert!(default.stderr.contains("cannot open Dockerfile"), "{default:?}");
    assert!(server.received_requests().await.expect("recorded").is_empty());
}

/// A plane that has nothing but the sandbox.
async fn bare() -> (MockServer, Cli) {
    let server = plane("running").await;
    let cli = Cli::new(&server.uri());
    (server, cli)
}

#[tokio::test]
async fn unknown_names_say_where_to_look() {
    let (_server, cli) = bare().await;
    for (line, part, look) in [
        (&["network", "show", "x"][..], "no network called \"x\"", "sandbox network ls"),
        (&["disk", "show", "x"], "no disk called \"x\"", "sandbox disk ls"),
        (&["template", "show", "x"], "no template called \"x\"", "sandbox template ls"),
        (&["template", "logs", "x"], "no template called \"x\"", "sandbox template ls"),
        (&["network", "attach", "nobody", "net"], "no sandbox called \"nobody\"", "sandbox list"),
        (&["network", "attach", "demo", "x"], "demo", "sandbox network ls"),
        (&["firewall", "show", "nobody"], "no sandbox called \"nobody\"", "sandbox list"),
        (&["firewall", "clear", "de"], "no sandbox called \"de\"", "sandbox list"),
        (&["disk", "attach", "nobody", "d:/mnt"], "no sandbox called", "sandbox list"),
        (&["disk", "attach", "demo", "d:/mnt"], "d in demo", "sandbox disk ls"),
        (&["disk", "detach", "demo", "d", "--force"], "has no disks", ""),
    ] {
        let text = cli.run(&[&["sandbox", "-o", "table"], line].concat());
        assert_eq!((text.code, text.stdout.as_str()), (Some(1), ""), "{line:?}: {text:?}");
        assert!(text.stderr.contains(part) && text.stderr.contains(look), "{line:?}: {text:?}");
        let json = cli.run(&[&["sandbox", "-o", "json"], line].concat());
        let code = if look.is_empty() { "error" } else { "not_found" };
        assert_eq!((json.code, &json.error()["code"]), (Some(1), &json!(code)), "{json:?}");
        assert_eq!(json.stderr, "", "{json:?}");
    }
}

#[tokio::test]
async fn a_paused_sandbox_is_named_with_the_way_to_resume_it() {
    let server = plane("paused").await;
    let refusal = || fail(409, json!("sandbox is not running"));
    Mock::given(method("POST")).respond_with(refusal()).mount(&server).await;
    Mock::given(method("PUT")).respond_with(refusal()).mount(&server).await;
    let disk = json!({"id": "disk_1", "name": "d", "kind": "s3",
                      "config": {"bucket": "b", "endpoint": "https://s3.example.org"}});
    Mock::given(path("/v1/disks/d")).respond_with(success(disk)).mount(&server).await;
    let cli = Cli::new(&server.uri());
    for line in [
        &["network", "attach", "demo", "net"][..],
        &["firewall", "set", "demo", "a.example"],
        &["firewall", "clear", "demo"],
        &["disk", "attach", "demo", "d:/mnt"],
    ] {
        let text = cli.run(&[&["sandbox", "-o", "table"], line].concat());
        assert_eq!(text.code, Some(1), "{line:?}: {text:?}");
        assert!(text.stderr.contains("demo") && text.stderr.contains("is paused"), "{text:?}");
        assert!(text.stderr.contains("createos sandbox resume demo"), "{text:?}");
        let json = cli.run(&[&["sandbox", "-o", "json"], line].concat());
        assert_eq!(json.error()["code"], "conflict", "{json:?}");
    }
}

#[tokio::test]
async fn the_words_of_the_server_pass_through() {
    let (server, cli) = bare().await;
    for (route, refusal) in [
        ("/v1/networks", fail(403, json!("network quota reached (5)"))),
        ("/v1/disks", fail(400, json!("bucket probe failed: 403"))),
        ("/v1/templates", fail(429, json!("two builds are running"))),
    ] {
        Mock::given(method("POST")).and(path(route)).respond_with(refusal).mount(&server).await;
    }
    std::fs::write(cli.home.path().join("Dockerfile"), "FROM x\n").expect("a file");
    let disk = ["disk", "create", "d", "--bucket", "b", "--endpoint", "https://s3.example.org"];
    let keys = ["--access-key", "AKTEST", "--secret-key", "hunter2"];
    let disk = [&disk[..], &keys].concat();
    for (line, code, part) in [
        (&["network", "create", "n"][..], "forbidden", "network quota reached (5)"),
        (&disk, "bad_request", "bucket probe failed: 403"),
        (&["template", "submit", "t"], "rate_limited", "two builds are running"),
    ] {
        let json = cli.run(&[&["sandbox", "-o", "json"], line].concat());
        assert_eq!((json.code, &json.error()["code"]), (Some(1), &json!(code)), "{json:?}");
        assert!(json.error()["message"].as_str().expect("text").contains(part), "{json:?}");
        let text = cli.run(&[&["sandbox", "-o", "table", "--debug"], line].concat());
        assert!(text.stderr.contains(part), "{text:?}");
        assert!(!format!("{text:?}{json:?}").contains("hunter2"), "{text:?}");
    }
}

fn attachment(status: &str, path: &str) -> Value {
    json!({"disk_id": "disk_1", "name": "d", "kind": "s3", "mount_path": path,
           "config": {"bucket": "b", "endpoint": "https://s3.example.org"},
           "mount_status": status, "mount_error": "the bucket says no"})
}

#[tokio::test]
async fn a_mount_that_fails_is_a_failure_with_its_reason() {
    let server = MockServer::start().await;
    let one = crate::support::plane::sandbox("demo", "running");
    Mock::given(path("/v1/sandboxes")).respond_with(rows(json!([one]))).mount(&server).await;
    let disk = json!({"id": "disk_1", "name": "d", "kind": "s3",
                      "config": {"bucket": "b", "endpoint": "https://s3.example.org"}});
    Mock::given(path("/v1/disks/d")).respond_with(success(disk)).mount(&server).await;
    let route = format!("/v1/sandboxes/{ID}/disks");
    let attach = Mock::given(method("POST")).and(path(&*route));
    let attach = attach.and(body_json(json!({"disk_id": "disk_1", "mount_path": "/mnt"})));
    attach.respond_with(success(json!({"id": ID, "ok": true}))).mount(&server).await;
    let list = Mock::given(method("GET")).and(path(&*route));
    list.respond_with(rows(json!([attachment("error", "/mnt")]))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let text = cli.run(&["sandbox", "disk", "attach", "demo", "d:/mnt", "-o", "table"]);
    assert_eq!((text.code, text.stdout.as_str()), (Some(1), ""), "{text:?}");
    assert!(text.stderr.contains("the bucket says no"), "{text:?}");
    assert!(text.stderr.contains("disk detach demo d /mnt"), "{text:?}");
    let json = cli.run(&["sandbox", "disk", "attach", "demo", "d:/mnt", "-o", "json"]);
    assert_eq!((json.code, &json.error()["code"]), (Some(1), &json!("error")), "{json:?}");
    // Nobody waits: the answer is all there is.
    let line = ["sandbox", "disk", "attach", "demo", "d", "/mnt", "--no-wait", "-o", "json"];
    let accepted = cli.run(&line);
    assert_eq!(accepted.json()["mount_status"], "pending", "{accepted:?}");
}

#[tokio::test]
async fn detaching_sends_the_id_and_the_path_that_were_looked_up() {
    let server = MockServer::start().await;
    let one = crate::support::plane::sandbox("demo", "running");
    Mock::given(path("/v1/sandboxes")).respond_with(rows(json!([one]))).mount(&server).await;
    let route = format!("/v1/sandboxes/{ID}/disks");
    let list = Mock::given(method("GET")).and(path(&*route));
    let attached = json!([attachment("mounted", "/mnt/a b"), attachment("mounted", "/mnt/c")]);
    list.respond_with(rows(attached)).mount(&server).await;
    let detach = Mock::given(method("DELETE")).and(path(format!("{route}/disk_1")));
    let detach = detach.and(query_param("mount_path", "/mnt/a b"));
    detach.respond_with(success(json!({"detached": true}))).expect(1).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let line = ["sandbox", "disk", "detach", "demo", "d", "/mnt/a b/", "--yes", "-o", "json"];
    assert_eq!(cli.run(&line).json()["mount_path"], "/mnt/a b");
}

#[tokio::test]
async fn a_disk_that_cannot_be_taken_out_is_not_deleted() {
    let server = MockServer::start().await;
    let one = crate::support::plane::sandbox("demo", "paused");
    let list = Mock::given(path("/v1/sandboxes")).and(query_param("status", "paused"));
    list.respond_with(rows(json!([one]))).mount(&server).await;
    Mock::given(path("/v1/sandboxes")).respond_with(rows(json!([]))).mount(&server).await;
    let disk = json!({"id": "disk_1", "name": "d", "kind": "s3",
                      "config": {"bucket": "b", "endpoint": "https://s3.example.org"}});
    let get = Mock::given(method("GET")).and(path("/v1/disks/d"));
    get.respond_with(success(disk)).mount(&server).await;
    let delete = Mock::given(method("DELETE")).and(path("/v1/disks/disk_1"));
    delete.respond_with(fail(409, json!("disk is attached"))).expect(1).mount(&server).await;
    let route = format!("/v1/sandboxes/{ID}/disks");
    let list = Mock::given(method("GET")).and(path(&*route));
    list.respond_with(rows(json!([attachment("mounted", "/mnt")]))).mount(&server).await;
    let detach = Mock::given(method("DELETE")).and(path(format!("{route}/disk_1")));
    detach.respond_with(fail(409, json!("not while paused"))).expect(1).mount(&server).await;
    let answer = Cli::new(&server.uri()).run(&["sandbox", "disk", "rm", "d", "-y", "-o", "json"]);
    let result = &answer.json()["results"][0];
    assert_eq!((answer.code, &result["deleted"]), (Some(1), &json!(false)));
    let error = result["error"].as_str().expect("text");
    assert!(error.contains("still in demo") && error.contains("not while paused"), "{error}");
}

/// A build whose log breaks off is followed to its end; lines are there once.
#[tokio::test]
async fn a_log_that_breaks_off_is_followed_to_its_end() {
    let (server, cli) = bare().await;
    let view = |status: &str| json!({"id": "tpl_1", "name": "t", "status": status});
    let get = Mock::given(path("/v1/templates/t")).respond_with(success(view("building")));
    get.mount(&server).await;
    let get = Mock::given(path("/v1/templates/tpl_1")).respond_with(success(view("building")));
    get.mount(&server).await;
    let head = "{\"line\":\"one\"}\nnot json\n";
    let whole =
        format!("{head}{{\"line\":\"two\\n\"}}\n{{\"final\":true,\"status\":\"cancelled\"}}\n");
    for body in [head, &whole] {
        let logs = Mock::given(path("/v1/templates/tpl_1/logs")).and(query_param("follow", "true"));
        let answer = ResponseTemplate::new(200).set_body_string(body);
        logs.respond_with(answer).up_to_n_times(1).expect(1).mount(&server).await;
    }
    let answer = cli.run(&["sandbox", "template", "logs", "t", "--follow"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), "one\nnot json\ntwo\n"));
    assert!(answer.stderr.contains("cancelled"), "{answer:?}");
}

#[tokio::test]
async fn empty_lists_say_what_makes_the_first_item() {
    let (server, cli) = bare().await;
    for (group, part) in
        [("network", "network create"), ("disk", "disk create"), ("template", "template submit")]
    {
        let route = format!("/v1/{group}s");
        Mock::given(path(&*route)).respond_with(rows(json!([]))).mount(&server).await;
        assert_eq!(cli.run(&["sandbox", group, "ls", "-o", "json"]).stdout, "[]\n");
        let quiet = cli.run(&["sandbox", group, "ls", "-q", "-o", "json"]);
        assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(0), ""));
        let text = cli.run(&["sandbox", group, "ls", "-o", "table"]);
        assert!(text.stdout.starts_with("No ") && text.stderr.contains(part), "{text:?}");
    }
}
