//! The lines that programs built around the official command run, exactly as they run them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use createos_tests::s3::S3;
use serde_json::{Value, json};

use crate::support::Answer;
use crate::support::home::{Home, Served};
use crate::support::wait_until;

const SHAPE: &str = "s-1vcpu-256mb";

/// Splits at blanks, as the programs' own argument lists are.
fn words(line: &str) -> Vec<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "createos");
    words[1..].to_vec()
}

fn run(home: &Home, line: &str) -> Answer {
    Answer::of(home.run(&words(line)))
}

/// The output of a line that succeeds.
fn ok(home: &Home, line: &str) -> String {
    let answer = run(home, line);
    assert_eq!(answer.code, Some(0), "{line}: {answer:?}");
    answer.stdout
}

fn document(home: &Home, line: &str) -> Value {
    let text = ok(home, line);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

fn id(document: &Value) -> String {
    document["id"].as_str().expect("an id").to_owned()
}

/// A sandbox as such a program makes one; its id.
fn created(home: &Home, more: &str) -> String {
    id(&document(home, &format!("createos -o json sandbox create --shape {SHAPE} {more}")))
}

#[test]
fn signing_in_is_probed() {
    let home = Home::new();
    let signed_out = run(&home, "createos -o json sandbox ls");
    assert_eq!(signed_out.code, Some(1));
    let _engine = home.serve();
    assert!(ok(&home, "createos version").contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(document(&home, "createos -o json sandbox ls"), json!([]));
    assert!(document(&home, "createos -o json sandbox shapes").is_array());
    assert!(document(&home, "createos -o json sandbox rootfs")["rootfs"].is_array());
    // A stored key is enough, and lies where such programs look for it.
    let (url, key) = home.target().expect("a target");
    fs::create_dir(home.dir.path().join(".createos")).expect("a directory");
    fs::write(home.dir.path().join(".createos/.token"), key).expect("a file");
    let mut stored = home.command(&["-o", "json", "sandbox", "ls"]);
    stored.env_remove("CREATEOS_API_KEY").env("CREATEOS_SANDBOX_URL", url);
    assert_eq!(Answer::of(stored.output().expect("runs")).code, Some(0));
    let refused = run(&home, "createos -o json --api-key skp_wrong sandbox shapes");
    let probed = run(&home, "createos -o json --api-key skp_wrong sandbox ls");
    assert_eq!(probed.code, Some(1), "{refused:?}");
}

#[test]
fn sandboxes_live_as_such_programs_expect() {
    let home = Home::new();
    let _engine = home.serve();
    ok(&home, "createos -o json sandbox network create n");
    ok(
        &home,
        &format!(
            "createos sandbox create --name box --shape {SHAPE} --rootfs devbox:1 \
             --auto-pause 30m --network n --egress 127.0.0.1 --egress 10.0.0.0/8"
        ),
    );
    let list = document(&home, "createos -o json sandbox ls");
    for key in ["id", "name", "status", "ip"] {
        assert!(list[0][key].is_string(), "{key} in {list}");
    }
    let first = id(&list[0]);
    let second = document(
        &home,
        &format!(
            "createos -o json sandbox create --shape {SHAPE} --rootfs devbox:1 --ingress \
             --name two --network n"
        ),
    );
    assert!(second["ingress_url_template"].as_str().expect("text").contains("<port>"));
    let second = id(&second);
    let seen = document(&home, &format!("createos -o json sandbox get {second}"));
    assert!(seen["ingress_url_template"].is_string() && seen["bandwidth"].is_object(), "{seen}");
    ok(&home, &format!("createos sandbox edit {second} --ingress off"));
    ok(&home, &format!("createos sandbox edit {second} --ingress on"));
    ok(&home, &format!("createos sandbox edit {second} --egress example.org"));
    let seen = document(&home, &format!("createos -o json sandbox get {second}"));
    assert_eq!(seen["egress"], json!(["example.org"]));

    commands_and_files(&home, &first);
    ok(&home, &format!("createos sandbox pause {first}"));
    let paused = id(&document(&home, &format!("createos -o json sandbox fork {first} --paused")));
    let clone = id(&document(&home, &format!("createos -o json sandbox fork {first}")));
    assert_eq!(
        document(&home, &format!("createos -o json sandbox get {paused}"))["status"],
        "paused"
    );
    ok(&home, &format!("createos sandbox resume {first}"));
    ok(&home, &format!("createos sandbox rm {second} --yes"));
    ok(&home, &format!("createos sandbox rm --yes {paused}"));
    ok(&home, &format!("createos sandbox rm -y {clone} {first}"));
    assert_eq!(document(&home, "createos -o json sandbox ls"), json!([]));

    // They read both streams for the sizes that there are.
    let refused = run(&home, "createos sandbox create --name x --shape s-none");
    assert_eq!(refused.code, Some(1));
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains(SHAPE), "{refused:?}");
}

fn commands_and_files(home: &Home, id: &str) {
    // A program's own argument lists may hold blanks.
    let exec = |line: &[&str]| Answer::of(home.run(line));
    let script = "printf 'no\\0end'; exit 3";
    let plain = exec(&["sandbox", "exec", id, "--", "sh", "-c", script]);
    assert_eq!((plain.code, plain.stdout.as_str()), (Some(3), "no\0end"), "{plain:?}");
    let script = "echo one; echo two >&2; exit 4";
    let streamed = exec(&["sandbox", "exec", "--stream", id, "--", "bash", "-lc", script]);
    assert_eq!((streamed.code, streamed.stdout.as_str()), (Some(4), "one\n"), "{streamed:?}");

    let content: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let file = home.dir.path().join("file");
    fs::write(&file, &content).expect("a file");
    let mut push = home.command(&["sandbox", "push", id, "-", "/work.tar"]);
    let push = push.stdin(File::open(&file).expect("a file")).output().expect("runs");
    assert_eq!(Answer::of(push).code, Some(0));
    let pull = home.run(&["sandbox", "pull", id, "/work.tar", "-"]);
    assert!(pull.status.success() && pull.stdout == content, "every byte came back");
}

#[test]
fn tunnels_are_stopped_with_sigterm() {
    let home = Home::new();
    let _engine = home.serve();
    let sandbox = created(&home, "--name box");
    let serve = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\n\
                 while True:\n c = s.accept()[0]\n c.sendall(b'hello\\n')\n c.close()";
    let mut server = home.command(&["sandbox", "exec", &sandbox, "--", "python3", "-c", serve]);
    let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _server = Served(server.expect("the program runs"));
    let local = free_port();
    let line = format!("createos sandbox tunnel --remote 8000 --local {local} {sandbox}");
    let mut tunnel = home.command(&words(&line));
    let mut tunnel = Served(tunnel.stdout(Stdio::null()).spawn().expect("the program runs"));
    wait_until("the service answers through the tunnel", || {
        let mut said = String::new();
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", local)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a limit");
        stream.read_to_string(&mut said).is_ok() && said == "hello\n"
    });
    terminate(&tunnel.0);
    assert_eq!(tunnel.0.wait().expect("an end").code(), Some(0));
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
}

