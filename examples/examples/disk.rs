//! An S3 bucket as a directory: one sandbox writes, another one reads.
//!
//! The bucket is named by `S3_BUCKET`, `S3_ENDPOINT`, `S3_REGION`, `AWS_ACCESS_KEY_ID` and
//! `AWS_SECRET_ACCESS_KEY`. Without them it is the bucket `createos` of a MinIO on this machine
//! with its usual keys. The plane must be able to reach it.
//!
//! ```sh
//! cargo run -p examples --example disk
//! ```

use std::process::ExitCode;

use createos_sdk::wire::{DiskConfig, DiskCredentials};
use createos_sdk::{Client, Disk, Sandbox};

const MOUNT: &str = "/mnt/data";

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(disk).await
}

async fn disk(client: Client) -> examples::Result {
    let (config, credentials) = bucket();
    println!("bucket {} at {}", config.bucket, config.endpoint);
    let name = format!("example-{}", std::process::id());
    // The server tries the bucket at once, and keeps the keys: no sandbox ever sees them.
    // Guarded: the disk is removed whatever comes of it; the bucket and what is in it stay.
    let disk = client.create_disk(&name, config, credentials).guarded().await?;
    println!("disk {name}");
    let path = format!("{MOUNT}/{name}.txt");

    let writer = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    write(&writer, &disk, &path).await?;
    writer.close().await?;

    let creating = client.create_sandbox("s-1vcpu-1gb").disk(disk.id().clone(), MOUNT);
    let reader = creating.guarded().await?;
    print!("the reader found: {}", read(&reader, &path).await?);
    reader.close().await?;

    disk.close().await?;
    println!("disk removed");
    Ok(())
}

fn bucket() -> (DiskConfig, DiskCredentials) {
    let env = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let endpoint = env("S3_ENDPOINT", "http://127.0.0.1:9000");
    let config = DiskConfig::new(env("S3_BUCKET", "createos"), endpoint)
        .in_region(env("S3_REGION", "us-east-1"))
        .path_style();
    let access_key = env("AWS_ACCESS_KEY_ID", "minioadmin");
    let secret_key = env("AWS_SECRET_ACCESS_KEY", "minioadmin");
    (config, DiskCredentials::new(access_key, secret_key))
}

async fn write(sandbox: &Sandbox, disk: &Disk, path: &str) -> examples::Result {
    sandbox.attach_disk(disk.id(), MOUNT).await?;
    for row in sandbox.disks().await? {
        println!("the writer has {} at {}: {}", row.kind, row.mount_path, row.mount_status);
    }
    // Commands, not the files API: the file belongs to the mount and not to the sandbox.
    let write = format!("echo 'written in one sandbox' >{path}");
    sandbox.command("sh").args(["-c", &write]).await?.ensure_success()?;
    // What was written is in the bucket when this returns.
    sandbox.detach_disk(disk.id(), MOUNT).await?;
    Ok(())
}

async fn read(sandbox: &Sandbox, path: &str) -> examples::Result<String> {
    // It was given when the sandbox was created, and is there some seconds after.
    sandbox.wait_until_mounted(MOUNT).await?;
    let output = sandbox.command("cat").arg(path).await?.ensure_success()?;
    sandbox.command("rm").arg(path).await?.ensure_success()?;
    Ok(output.stdout_str()?.to_owned())
}
