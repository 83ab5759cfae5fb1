//! A web server inside a sandbox, reached from here: without opening anything to the outside.
//!
//! ```sh
//! cargo run -p examples --example tunnel
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::{Client, ErrorKind, Sandbox, TunnelEvent};
use tokio::time::{sleep, timeout};

const PORT: u16 = 8000;

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(tunnel).await
}

async fn tunnel(client: Client) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    sandbox.files().write("/srv/index.html", "<h1>hello from inside</h1>\n").await?;

    // It listens on the sandbox's own loopback, and runs for as long as it is waited for.
    let port = PORT.to_string();
    let server = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv", &port];
    let mut server = sandbox.command("python3").args(server).status();
    tokio::select! {
        page = first_page(&sandbox) => print!("through sandbox.http: {}", page?),
        ended = &mut server => return Err(format!("the server ended: {}", ended?).into()),
    }

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

    drop(server);
    sandbox.close().await?;
    Ok(())
}

/// The server takes a moment to listen.
async fn first_page(sandbox: &Sandbox) -> examples::Result<String> {
    let asking = async {
        loop {
            match sandbox.http(PORT).get("/").await {
                Ok(answer) => return answer.text().await,
                // Nothing listens yet: one plane says so, another opens and closes.
                Err(error) if matches!(error.kind(), ErrorKind::Server | ErrorKind::Connection) => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error),
            }
        }
    };
    let page = timeout(Duration::from_secs(20), asking).await;
    Ok(page.map_err(|_| "the server did not listen within 20 s")??)
}
