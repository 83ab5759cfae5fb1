//! `local image`: root filesystems from files and registries.

use std::fs;
use std::process::Command;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::Answer;
use crate::support::home::Home;
use crate::support::terminal::Terminal;

/// `ann:hunter2`, as Docker's configuration and the Basic scheme have it.
const ANN: &str = "YW5uOmh1bnRlcjI=";

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer with a shell in it, and something that makes it large.
fn layer(home: &Home, size: usize) -> Vec<u8> {
    let root = home.dir.path().join("tiny");
    fs::create_dir_all(root.join("bin")).expect("a directory");
    fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox");
    fs::write(root.join("ballast"), vec![b'x'; size]).expect("a file");
    let mut tar = Command::new("tar");
    let tar = tar.current_dir(&root).args(["-cf", "-", "."]).output().expect("tar");
    assert!(tar.status.success());
    tar.stdout
}

/// A registry with one image, for those who have the account.
async fn registry(layer: &[u8], image: &str) -> MockServer {
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({"os": "linux", "architecture": arch, "config": {"Env": ["SIZE=tiny"]},
                        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2,
        "config": {"digest": digest(&config), "size": config.len()},
        "layers": [{"digest": digest(layer), "size": layer.len()}]});
    let server = MockServer::start().await;
    let answers = [
        (format!("manifests/{image}"), manifest.to_string().into_bytes()),
        (format!("blobs/{}", digest(&config)), config),
        (format!("blobs/{}", digest(layer)), layer.to_vec()),
    ];
    for (place, content) in answers {
        let place = format!("/v2/team/tool/{place}");
        let known = header("authorization", format!("Basic {ANN}"));
        let get = Mock::given(method("GET")).and(path(&place)).and(known);
        get.respond_with(ResponseTemplate::new(200).set_body_bytes(content)).mount(&server).await;
        let refused = ResponseTemplate::new(401)
            .insert_header("www-authenticate", "Basic realm=\"test\"")
            .set_body_json(json!({"errors": [{"code": "UNAUTHORIZED", "message": "sign in"}]}));
        Mock::given(method("GET")).and(path(&place)).respond_with(refused).mount(&server).await;
    }
    server
}

