//! A web server inside a sandbox, reached from here: without opening anything to the outside.
//!
//! ```sh
//! cargo run -p examples --example tunnel
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::{Client, TunnelEvent};

const PORT: u16 = 8000;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(tunnel).await
}

async fn tunnel(client: Client) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    sandbox.files().write("/srv/index.html", "<h1>hello from inside</h1>\n").await?;

    // It listens on the sandbox's own loopback, and ends with its guard.
    let port = PORT.to_string();
    let server = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv", &port];
    let server = sandbox.spawn("python3").args(server).guarded().await?;
    // It takes a moment to listen.
    sandbox.tunnel(PORT).wait_until_open().budget(PATIENCE).await?;

    let page = sandbox.http(PORT).get("/").await?;
    print!("through sandbox.http: {}", page.text().await?);
    let answer = sandbox.http(PORT).get("/missing").await?;
    println!("a page that is not there: status {}", answer.status());

    // A port of this machine, for any program on it.
    let tunnel = sandbox.tunnel(PORT).on_event(|event| match event {
        TunnelEvent::Closed { received, .. } => println!("a connection brought {received} bytes"),
        TunnelEvent::Failed { error, .. } => println!("a connection failed: {error}"),
        _ => {}
    });
    let web = tunnel.listen("127.0.0.1:0").await?;
    let url = format!("http://{}/", web.local_addr());
    println!("{url} leads to port {PORT} inside");
    let http = reqwest::Client::builder().no_proxy().build()?;
    let page = http.get(&url).send().await?.text().await?;
    drop(http);
    let cut = web.shutdown(Duration::from_secs(5)).await;
    print!("through the listener, {cut} connections cut at its end: {page}");

    server.close().await?;
    sandbox.close().await?;
    Ok(())
}
