//! Devices, and this machine as one, in a network of its own: `wg-quick` makes real interfaces.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::home::Home;
use crate::support::terminal::Terminal;
use crate::support::{Answer, signal, wait_until};

/// A network that nobody else is in. It ends with its last process.
struct Net(Child, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

/// Tunnels in user space have one name each on a machine, whatever network they are in.
static TURN: Mutex<()> = Mutex::new(());

impl Net {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = "ip link set lo up && echo ready && exec sleep 100000";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", hold]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("unshare");
        let ready = child.stdout.as_mut().expect("its output").read_exact(&mut [0; 6]);
        ready.expect("a network of its own (this needs root)");
        Self(child, turn)
    }

    fn home(&self) -> Home {
        Home::in_network_of(self.0.id())
    }

    fn run(&self, line: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        let output = command.args(["-t", &self.0.id().to_string(), "--net"]).args(line).output();
        String::from_utf8(output.expect("nsenter").stdout).expect("text")
    }

    fn has_tunnel(&self) -> bool {
        self.run(&["ip", "-o", "link"]).contains("cosvpn")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Its user-space WireGuard ends with its interface.
        self.run(&["ip", "link", "delete", "cosvpn"]);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answer(home: &Home, line: &[&str]) -> Answer {
    Answer::of(home.run(line))
}

/// `vpn up` in the background, and what it printed when it was connected.
fn up(home: &Home) -> (Child, Value) {
    let mut command = home.command(&["sandbox", "vpn", "up", "--output", "json"]);
    // Temporary files are looked at.
    command.env("TMPDIR", home.dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("its output")).lines();
    let mut text = String::new();
    while serde_json::from_str::<Value>(&text).is_err() {
        match lines.next() {
            Some(line) => text += &line.expect("text"),
            None => {
                let mut said = String::new();
                let _ = child.stderr.take().expect("its errors").read_to_string(&mut said);
                panic!("it has ended: {text}{said}");
            }
        }
    }
    (child, serde_json::from_str(&text).expect("JSON"))
}

/// Waits for its end; its exit code and what else it said.
fn end(mut child: Child, within: Duration) -> (Option<i32>, String) {
    let deadline = Instant::now() + within;
    let code = loop {
        match child.try_wait().expect("a status") {
            Some(status) => break status.code(),
            None => assert!(Instant::now() < deadline, "it goes on"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut said = String::new();
    for pipe in [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read>),
    ] {
        let _ = pipe.expect("a pipe").read_to_string(&mut said);
    }
    (code, said)
}

fn secret_files(home: &Home) -> usize {
    let files = fs::read_dir(home.dir.path()).expect("a directory").flatten();
    files.filter(|file| file.file_name().to_string_lossy().starts_with("createos-vpn")).count()
}

#[test]
fn a_machine_is_registered_connected_and_forgotten() {
    let net = Net::new();
    let home = net.home();
    let _engine = home.serve();
    for line in [["sandbox", "vpn", "up"], ["sandbox", "devices", "unregister"]] {
        let refused = answer(&home, &[&line[..], &["-o", "json"]].concat());
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let hint = refused.error()["hint"].clone();
        assert!(hint.as_str().expect("a hint").contains("devices register"), "{refused:?}");
    }
    assert_eq!(home.json(&["sandbox", "devices", "ls"]), json!([]));

    let made = home.json(&["sandbox", "devices", "register", "laptop"]);
    assert_eq!(
        (&made["action"], &made["name"], &made["client_ip"], &made["os"]),
        (&json!("device_registered"), &json!("laptop"), &json!("100.64.0.2"), &json!("linux"))
    );
    let id = made["id"].as_str().expect("an id").to_owned();
    let file = home.dir.path().join(".config/createos/device.json");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let stored: Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("text")).expect("JSON");
    let secret = stored["private_key"].as_str().expect("a key").to_owned();
    assert_eq!(stored["public_key"], made["pubkey"]);

    let again = answer(&home, &["sandbox", "device", "register", "--name", "other", "-o", "table"]);
    assert_eq!(again.code, Some(0));
    assert!(again.stderr.contains("registered already"), "{again:?}");
    assert!(again.stdout.contains(&id), "{again:?}");
    let rows = home.json(&["sandbox", "devices", "list"]);
    assert_eq!((&rows[0]["id"], &rows[0]["name"]), (&json!(id), &json!("laptop")));
    let table = home.ok(&["sandbox", "devices", "ls", "--output", "table"]);
    let row = table.lines().find(|line| line.starts_with("laptop")).expect("a row");
    for part in ["100.64.0.2", "linux", &id, "this machine"] {
        assert!(row.contains(part), "{table}");
    }

    let id = connected(&net, &home, &id, &secret);

    let gone = home.json(&["sandbox", "devices", "unregister"]);
    assert_eq!(gone, json!({"action": "device_unregistered", "id": id, "name": "laptop"}));
    assert!(!file.exists());
    assert_eq!(home.json(&["sandbox", "devices", "list"]), json!([]));
}

/// Connects in every way, and is another device in the end.
fn connected(net: &Net, home: &Home, id: &str, secret: &str) -> String {
    let line = ["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "web"];
    home.json(&line);
    home.ok(&["sandbox", "network", "create", "my-net"]);
    home.ok(&["sandbox", "network", "attach", "web", "my-net"]);
    home.ok(&["sandbox", "network", "attach", id, "my-net"]);
    let serve = "mkdir -p /srv/www && cd /srv/www && hostname > index.html && \
        nohup python3 -m http.server 8000 >/dev/null 2>&1 </dev/null &";
    home.ok(&["sandbox", "exec", "web", "--", "sh", "-c", serve]);
    let address = || {
        let shown = home.json(&["sandbox", "network", "show", "my-net"]);
        shown["members"][0]["ip"].as_str().map(str::to_owned)
    };
    wait_until("it has an address", || address().is_some());
    let url = format!("http://{}:8000/", address().expect("an address"));

    let (child, said) = up(home);
    assert_eq!(
        said,
        json!({"action": "vpn_connected", "device_id": id, "device": "laptop",
               "client_ip": "100.64.0.2", "interface": "cosvpn"})
    );
    wait_until("the sandbox answers", || {
        net.run(&["curl", "-s", "--max-time", "3", &url]).trim() == "web"
    });
    assert_eq!(secret_files(home), 1);
    // A second connection is not begun beside it, and does not end it.
    let second = answer(home, &["sandbox", "vpn", "up", "-o", "json"]);
    assert_eq!((second.code, &second.error()["code"]), (Some(1), &json!("conflict")));
    assert_eq!(net.run(&["curl", "-s", "--max-time", "3", &url]).trim(), "web");
    signal(&child, Signal::INT);
    let (code, said) = end(child, Duration::from_secs(20));
    assert_eq!((code, said.contains(secret)), (Some(0), false), "{said}");
    assert!(!net.has_tunnel(), "nothing is left");
    assert_eq!(secret_files(home), 0);
    assert_eq!(net.run(&["curl", "-s", "--max-time", "1", &url]), "");

    // SIGTERM is as good; and a network that is reached in another way is left alone.
    let (child, _) = up(home);
    signal(&child, Signal::TERM);
    assert_eq!(end(child, Duration::from_secs(20)).0, Some(0));
    let subnet = url.trim_start_matches("http://").trim_end_matches(":8000/").to_owned() + "/32";
    net.run(&["ip", "link", "add", "other", "type", "veth", "peer", "name", "end"]);
    net.run(&["ip", "link", "set", "other", "up"]);
    net.run(&["ip", "link", "set", "end", "up"]);
    net.run(&["ip", "route", "add", &subnet, "dev", "other"]);
    let refused = answer(home, &["sandbox", "vpn", "up", "-o", "json"]);
    assert_eq!((refused.code, &refused.error()["code"]), (Some(1), &json!("conflict")));
    assert!(refused.stdout.contains("other"), "{refused:?}");
    assert!(!net.has_tunnel());
    net.run(&["ip", "link", "delete", "other"]);

    // What the engine ends is noticed at the next renewal.
    let (child, _) = up(home);
    let removed = home.json(&["sandbox", "devices", "remove", "laptop", "--force"]);
    assert_eq!(
        removed,
        json!({"action": "device_removed", "id": id, "name": "laptop",
               "client_ip": "100.64.0.2", "cleared_local_state": true})
    );
    let (code, said) = end(child, Duration::from_secs(45));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the session has ended"), "{said}");
    assert!(!net.has_tunnel());
    let made = home.json(&["sandbox", "devices", "register", "laptop"]);
    assert_ne!(made["id"], id);
    made["id"].as_str().expect("an id").to_owned()
}

/// A control plane with one device, whose sessions last two seconds.
const PLANE: &str = r#"
import http.server, json, sys, time, datetime
config, renewal = sys.argv[1], int(sys.argv[2])
class Plane(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get('content-length') or 0))
        end = datetime.datetime.fromtimestamp(time.time() + 2, datetime.timezone.utc)
        session = {'session_id': 'ses-1', 'device_id': 'dev-1', 'client_config': config,
                   'expires_at': end.strftime('%Y-%m-%dT%H:%M:%SZ')}
        status = renewal if self.command == 'PUT' else 200
        data = session if self.command == 'POST' else {'ok': True}
        text = json.dumps({'status': 'success' if status == 200 else 'error', 'data': data})
        print(self.command, self.path, file=open(sys.argv[3], 'a'), flush=True)
        self.send_response(status); self.send_header('content-length', str(len(text)))
        self.send_header('content-type', 'application/json'); self.end_headers()
        self.wfile.write(text.encode())
    do_POST = do_PUT = do_DELETE = do_GET = answer
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Plane)
print(server.server_address[1], flush=True); server.serve_forever()"#;

const CONFIG: &str = "[Interface]\nAddress = 100.64.0.2/32\n\n[Peer]\n\
    PublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nEndpoint = 127.0.0.1:9\n\
    AllowedIPs = 10.64.0.0/22\n";

/// What the machine does with such a control plane: exit code, what it said, and what it asked.
fn with_plane(config: &str, renewal: u16) -> (Answer, String, Net, Home) {
    let net = Net::new();
    let home = net.home();
    let log = home.dir.path().join("asked");
    let directory = home.dir.path().join(".config/createos");
    fs::create_dir_all(&directory).expect("a directory");
    let identity = json!({
        "id": "dev-1", "name": "laptop", "client_ip": "100.64.0.2",
        "public_key": "", "private_key": "cHJpdmF0ZXByaXZhdGVwcml2YXRlcHJpdmF0ZXByaXY=",
    });
    fs::write(directory.join("device.json"), identity.to_string()).expect("write");
    let mut plane = Command::new("nsenter");
    plane.args(["-t", &net.0.id().to_string(), "--net", "python3", "-c", PLANE, config]);
    plane.arg(renewal.to_string()).arg(&log).stdout(Stdio::piped());
    let mut plane = plane.spawn().expect("python3");
    let mut port = String::new();
    let output = plane.stdout.as_mut().expect("its output");
    BufReader::new(output).read_line(&mut port).expect("a port");
    let mut command = home.command(&["sandbox", "vpn", "up", "--output", "table", "--debug"]);
    command.env("CREATEOS_SANDBOX_URL", format!("http://127.0.0.1:{}", port.trim()));
    command.env("CREATEOS_API_KEY", "skp_test_0123456789");
    let ended = Answer::of(command.output().expect("the program runs"));
    let _ = plane.kill();
    let _ = plane.wait();
    let asked = fs::read_to_string(log).unwrap_or_default();
    assert!(!format!("{ended:?}").contains("cHJpdmF0"), "the key is not shown: {ended:?}");
    (ended, asked, net, home)
}

#[test]
fn a_session_that_cannot_be_renewed_is_taken_down() {
    let (ended, asked, net, _home) = with_plane(CONFIG, 500);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("connected as laptop"), "{ended:?}");
    assert!(ended.stderr.contains("was not renewed"), "{ended:?}");
    assert!(!net.has_tunnel());
    assert!(asked.contains("DELETE /v1/devices/dev-1/sessions/ses-1"), "{asked}");
    drop(net);

    let (ended, asked, net, _home) = with_plane(CONFIG, 404);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the session has ended"), "{ended:?}");
    assert!(!net.has_tunnel());
    assert!(!asked.contains("DELETE"), "{asked}");
}

#[test]
fn a_server_runs_nothing_on_this_machine() {
    let config = CONFIG.replace("[Peer]", "PostUp = touch /tmp/createos-owned\n[Peer]");
    let (ended, asked, net, _home) = with_plane(&config, 200);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("postup"), "{ended:?}");
    assert!(!net.has_tunnel());
    assert!(!std::path::Path::new("/tmp/createos-owned").exists());
    assert!(asked.contains("DELETE"), "the session is given back: {asked}");
}

