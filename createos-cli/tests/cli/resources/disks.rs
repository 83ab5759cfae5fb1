//! Buckets of a real S3 server, mounted into real sandboxes.

use std::io::Write;
use std::process::{Command, Stdio};

use createos_tests::s3::S3;
use serde_json::{Value, json};

use super::{answer, create, sh, text};
use crate::support::Answer;
use crate::support::home::Home;

/// `disk create` with everything but the name and the keys.
fn making(home: &Home, s3: &S3, name: &str) -> Command {
    let config = s3.config();
    let mut command = home.command(&["sandbox", "disk", "create", name, "--path-style"]);
    command.args(["--bucket", &config.bucket, "--endpoint", &config.endpoint]);
    command.args(["--region", config.region.as_deref().expect("a region"), "-o", "json"]);
    command
}

fn made(mut command: Command) -> Answer {
    Answer::of(command.output().expect("the program runs"))
}

#[test]
fn a_bucket_is_mounted_used_and_let_go() {
    let home = Home::new();
    let _engine = home.serve();
    let s3 = S3::start();
    let keys = s3.keys();
    let (access, secret) = (keys.access_key.expose(), keys.secret_key.expose());

    // The secret from standard input: nothing of it shows.
    let mut command = making(&home, &s3, "my-disk");
    command.args(["--access-key", access, "--secret-key", "-"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(format!("{secret}\n").as_bytes()).expect("write");
    let first = Answer::of(child.wait_with_output().expect("an end"));
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
    let disk = first.json();
    assert_eq!((&disk["action"], &disk["name"]), (&json!("disk_created"), &json!("my-disk")));
    assert_eq!(disk["config"]["use_path_style"], true);
    let id = disk["id"].as_str().expect("an id").to_owned();
    from_the_environment_and_wrong(&home, &s3);
    look(&home, &id, secret);

    let sandbox = create(&home, "demo", &[]);
    let attached = home.json(&["sandbox", "disk", "attach", "demo", "my-disk:/mnt/data"]);
    for (key, value) in [
        ("action", json!("disk_attached")),
        ("disk", json!("my-disk")),
        ("sandbox_id", json!(sandbox)),
        ("mount_path", json!("/mnt/data")),
        ("mount_status", json!("mounted")),
        ("disk_id", json!(id)),
    ] {
        assert_eq!(attached[key], value, "{attached}");
    }
    assert_eq!(sh(&home, "demo", "echo kept > /mnt/data/f && cat /mnt/data/f"), "kept\n");
    let second = text(&home, &["sandbox", "disk", "attach", "demo", &id, "/mnt/again"]);
    assert!(second.contains(&format!("is mounted in demo ({sandbox}) at /mnt/again")), "{second}");
    // A file is in the bucket when it was closed.
    assert_eq!(sh(&home, "demo", "cat /mnt/again/f"), "kept\n");
    let taken = answer(&home, &["sandbox", "disk", "attach", "demo", "my-disk", "/mnt/again"]);
    assert_eq!((taken.code, &taken.error()["code"]), (Some(1), &json!("conflict")));
    detach(&home, &sandbox);
    remove(&home, &sandbox, &id);
}

fn from_the_environment_and_wrong(home: &Home, s3: &S3) {
    let keys = s3.keys();
    let mut command = making(home, s3, "from-env");
    command.env("CREATEOS_DISK_ACCESS_KEY", keys.access_key.expose());
    command.env("CREATEOS_DISK_SECRET_KEY", keys.secret_key.expose());
    let from_env = made(command);
    assert_eq!((from_env.code, from_env.stderr.as_str()), (Some(0), ""), "{from_env:?}");

    // On the line it works, with a warning that others can see it.
    let mut command = making(home, s3, "wrong");
    command.args(["--access-key", keys.access_key.expose(), "--secret-key", "s3cr3t-typo"]);
    let wrong = made(command);
    assert_eq!((wrong.code, &wrong.error()["code"]), (Some(1), &json!("bad_request")), "{wrong:?}");
    assert!(
        wrong.stderr.contains("warning:") && wrong.stderr.contains("--secret-key -"),
        "{wrong:?}"
    );
    assert!(!format!("{wrong:?}").contains("s3cr3t-typo"), "{wrong:?}");
    let mut command = making(home, s3, "from-env");
    command.env("CREATEOS_DISK_ACCESS_KEY", keys.access_key.expose());
    command.env("CREATEOS_DISK_SECRET_KEY", keys.secret_key.expose());
    let twice = made(command);
    assert_eq!((twice.code, &twice.error()["code"]), (Some(1), &json!("conflict")), "{twice:?}");
}

fn look(home: &Home, id: &str, secret: &str) {
    let rows = home.json(&["sandbox", "disk", "ls"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert!(!rows.to_string().contains(secret), "keys are never shown");
    let table = text(home, &["sandbox", "disks", "list"]);
    let line = table.lines().find(|line| line.starts_with("my-disk")).expect("a row");
    assert!(line.contains(id) && line.contains("s3") && line.contains("createos-test"), "{table}");
    let quiet = home.ok(&["sandbox", "disk", "ls", "--quiet"]);
    assert!(quiet.lines().any(|line| line == id) && quiet.lines().count() == 2, "{quiet}");
    let shown = text(home, &["sandbox", "disk", "show", "my-disk"]);
    for part in ["kind", "createos-test", "http://127.0.0.1:", "us-east-1", "path style  yes"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(home.json(&["sandbox", "disk", "show", id])["name"], "my-disk");
}

/// Mounted at two paths, so a path is needed; without it nothing happens.
fn detach(home: &Home, sandbox: &str) {
    let unclear = answer(home, &["sandbox", "disk", "detach", "demo", "my-disk", "--force"]);
    assert_eq!(unclear.code, Some(2));
    let hint = unclear.error()["hint"].as_str().expect("a hint").to_owned();
    assert!(hint.contains("my-disk:/mnt/data") && hint.contains("my-disk:/mnt/again"), "{hint}");
    let unsure = answer(home, &["sandbox", "disk", "detach", "demo", "my-disk:/mnt/again"]);
    assert_eq!((unsure.code, &unsure.error()["code"]), (Some(2), &json!("usage")));
    let detached = home.json(&["sandbox", "disk", "detach", "demo", "my-disk", "/mnt/again", "-y"]);
    let document = json!({"action": "disk_detached", "disk": "my-disk", "sandbox_id": sandbox,
                          "mount_path": "/mnt/again"});
    assert_eq!(detached, document);
    // Now there is one, and its path is looked up.
    let said = text(home, &["sandbox", "disk", "detach", "demo", "my-disk", "--force"]);
    let expected =
        format!("my-disk left demo ({sandbox}), was at /mnt/data; the bucket is unchanged\n");
    assert_eq!(said, expected);
    assert_eq!(sh(home, "demo", "cat /mnt/data/f"), "");
    let none = answer(home, &["sandbox", "disk", "detach", "demo", "my-disk", "--force"]);
    assert_eq!((none.code, &none.error()["code"]), (Some(1), &json!("error")));
    home.ok(&["sandbox", "disk", "attach", "demo", "from-env:/mnt/e"]);
    let other = answer(home, &["sandbox", "disk", "detach", "demo", "my-disk", "--force"]);
    let hint = other.error()["hint"].as_str().expect("a hint").to_owned();
    assert_eq!(hint, "it has: from-env:/mnt/e");
}

/// A disk that is mounted is let go first, with what was written in it.
fn remove(home: &Home, sandbox: &str, id: &str) {
    home.ok(&["sandbox", "disk", "attach", "demo", "my-disk:/mnt/data/", "--no-wait"]);
    let removed =
        answer(home, &["sandbox", "disk", "rm", id, "from-env", "--force", "-o", "table"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(removed.stdout.contains(&format!("removed my-disk ({id})")), "{removed:?}");
    let left = format!("my-disk ({id}) left demo ({sandbox}), was at /mnt/data");
    assert!(removed.stderr.contains(&left), "{removed:?}");
    assert_eq!(home.json(&["sandbox", "disk", "ls"]), json!([]));
    let gone = answer(home, &["sandbox", "disk", "rm", "my-disk", "--yes"]);
    let document: Value = gone.json();
    assert_eq!((gone.code, &document["action"]), (Some(1), &json!("disk_deleted")));
    assert_eq!(document["results"][0]["deleted"], false);
}
