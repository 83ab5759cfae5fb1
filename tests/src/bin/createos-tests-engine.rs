//! An engine in a process of its own, for tests that kill it: says where it is, and serves
//! until its input ends. A second argument is the address that it listens at.

use std::error::Error;
use std::path::PathBuf;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let data_dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("name a directory")?;
    let mut engine = createos_local::Engine::builder().data_dir(data_dir);
    if let Some(listen) = std::env::args().nth(2) {
        engine = engine.listen(listen.parse()?);
    }
    let engine = engine.start().await?;
    println!("{} {}", engine.url(), engine.api_key().expose());
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
    engine.shutdown().await;
    Ok(())
}