#[test]
fn devices_are_removed_one_at_a_time_and_after_a_question() {
    let home = Home::new();
    let _engine = home.serve();
    let refused = answer(&home, &["sandbox", "devices", "remove", "laptop", "-o", "json"]);
    assert_eq!((refused.code, &refused.error()["code"]), (Some(2), &json!("usage")));
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("laptop --force"));
    let missing = answer(&home, &["sandbox", "devices", "remove", "-o", "json"]);
    assert_eq!(missing.code, Some(2));
    let unknown = answer(&home, &["sandbox", "devices", "rm", "laptop", "-y", "-o", "json"]);
    assert_eq!((unknown.code, &unknown.error()["code"]), (Some(1), &json!("not_found")));

    let twins: Vec<String> = (0..2)
        .map(|_| {
            let made = home.json(&["sandbox", "devices", "register", "twin"]);
            fs::remove_file(home.dir.path().join(".config/createos/device.json")).expect("a file");
            made["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    let both = answer(&home, &["sandbox", "devices", "remove", "twin", "--force", "-o", "json"]);
    assert_eq!(both.code, Some(2));
    assert!(twins.iter().all(|id| both.stdout.contains(id)), "{both:?}");

    for (keys, left) in [("\r", 2), ("y\r", 1)] {
        let command = home.command(&["sandbox", "devices", "remove"]);
        let mut asked = Terminal::start(&command, 100);
        asked.expect("which device?");
        asked.expect("twin");
        asked.send("\r");
        asked.expect("delete the device twin");
        asked.send(keys);
        assert_eq!(asked.end().1, Some(0));
        let rows = home.json(&["sandbox", "devices", "list"]);
        assert_eq!(rows.as_array().expect("rows").len(), left);
    }

    // Without its tools, a machine is told what to get; and nothing is half there.
    let mut command = home.command(&["sandbox", "devices", "register", "-o", "json"]);
    let without = Answer::of(command.env("PATH", "/nowhere").output().expect("the program runs"));
    assert_eq!(without.code, Some(1));
    assert!(without.error()["hint"].as_str().expect("a hint").contains("wireguard-tools"));

    // Where the control plane is gone, the key of this machine goes all the same.
    home.json(&["sandbox", "devices", "register"]);
    let file = home.dir.path().join(".config/createos/device.json");
    let mut command = home.command(&["sandbox", "devices", "unregister", "-o", "table"]);
    command.env("CREATEOS_SANDBOX_URL", "http://127.0.0.1:9");
    let gone = Answer::of(command.output().expect("the program runs"));
    assert_eq!(gone.code, Some(0), "{gone:?}");
    assert!(gone.stderr.contains("devices remove dev-"), "{gone:?}");
    assert!(!file.exists());
    fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
    fs::write(&file, "{").expect("write");
    let broken = answer(&home, &["sandbox", "vpn", "up", "-o", "json"]);
    assert_eq!(broken.code, Some(1));
    assert!(broken.stdout.contains("cannot be understood"), "{broken:?}");
}
