//! Files in and out: small ones, large ones with progress, whole directories.
//!
//! ```sh
//! cargo run -p examples --example files
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use createos_sdk::{Client, ErrorKind, Sandbox};

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(files).await
}

async fn files(client: Client) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    small_ones(&sandbox).await?;
    a_large_one(&sandbox).await?;
    a_directory(&sandbox).await?;
    sandbox.close().await?;
    Ok(())
}

async fn small_ones(sandbox: &Sandbox) -> examples::Result {
    let files = sandbox.files();
    // Parent directories are made.
    files.write("/workspace/notes/today.txt", "buy milk\n").await?;
    files.rename("/workspace/notes/today.txt", "/workspace/notes/done.txt").await?;
    print!("read back: {}", files.read_string("/workspace/notes/done.txt").await?);

    let info = files.stat("/workspace/notes/done.txt").await?;
    println!("{} bytes, mode {:o}", info.size, info.mode);
    for entry in files.list("/workspace/notes").await? {
        println!("listed: {}", entry.name_lossy());
    }

    files.remove_all("/workspace/notes").await?;
    match files.read("/workspace/notes/done.txt").await {
        Err(error) if error.kind() == ErrorKind::NotFound => println!("removed: not found now"),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("a removed file could be read".into()),
    }
    Ok(())
}

async fn a_large_one(sandbox: &Sandbox) -> examples::Result {
    let local = tempfile::tempdir()?;
    let (original, copy) = (local.path().join("original"), local.path().join("copy"));
    std::fs::write(&original, vec![7; 32 << 20])?;

    // A path and not its content: it is read while it is sent.
    let sent = Arc::new(AtomicU64::new(0));
    let seen = sent.clone();
    let upload = sandbox.files().write("/workspace/large", original.as_path());
    upload.progress(move |progress| seen.store(progress.bytes, Ordering::Relaxed)).await?;
    println!("{} MiB went in", sent.load(Ordering::Relaxed) >> 20);

    // The local file is there only once all of it has come.
    sandbox.files().download_to("/workspace/large", &copy).await?;
    println!("came back the same: {}", std::fs::read(&original)? == std::fs::read(&copy)?);
    Ok(())
}

async fn a_directory(sandbox: &Sandbox) -> examples::Result {
    let local = tempfile::tempdir()?;
    let project = local.path().join("project");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(project.join("README"), "a project\n")?;
    std::fs::write(project.join("src/numbers.txt"), "3\n1\n2\n")?;

    let moved = sandbox.files().upload_dir(&project, "/workspace/project").await?;
    println!("{} files of the project went in", moved.files);

    let build = "cd /workspace/project && mkdir out && sort src/numbers.txt >out/sorted.txt";
    sandbox.command("sh").args(["-c", build]).await?.ensure_success()?;

    let results = local.path().join("results");
    sandbox.files().download_dir("/workspace/project/out", &results).await?;
    let sorted = std::fs::read_to_string(results.join("sorted.txt"))?;
    println!("the result came out: {}", sorted.trim_end().replace('\n', " "));
    Ok(())
}
