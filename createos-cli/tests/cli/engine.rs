//! The command on the real engine, as a new user types it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::home::{Home, Served};
use crate::support::wait_until;

#[test]
fn a_new_user_needs_nothing_but_local_start() {
    first_steps(&Home::new());
}

#[test]
fn an_ordinary_user_does_the_same() {
    first_steps(&Home::of_ordinary_user());
}

fn first_steps(home: &Home) {
    let started = home.ok(&["--output", "table", "local", "start"]);
    assert!(started.contains("http://"), "{started}");
    let whoami = home.ok(&["--output", "table", "whoami"]);
    assert!(whoami.contains("this machine"), "{whoami}");

    let shapes = home.json(&["sandbox", "shapes"]);
    assert!(shapes.as_array().expect("a list").iter().any(|s| s["id"] == "s-1vcpu-256mb"));
    let created = home.json(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "my-box"]);
    assert_eq!(created["action"], "created");
    assert_eq!(created["status"], "running");

    run_commands(home);
    move_files(home);
    import_an_image(home);

    assert_eq!(home.json(&["sandbox", "list"]).as_array().map(Vec::len), Some(1));
    let id = created["id"].as_str().expect("an id");
    assert_eq!(home.ok(&["sandbox", "list", "--quiet"]), format!("{id}\n"));
    assert_eq!(home.json(&["sandbox", "get", "my-box"])["shape"], "s-1vcpu-256mb");
    let unsure = home.run(&["sandbox", "rm", "my-box"]);
    assert_eq!(unsure.status.code(), Some(2), "rm asks for --force where nobody can be asked");
    home.ok(&["sandbox", "rm", "my-box", "--force"]);
    let gone = home.run(&["sandbox", "exec", "my-box", "--", "true"]);
    assert_eq!(gone.status.code(), Some(1));

    home.ok(&["local", "status"]);
    home.ok(&["local", "stop"]);
    let stopped = home.run(&["sandbox", "list"]);
    assert_eq!(stopped.status.code(), Some(1));
    assert_eq!(processes_of(&home.data_dir()), BTreeSet::new());
    assert_eq!(directories(&home.data_dir().join("sandboxes")), BTreeSet::new());
}

