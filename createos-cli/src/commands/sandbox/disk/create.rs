//! `createos sandbox disk create`.

use clap::Args;
use createos_sdk::wire::{DiskConfig, DiskCredentials};
use tokio::io::AsyncReadExt;

use super::named;
use crate::commands::Exit;
use crate::context::{Context, environment};
use crate::failure::{Class, Failure};
use crate::output::format;
use crate::{output, prompt, value};

const ACCESS_KEY: &str = "CREATEOS_DISK_ACCESS_KEY";
const SECRET_KEY: &str = "CREATEOS_DISK_SECRET_KEY";
/// More than any key has.
const MAX_SECRET: u64 = 64 * 1024;

/// Register an S3 bucket as a disk
///
/// The server tries the bucket at once, so wrong keys are refused here. The keys
/// are stored by the control plane and never shown again.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox disk create my-disk --bucket my-bucket \\
      --endpoint https://s3.example.org --access-key AK… --secret-key - < key
  createos sandbox disk create minio --bucket data --path-style \\
      --endpoint https://minio.example.org --access-key AK… --secret-key …")]
pub(super) struct CreateArgs {
    /// Its name: a-z, 0-9 and -, at most 63 [default: ask on a terminal]
    #[arg(value_parser = value::text)]
    name: Option<String>,

    /// The bucket
    #[arg(long, value_name = "BUCKET", value_parser = value::text)]
    bucket: Option<String>,

    /// Address of the S3 service
    #[arg(long, value_name = "URL", value_parser = value::text)]
    endpoint: Option<String>,

    /// Access key [env: CREATEOS_DISK_ACCESS_KEY]
    #[arg(long, value_name = "KEY")]
    access_key: Option<String>,

    /// Secret key; - reads it from standard input, which other users of this
    /// machine cannot see [env: CREATEOS_DISK_SECRET_KEY]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    secret_key: Option<String>,

    /// Region of the service [default: the service's]
    #[arg(long, value_name = "REGION", value_parser = value::text)]
    region: Option<String>,

    /// Put the bucket into the path instead of the host name, for MinIO and most
    /// self-hosted services
    #[arg(long)]
    path_style: bool,
}

/// What is needed to make a disk.
struct Wanted {
    name: String,
    bucket: String,
    endpoint: String,
    access_key: String,
    secret_key: String,
}

pub(super) async fn run(args: CreateArgs, ctx: &Context) -> Result<Exit, Failure> {
    let (region, path_style) = (args.region.clone(), args.path_style);
    let Some(wanted) = wanted(args, ctx).await? else {
        ctx.out.note("nothing was created");
        return Ok(Exit::Success);
    };
    let mut config = DiskConfig::new(wanted.bucket, wanted.endpoint);
    if let Some(region) = region {
        config = config.in_region(region);
    }
    if path_style {
        config = config.path_style();
    }
    let keys = DiskCredentials::new(wanted.access_key, wanted.secret_key);
    let disk = ctx.plane()?.client.create_disk(wanted.name, config, keys).await.map_err(refused)?;
    let view = disk.view();
    let view = view.as_deref().ok_or_else(|| Failure::local("the server describes no disk"))?;
    let named = named(view);
    let curated = [
        ("action", "disk_created".into()),
        ("id", named.id.clone().into()),
        ("name", named.name.clone().into()),
    ];
    let document = output::document(&curated, view)?;
    ctx.out.result(&document, || {
        let rows =
            [("bucket", view.config.bucket.clone()), ("endpoint", view.config.endpoint.clone())];
        format::details(&format!("Created disk {}", named.label()), &rows)
    })?;
    let name = named.handle();
    ctx.out.hint(&format!("next: createos sandbox disk attach <sandbox> {name}:/mnt/{name}"));
    Ok(Exit::Success)
}

fn refused(error: createos_sdk::Error) -> Failure {
    let unsure = error.may_have_acted();
    let failure = Failure::from(error);
    if unsure {
        return failure.hint("it may be there all the same: createos sandbox disk ls");
    }
    match failure.class() {
        Some(Class::BadRequest) => failure.hint(
            "check the name, bucket, endpoint and keys; MinIO and most self-hosted services\n\
             need --path-style",
        ),
        _ => failure,
    }
}

/// Everything from flags and environment, the rest from questions; `None` when a question
/// was left empty.
async fn wanted(args: CreateArgs, ctx: &Context) -> Result<Option<Wanted>, Failure> {
    let from = |flag: Option<String>, variable| {
        let flag = flag.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        flag.or_else(|| environment(&[variable]).map(|(_, value)| value))
    };
    let on_the_line = args.secret_key.as_deref().is_some_and(|key| !matches!(key.trim(), "" | "-"));
    let piped = args.secret_key.as_deref().map(str::trim) == Some("-");
    let parts = [
        ("<name>", args.name),
        ("--bucket", args.bucket),
        ("--endpoint", args.endpoint),
        ("--access-key", from(args.access_key, ACCESS_KEY)),
        ("--secret-key", from(args.secret_key, SECRET_KEY)),
    ];
    let missing: Vec<&str> =
        parts.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() && !ctx.interactive() {
        return Err(Failure::usage(format!("missing: {}", missing.join(", ")))
            .hint(format!("the keys may also come from {ACCESS_KEY} and {SECRET_KEY}")));
    }
    if on_the_line {
        ctx.out.warn(
            "other users of this machine can see the secret key on the command line; \
             --secret-key - reads it from standard input",
        );
    }
    let mut values = Vec::new();
    for (name, value) in parts {
        let value = match value {
            Some(_) if name == "--secret-key" && piped => Some(piped_secret(ctx).await?),
            Some(value) => Some(value),
            None => ask(name).await?,
        };
        let Some(value) = value else { return Ok(None) };
        values.push(value);
    }
    let Ok([name, bucket, endpoint, access_key, secret_key]) = <[String; 5]>::try_from(values)
    else {
        return Ok(None);
    };
    Ok(Some(Wanted { name, bucket, endpoint, access_key, secret_key }))
}

async fn ask(name: &str) -> Result<Option<String>, Failure> {
    let answer = match name {
        "<name>" => prompt::line("name of the disk").await?,
        "--bucket" => prompt::line("bucket").await?,
        "--endpoint" => prompt::line("address of the S3 service").await?,
        "--access-key" => prompt::line("access key").await?,
        _ => prompt::secret("secret key").await?,
    };
    Ok(Some(answer).filter(|answer| !answer.is_empty()))
}

async fn piped_secret(ctx: &Context) -> Result<String, Failure> {
    if ctx.out.terminal().stdin {
        return Err(Failure::usage(
            "standard input is a terminal; leave --secret-key out to be asked for it",
        ));
    }
    let mut text = String::new();
    let read = tokio::io::stdin().take(MAX_SECRET).read_to_string(&mut text).await;
    read.map_err(|error| Failure::io("cannot read the secret key from standard input", &error))?;
    match text.trim() {
        "" => Err(Failure::usage("standard input holds no secret key")),
        key => Ok(key.to_owned()),
    }
}