#[test]
fn networks_take_their_words_in_the_other_order() {
    let home = Home::new();
    let _engine = home.serve();
    let network = document(&home, "createos -o json sandbox network create n");
    let sandbox = created(&home, "--name box");
    ok(&home, &format!("createos sandbox network attach n {sandbox}"));
    let listed = document(&home, "createos -o json sandbox network ls");
    assert_eq!(listed[0]["member_count"], 1);
    for reference in ["n", &id(&network)] {
        let shown = document(&home, &format!("createos -o json sandbox network show {reference}"));
        let member = &shown["members"][0];
        assert_eq!((&member["name"], &member["sandbox_id"]), (&json!("box"), &json!(sandbox)));
        assert!(member["ip"].is_string() && member["status"] == "running", "{member}");
    }
    ok(&home, &format!("createos sandbox network detach n {sandbox} --yes"));
    assert_eq!(document(&home, "createos -o json sandbox network show n").get("members"), None);
    ok(&home, "createos sandbox network rm n --yes");
    ok(&home, "createos -o json sandbox network create m");
    ok(&home, "createos sandbox network rm m -y");
}

#[test]
fn disks_are_three_words() {
    let home = Home::new();
    let _engine = home.serve();
    let s3 = S3::start();
    let (config, keys) = (s3.config(), s3.keys());
    let sandbox = created(&home, "--name box");
    let made = document(
        &home,
        &format!(
            "createos -o json sandbox disk create data --bucket {} --endpoint {} --region {} \
             --access-key {} --secret-key {} --path-style",
            config.bucket,
            config.endpoint,
            config.region.as_deref().expect("a region"),
            keys.access_key.expose(),
            keys.secret_key.expose(),
        ),
    );
    assert_eq!(document(&home, "createos -o json sandbox disk ls")[0]["name"], "data");
    let shown = document(&home, &format!("createos -o json sandbox disk show {}", id(&made)));
    assert_eq!(shown["config"]["bucket"], json!(config.bucket));
    ok(&home, &format!("createos sandbox disk attach {sandbox} data /mnt"));
    let written = home.run(&["sandbox", "exec", &sandbox, "--", "sh", "-c", "echo x > /mnt/f"]);
    assert!(written.status.success(), "{written:?}");
    ok(&home, &format!("createos sandbox disk detach {sandbox} data /mnt --yes"));
    ok(&home, "createos sandbox disk rm data --yes");
}

