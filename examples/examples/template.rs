//! A root filesystem of your own, built from a Dockerfile while its log streams.
//!
//! ```sh
//! cargo run -p examples --example template
//! ```

use std::process::ExitCode;

use createos_sdk::Client;
use createos_sdk::template::BuildEvent;
use createos_sdk::wire::TemplateStatus;
use futures::TryStreamExt;

/// One `FROM` an allowed base; nothing is copied in, for there is no build context.
const DOCKERFILE: &str = "\
FROM nodeops/sandbox:debian
ENV TOOLS=/opt/tools
RUN mkdir -p $TOOLS && echo 'echo hello from the template' >$TOOLS/greet
RUN chmod +x $TOOLS/greet
";

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(template).await
}

async fn template(client: Client) -> examples::Result {
    let name = format!("example-{}", std::process::id());
    // Guarded: it is removed whatever comes of it; sandboxes that were made from it would go on.
    let template = client.create_template(&name, DOCKERFILE).guarded().await?;
    println!("template {name}");
    let mut log = template.logs().follow().await?;
    while let Some(event) = log.try_next().await? {
        match event {
            BuildEvent::Line(line) => println!("  build| {}", line.text),
            BuildEvent::End(TemplateStatus::Ready) => println!("built"),
            BuildEvent::End(status) => return Err(format!("the build is {status}").into()),
            _ => {}
        }
    }
    // The log may end a moment before the template can be used.
    let view = template.wait_until_ready().await?;
    println!("{} bytes", view.ext4_size_bytes);

    let creating = client.create_sandbox("s-1vcpu-1gb").rootfs(template.id().as_str());
    let sandbox = creating.guarded().await?;
    let output = sandbox.command("sh").arg("/opt/tools/greet").await?.ensure_success()?;
    print!("a sandbox made from it says: {}", output.stdout_str()?);
    sandbox.close().await?;
    template.close().await?;
    println!("template removed");
    Ok(())
}
