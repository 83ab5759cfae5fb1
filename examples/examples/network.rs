//! A private network: two sandboxes that reach each other by name, and nobody else can.
//!
//! ```sh
//! cargo run -p examples --example network
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::{Client, Sandbox};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(network).await
}

async fn network(client: Client) -> examples::Result {
    let name = format!("example-{}", std::process::id());
    // Guarded: the network goes after its members, whatever comes of it.
    let network = client.create_network(&name).guarded().await?;
    println!("network {name}");
    let create = || client.create_sandbox("s-1vcpu-1gb").network(network.id().clone()).guarded();
    let (server, visitor) = tokio::try_join!(create(), create())?;
    for member in [&server, &visitor] {
        let address = member.wait_until_joined(network.id()).await?;
        println!("{} has the address {address} on it", member.id());
    }

    server.files().write("/srv/greeting", "hello from the other sandbox\n").await?;
    let serve = ["-m", "http.server", "--directory", "/srv", "8000"];
    let serving = server.spawn("python3").args(serve).guarded().await?;
    server.tunnel(8000).wait_until_open().budget(PATIENCE).await?;
    let url = format!("http://{}.fc.local:8000/greeting", server.id());
    print!("the visitor read: {}", fetch(&visitor, &url).await?);
    serving.close().await?;

    // Whoever has left is not heard any more.
    visitor.detach_network(network.id()).await?;
    println!("members after one has left: {}", network.refresh().await?.members.len());

    server.close().await?;
    visitor.close().await?;
    network.close().await?;
    println!("network removed");
    Ok(())
}

async fn fetch(visitor: &Sandbox, url: &str) -> examples::Result<String> {
    let script = "import sys, urllib.request as web; \
                  print(web.urlopen(sys.argv[1], timeout=20).read().decode(), end='')";
    let output = visitor.command("python3").args(["-c", script, url]).await?.ensure_success()?;
    Ok(output.stdout_str()?.to_owned())
}