#[test]
fn templates_take_their_file_on_either_side_of_the_name() {
    let home = Home::new();
    let _engine = home.serve();
    let dockerfile = "FROM nodeops/sandbox:debian\nRUN echo built > /built\n";
    fs::write(home.dir.path().join("file"), dockerfile).expect("a file");
    ok(&home, "createos sandbox template submit -f file one");
    ok(&home, "createos sandbox template submit two -f file");
    for name in ["one", "two"] {
        let built = || {
            let shown = document(&home, &format!("createos -o json sandbox template show {name}"));
            shown["status"] == "ready"
        };
        wait_until("the template is built", built);
    }
    let sandbox = created(&home, "--rootfs two");
    let read = home.run(&["sandbox", "exec", &sandbox, "--", "cat", "/built"]);
    assert_eq!(read.stdout, b"built\n");
    ok(&home, "createos sandbox template rm one --yes");
    ok(&home, "createos sandbox template rm two --yes");
}

#[test]
fn a_directory_is_synced_until_sigterm() {
    let home = Home::new();
    let _engine = home.serve();
    let sandbox = created(&home, "--name box");
    assert!(ok(&home, "createos sandbox sync --help").contains("--mode"));
    let here = home.dir.path().join("work");
    fs::create_dir(&here).expect("a directory");
    fs::write(here.join("kept"), "here\n").expect("a file");
    fs::write(here.join("left.log"), "out\n").expect("a file");
    for (name, content) in [("key", "private"), ("key.pub", "public")] {
        fs::write(home.dir.path().join(name), content).expect("a file");
    }
    let line = format!(
        "createos sandbox sync --local {} --remote /root/work --yes -i key --mode two-way \
         --exclude *.log {sandbox}",
        here.display()
    );
    let mut sync = home.command(&words(&line));
    let sync = sync.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut sync = Served(sync.expect("the program runs"));
    let inside = |script: &str| {
        let output = home.run(&["sandbox", "exec", &sandbox, "--", "sh", "-c", script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_until("the file is inside", || inside("cat /root/work/kept") == "here\n");
    inside("echo there > /root/work/back");
    wait_until("the file is here", || {
        fs::read_to_string(here.join("back")).is_ok_and(|text| text == "there\n")
    });
    assert_eq!(inside("ls /root/work"), "back\nkept\n");
    terminate(&sync.0);
    assert_eq!(sync.0.wait().expect("an end").code(), Some(0));
}

#[test]
fn devices_are_listed() {
    let home = Home::new();
    let _engine = home.serve();
    assert_eq!(document(&home, "createos -o json sandbox devices ls"), json!([]));
    ok(&home, "createos sandbox devices register --name N");
    assert_eq!(document(&home, "createos -o json sandbox devices ls")[0]["name"], "N");
}

/// One of them never looks at a terminal: standard input is closed, and nothing is asked.
#[test]
fn nothing_is_ever_asked_of_a_program() {
    let home = Home::new();
    let _engine = home.serve();
    let sandbox = created(&home, "--name box");
    for line in [
        format!("createos sandbox rm {sandbox}"),
        format!("createos sandbox edit {sandbox}"),
        "createos sandbox create".to_owned(),
        "createos sandbox pause".to_owned(),
    ] {
        let mut command: Command = home.command(&words(&line));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        child.stdin.take().expect("a pipe").write_all(b"y\n\n").ok();
        let answer = Answer::of(child.wait_with_output().expect("an end"));
        assert_eq!(answer.code, Some(2), "{line}: {answer:?}");
    }
    assert_eq!(document(&home, "createos -o json sandbox ls")[0]["status"], "running");
}
