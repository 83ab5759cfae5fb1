//! A desktop, used like a person: look, click, type.
//!
//! With a file name after `--`, the last picture is stored there.
//!
//! ```sh
//! cargo run -p examples --example desktop -- picture.png
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::computer::Computer;
use createos_sdk::wire::WindowView;
use createos_sdk::{Client, ErrorKind, Sandbox};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(desktop).await
}

async fn desktop(client: Client) -> examples::Result {
    let creating = client.create_sandbox("s-2vcpu-4gb").rootfs("desktop:1");
    let sandbox = creating.guarded().await?;
    let computer = sandbox.computer();
    // It starts after the sandbox runs.
    let size = computer.wait_until_ready().await?;
    println!("a desktop of {} by {}", size.width, size.height);
    let before = computer.screenshot().await?;
    println!("a picture of it: {} bytes of PNG", before.len());

    computer.launch("xterm").await?;
    let window = timeout(PATIENCE, terminal_window(&computer)).await??;
    println!("a window: {}", window.title.as_deref().unwrap_or("without a title"));

    // Into its middle, so that it has the keyboard.
    let place = computer.window(window.id).geometry().await?;
    let (x, y) = (place.x + place.width as i32 / 2, place.y + place.height as i32 / 2);
    computer.mouse().click().at(x, y).await?;
    computer.keyboard().type_text("echo typed by hand >/tmp/typed").await?;
    computer.keyboard().press(["Return"]).await?;

    let typed = timeout(PATIENCE, file(&sandbox, "/tmp/typed")).await??;
    print!("a file has come of it: {typed}");

    let after = computer.screenshot().await?;
    println!("the screen has changed: {}", before != after);
    if let Some(path) = std::env::args_os().nth(1) {
        std::fs::write(&path, &after)?;
        println!("stored in {}", path.display());
    }
    sandbox.close().await?;
    Ok(())
}

async fn terminal_window(computer: &Computer) -> createos_sdk::Result<WindowView> {
    loop {
        if let Some(window) = computer.windows().application("xterm").await?.pop() {
            return Ok(window);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The content of a file, once it is there and not empty.
async fn file(sandbox: &Sandbox, path: &str) -> createos_sdk::Result<String> {
    loop {
        match sandbox.files().read_string(path).await {
            Ok(text) if !text.is_empty() => return Ok(text),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}