fn run_commands(home: &Home) {
    let uname = home.ok(&["sandbox", "exec", "my-box", "--", "uname", "-n"]);
    assert_eq!(uname, "my-box\n");
    let failed = home.run(&["sandbox", "exec", "my-box", "--", "sh", "-c", "echo no >&2; exit 7"]);
    assert_eq!((failed.status.code(), &failed.stderr[..]), (Some(7), &b"no\n"[..]));
    let streamed = home.ok(&["sandbox", "exec", "my-box", "--stream", "--", "seq", "3"]);
    assert_eq!(streamed, "1\n2\n3\n");
    let missing = home.run(&["sandbox", "exec", "my-box", "--", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-program"));
}

/// The engine sees it at once; it need not know of it beforehand.
fn import_an_image(home: &Home) {
    let root = home.dir.path().join("tiny");
    fs::create_dir_all(root.join("bin")).expect("a directory");
    fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox");
    let mut tar = Command::new("tar");
    tar.current_dir(&root).args(["-czf", "../tiny.tar.gz", "."]);
    assert!(tar.status().expect("tar").success());
    let imported = home.json(&["local", "image", "import", "tiny", "tiny.tar.gz"]);
    assert_eq!(imported["name"], "tiny:latest");
    let rootfs = home.json(&["sandbox", "rootfs"]);
    let names = rootfs["rootfs"].as_array().expect("a list");
    assert!(
        names.contains(&"devbox:1".into()) && names.contains(&"tiny:latest".into()),
        "{names:?}"
    );
    home.ok(&[
        "sandbox",
        "create",
        "--shape",
        "s-1vcpu-256mb",
        "--name",
        "tiny",
        "--rootfs",
        "tiny",
    ]);
    let said = home.ok(&["sandbox", "exec", "tiny", "--", "sh", "-c", "echo $SHELL; echo /bin/*"]);
    assert_eq!(said, "/bin/sh\n/bin/sh\n");
    home.ok(&["sandbox", "rm", "tiny", "--force"]);
    assert_eq!(home.json(&["local", "image", "ls"]).as_array().map(Vec::len), Some(1));
    home.ok(&["local", "image", "rm", "tiny"]);
    let gone = home.run(&["local", "image", "rm", "tiny"]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(home.json(&["local", "image", "ls"]), serde_json::json!([]));
}

fn move_files(home: &Home) {
    let content: Vec<u8> = (0..=255u8).cycle().take(3_000_000).collect();
    let (here, back) = (home.dir.path().join("in.bin"), home.dir.path().join("out.bin"));
    fs::write(&here, &content).expect("a file");
    home.ok(&["sandbox", "push", "my-box", "in.bin", "/workspace/in.bin"]);
    home.ok(&["sandbox", "pull", "my-box", "/workspace/in.bin", "out.bin"]);
    assert_eq!(fs::read(&back).expect("a file"), content);
    assert_eq!(home.run(&["sandbox", "pull", "my-box", "/workspace/in.bin", "-"]).stdout, content);
    let lost = home.run(&["sandbox", "pull", "my-box", "/missing", "out.bin"]);
    assert_eq!(lost.status.code(), Some(1));
    assert_eq!(fs::read(&back).expect("a file"), content, "a failed pull leaves the old file");

    let mut push = home.command(&["sandbox", "push", "my-box", "-", "/tmp/piped"]);
    let mut push =
        push.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program runs");
    push.stdin.take().expect("a pipe").write_all(b"from a pipe").expect("write");
    assert!(push.wait().expect("an end").success());
    assert_eq!(home.ok(&["sandbox", "exec", "my-box", "--", "cat", "/tmp/piped"]), "from a pipe");
}

#[test]
fn doctor_names_every_capability() {
    let home = Home::new();
    let text = home.ok(&["--output", "table", "local", "doctor"]);
    for name in ["user_namespaces", "overlay", "memory_limit", "seccomp", "network", "sandbox"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    let report = home.json(&["local", "doctor"]).to_string();
    assert!(report.contains("\"degraded\""), "the network says what it lacks: {report}");
}

#[test]
fn a_killed_engine_leaves_nothing_that_the_next_one_does_not_own() {
    killed_engine(&Home::new());
}

#[test]
fn a_killed_engine_of_an_ordinary_user_leaves_nothing_either() {
    killed_engine(&Home::of_ordinary_user());
}

fn killed_engine(home: &Home) {
    let devices = network_devices();
    let mut engine = home.serve();
    let names: Vec<String> = (0..20).map(|number| format!("box-{number}")).collect();
    for name in &names {
        home.ok(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", name]);
    }
    home.ok(&["sandbox", "exec", "box-0", "--", "sh", "-c", "echo kept > /root/file"]);
    kill_in_the_middle_of_work(home, &mut engine, &names);
    wait_until("its processes are gone", || processes_of(&home.data_dir()).is_empty());
    assert!(!mounts().contains(&home.data_dir().display().to_string()), "mounts stayed");

    let engine = home.serve();
    let listed = home.json(&["sandbox", "list", "--all"]);
    let listed = listed.as_array().expect("a list");
    let owned: BTreeSet<String> =
        listed.iter().filter_map(|sandbox| Some(sandbox["id"].as_str()?.to_owned())).collect();
    assert_eq!(owned.len(), 20);
    assert!(listed.iter().all(|sandbox| sandbox["status"] == "error"), "{listed:?}");
    assert_eq!(directories(&home.data_dir().join("sandboxes")), owned);
    assert_eq!(control_groups(&owned), Vec::<PathBuf>::new());
    assert_eq!(network_devices(), devices);

    home.ok(&["sandbox", "resume", "box-0"]);
    assert_eq!(home.ok(&["sandbox", "exec", "box-0", "--", "cat", "/root/file"]), "kept\n");
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    home.ok(&[&["sandbox", "rm", "--force"], all.as_slice()].concat());
    wait_until("their files are gone", || {
        directories(&home.data_dir().join("sandboxes")).is_empty()
    });
    end(engine);
    assert_eq!(control_groups(&owned), Vec::<PathBuf>::new());
}

fn kill_in_the_middle_of_work(home: &Home, engine: &mut Served, names: &[String]) {
    let work = "head -c 20000000 /dev/zero > /tmp/fill; sleep 60";
    let busy: Vec<Child> = names
        .iter()
        .map(|name| {
            let mut command = home.command(&["sandbox", "exec", name, "--", "sh", "-c", work]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs")
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    engine.0.kill().expect("kill -9");
    engine.0.wait().expect("an end");
    for mut child in busy {
        assert!(!child.wait().expect("an end").success(), "a lost engine is no success");
    }
}

fn end(mut engine: Served) {
    let pid = rustix::process::Pid::from_child(&engine.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
    assert!(engine.0.wait().expect("an end").success(), "SIGTERM ends an engine in order");
}

/// Sandboxes' processes: their mounts name the directories that they write to.
fn processes_of(data_dir: &Path) -> BTreeSet<u32> {
    let ids = directories(&data_dir.join("sandboxes"));
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            ids.iter().any(|id| mounts.contains(&format!("sandboxes/{id}/")))
        })
        .collect()
}

fn directories(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Control groups, anywhere, that are named after one of these sandboxes.
fn control_groups(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    fn walk(dir: &Path, ids: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
        for name in directories(dir) {
            let path = dir.join(&name);
            if path.is_dir() && !path.is_symlink() {
                if ids.contains(&name) {
                    found.push(path.clone());
                }
                walk(&path, ids, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), ids, &mut found);
    found
}

fn network_devices() -> BTreeSet<String> {
    directories(Path::new("/sys/class/net"))
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("mountinfo")
}