fn sign_in(home: &Home, registry: &str) {
    let dir = home.dir.path().join(".docker");
    fs::create_dir_all(&dir).expect("a directory");
    let config = json!({"auths": {registry: {"auth": ANN}}});
    fs::write(dir.join("config.json"), config.to_string()).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_asks_with_docker_s_account_and_says_what_is_there_then() {
    let home = Home::new();
    let layer = layer(&home, 10);
    let server = registry(&layer, "1.2").await;
    let host = server.address().to_string();
    let image = format!("{host}/team/tool:1.2");

    let refused = Answer::of(home.run(&["-o", "table", "local", "image", "pull", &image]));
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(refused.stderr.contains(&format!("docker login {host}")), "{refused:?}");
    let refused = Answer::of(home.run(&["local", "image", "pull", &image]));
    assert!(refused.error()["message"].as_str().expect("text").contains("refuses"), "{refused:?}");

    sign_in(&home, &host);
    let pulled = home.json(&["local", "image", "pull", &image]);
    assert_eq!((&pulled["name"], &pulled["source"]), (&json!("team/tool:1.2"), &json!(image)));
    assert!(pulled["digest"].as_str().expect("text").starts_with("sha256:"), "{pulled}");
    let text = home.ok(&["-o", "table", "local", "image", "pull", &image, "--as", "tool"]);
    assert!(text.starts_with("Imported tool:latest, "), "{text}");
    let listed = home.json(&["local", "image", "ls"]);
    assert_eq!(
        (&listed[0]["name"], &listed[1]["name"]),
        (&json!("team/tool:1.2"), &json!("tool:latest"))
    );

    let _served = home.serve();
    let create =
        ["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "b", "--rootfs", "tool"];
    home.ok(&create);
    assert_eq!(home.ok(&["sandbox", "exec", "b", "--", "sh", "-c", "echo $SIZE"]), "tiny\n");
    home.ok(&["sandbox", "rm", "b", "--force"]);

    for (words, code, said) in [
        (&[&*image, "--platform", "windows/amd64"][..], 1, "linux/"),
        (&[&*image, "--platform", "linux/s390x"], 1, "linux/s390x is needed"),
        (&[&*image, "--as", "devbox:1"], 1, "choose another name"),
        (&[&*format!("{host}/team/tool:9")], 1, "there is no image"),
        (&["https://ghcr.io/a/b"], 1, "leave the scheme out"),
        (&["127.0.0.1:1/x"], 1, "cannot be reached"),
        (&[], 2, "<IMAGE>"),
    ] {
        let words = [&["-o", "table", "local", "image", "pull"], words].concat();
        let failed = Answer::of(home.run(&words));
        assert_eq!((failed.code, &*failed.stdout), (Some(code), ""), "{words:?}: {failed:?}");
        assert!(failed.stderr.contains(said), "{words:?}: {failed:?}");
        assert!(!failed.stderr.contains(ANN) && !failed.stderr.contains("hunter2"), "{failed:?}");
    }
    let debug = Answer::of(home.run(&["local", "image", "pull", &image, "--debug"]));
    assert!(!debug.stderr.contains(ANN) && !debug.stderr.contains("hunter2"), "{debug:?}");

    // A configuration that cannot be read is not passed over: the image may need it.
    fs::write(home.dir.path().join(".docker/config.json"), "{").expect("a file");
    let failed = Answer::of(home.run(&["-o", "table", "local", "image", "pull", &image]));
    assert!(failed.stderr.contains("Docker's configuration"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_shows_how_far_it_is_and_ctrl_c_leaves_nothing() {
    let home = Home::new();
    // Large enough that every stage is there long enough to be drawn.
    let layer = layer(&home, 24 << 20);
    let server = registry(&layer, "1").await;
    let host = server.address().to_string();
    sign_in(&home, &host);
    let image = format!("{host}/team/tool:1");
    let mut terminal = Terminal::start(&home.command(&["local", "image", "pull", &image]), 80);
    terminal.expect("unpacking layer 1 of 1");
    terminal.expect("Imported");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(0), "{said}");

    // One that never answers.
    let slow = MockServer::start().await;
    let never = ResponseTemplate::new(200).set_delay(std::time::Duration::from_secs(600));
    Mock::given(method("GET")).respond_with(never).mount(&slow).await;
    let image = format!("{}/x", slow.address());
    let mut terminal = Terminal::start(&home.command(&["local", "image", "pull", &image]), 80);
    while slow.received_requests().await.is_none_or(|requests| requests.is_empty()) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    terminal.send("\x03");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(130), "{said}");
    let left = fs::read_dir(home.data_dir().join("layers")).expect("layers").count();
    assert_eq!(left, 1, "that of the first one");
}

#[test]
fn build_names_the_tool_it_needs_and_checks_what_it_is_told() {
    let home = Home::new();
    let mut command = home.command(&["-o", "table", "local", "image", "build", "debian:13"]);
    let failed = Answer::of(command.env("PATH", "/nonexistent").output().expect("the program"));
    assert_eq!((failed.code, &*failed.stdout), (Some(1), ""));
    assert!(failed.stderr.contains("apt install mmdebstrap"), "{failed:?}");
    for (words, code, said) in [
        (&["x", "--suite", "-x"][..], 2, "unexpected argument"),
        (&["x", "--suite", "a b"], 1, "no release of Debian"),
        (&["x", "--include", "a,b c"], 1, "no package of Debian"),
        (&["Upper"], 1, "cannot be used"),
        (&["x", "--", "--no-such-option"], 1, "no-such-option"),
        (&[], 2, "<NAME>"),
    ] {
        let words = [&["-o", "table", "local", "image", "build"], words].concat();
        let failed = Answer::of(home.run(&words));
        assert_eq!((failed.code, &*failed.stdout), (Some(code), ""), "{words:?}: {failed:?}");
        assert!(failed.stderr.contains(said), "{words:?}: {failed:?}");
    }
    assert_eq!(home.json(&["local", "image", "ls"]), json!([]));
}

#[test]
fn build_shows_what_it_does_and_ctrl_c_ends_it() {
    let home = Home::new();
    let words = ["local", "image", "build", "x", "--mirror", "http://192.0.2.1/debian"];
    let mut terminal = Terminal::start(&home.command(&words), 80);
    terminal.expect("apt-get update");
    terminal.send("\x03");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(home.json(&["local", "image", "ls"]), json!([]));
}
