//! A private network: two sandboxes that reach each other by name, and nobody else can.
//!
//! ```sh
//! cargo run -p examples --example network
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::{Client, Network, Sandbox};
use tokio::time::{sleep, timeout};

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(network).await
}

async fn network(client: Client) -> examples::Result {
    let name = format!("example-{}", std::process::id());
    let network = client.create_network(&name).await?;
    println!("network {name}");
    // It is removed whatever comes of it, and only then is told what came of it.
    let outcome = with_two_sandboxes(&client, &network).await;
    let removed = network.delete().await;
    outcome?;
    removed?;
    println!("network removed");
    Ok(())
}

async fn with_two_sandboxes(client: &Client, network: &Network) -> examples::Result {
    let create = || client.create_sandbox("s-1vcpu-1gb").network(network.id().clone()).guarded();
    let (server, visitor) = tokio::try_join!(create().into_future(), create().into_future())?;
    let outcome = talk(&server, &visitor, network).await;
    // A network goes after its members.
    server.close().await?;
    visitor.close().await?;
    outcome
}

async fn talk(server: &Sandbox, visitor: &Sandbox, network: &Network) -> examples::Result {
    println!("their addresses on it: {}", addresses(network).await?.join(", "));

    server.files().write("/srv/greeting", "hello from the other sandbox\n").await?;
    let serve = ["-m", "http.server", "--directory", "/srv", "8000"];
    let mut serving = server.command("python3").args(serve).status();
    tokio::select! {
        greeting = fetch(visitor, format!("http://{}.fc.local:8000/greeting", server.id())) => {
            print!("the visitor read: {}", greeting?);
        }
        ended = &mut serving => return Err(format!("the server ended: {}", ended?).into()),
    }

    // Whoever has left is not heard any more.
    visitor.detach_network(network.id()).await?;
    println!("members after one has left: {}", network.refresh().await?.members.len());
    Ok(())
}

/// Addresses are there some seconds after the sandboxes run.
async fn addresses(network: &Network) -> examples::Result<Vec<String>> {
    let asking = async {
        loop {
            let view = network.refresh().await?;
            let addresses: Vec<_> = view.members.iter().flat_map(|it| it.ip.clone()).collect();
            if addresses.len() == 2 {
                return Ok::<_, createos_sdk::Error>(addresses);
            }
            sleep(Duration::from_millis(250)).await;
        }
    };
    Ok(timeout(Duration::from_secs(30), asking).await??)
}

/// Asks until the server listens.
async fn fetch(visitor: &Sandbox, url: String) -> examples::Result<String> {
    let script = format!(
        "import time, urllib.request, urllib.error\n\
         for _ in range(100):\n\
         \x20   try: print(urllib.request.urlopen('{url}', timeout=5).read().decode(), end=''); break\n\
         \x20   except urllib.error.URLError: time.sleep(0.1)\n\
         else: raise SystemExit('nobody answers at {url}')\n"
    );
    let output = visitor.command("python3").args(["-c", &script]).await?.ensure_success()?;
    Ok(output.stdout_str()?.to_owned())
}
