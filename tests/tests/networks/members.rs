//! Sandboxes on private networks, and what they see of each other.

use createos_sdk::{Client, Network, Sandbox};
use createos_tests::sh;

pub(crate) const SHAPE: &str = "s-1vcpu-256mb";

/// Tries to connect, and says how that went: `open` where somebody says something, or the name
/// of the error. What leads outside is taken before it is known whether it may.
pub(crate) const CONNECT: &str = "import errno, socket, sys\n\
    s = socket.socket(); s.settimeout(3)\n\
    try: s.connect((sys.argv[1], int(sys.argv[2]))); print('open' if s.recv(1) else 'cut', end='')\n\
    except socket.timeout: print('silence', end='')\n\
    except OSError as e: print(errno.errorcode.get(e.errno, e), end='')";

/// Answers each connection with the address it sees at the other end. Its own queue holds five,
/// and who comes then waits for seconds.
pub(crate) const SERVE: &str = "import socketserver\n\
    class Tell(socketserver.BaseRequestHandler):\n\
    \tdef handle(self): self.request.sendall(self.client_address[0].encode())\n\
    socketserver.ThreadingTCPServer.allow_reuse_address = True\n\
    socketserver.ThreadingTCPServer.request_queue_size = 64\n\
    socketserver.ThreadingTCPServer(('0.0.0.0', 8000), Tell).serve_forever()";

pub(crate) async fn member(client: &Client, networks: &[&Network]) -> Sandbox {
    let mut create = client.create_sandbox(SHAPE);
    for network in networks {
        create = create.network(network.id().clone());
    }
    create.await.expect("a member")
}

pub(crate) async fn address(sandbox: &Sandbox, network: &Network) -> String {
    sandbox.wait_until_joined(network.id()).await.expect("an address").to_string()
}

pub(crate) async fn python(sandbox: &Sandbox, script: &str, args: &[&str]) -> String {
    let command = sandbox.command("python3").args(["-c", script]).args(args.iter().copied());
    let output = command.output().await.expect("exec");
    output.stdout_str().expect("text").to_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) async fn resume(sandbox: &Sandbox) {
    let resumed = sandbox.resume().await.map(drop);
    let now = sandbox.refresh().await.expect("a view");
    resumed.unwrap_or_else(|error| panic!("{error}: {:?}", now.status_reason));
}

pub(crate) async fn connect(from: &Sandbox, to: &str) -> String {
    python(from, CONNECT, &[to, "8000"]).await
}

pub(crate) async fn serve(sandbox: &Sandbox) {
    sandbox.files().write("/root/serve.py", SERVE.to_owned()).await.expect("write");
    let serve = "nohup python3 /root/serve.py >/dev/null 2>&1 </dev/null &";
    sh(sandbox, serve).await;
    sandbox.tunnel(8000).wait_until_open().await.expect("it serves");
}

/// What the server at an address says whom it sees.
pub(crate) async fn seen_by(from: &Sandbox, server: &str) -> String {
    let ask = "import socket, sys; \
               s = socket.create_connection((sys.argv[1], 8000), 5); print(s.recv(99).decode(), end='')";
    python(from, ask, &[server]).await
}
