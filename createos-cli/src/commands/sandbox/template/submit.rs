//! `createos sandbox template submit`.

use std::path::{Path, PathBuf};

use clap::Args;
use createos_sdk::wire::TemplateStatus;
use createos_sdk::{Client, Template};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::follow::{self, Sink};
use super::{lint, named};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::{output, prompt, value};

/// What is read of a Dockerfile; servers take far less.
const MAX_BYTES: u64 = 1024 * 1024;

/// Build an image from a Dockerfile, and follow its log
///
/// The Dockerfile is all that is sent: one FROM, no COPY or ADD. The build goes
/// on when this command is interrupted.
#[derive(Args)]
#[command(
    visible_alias = "build",
    alias = "create",
    before_help = "\
Examples:
  createos sandbox template submit my-rails -f Dockerfile
  createos sandbox template submit my-rails --no-follow
  generate | createos sandbox template submit my-rails -f -"
)]
pub(super) struct SubmitArgs {
    /// Its name [default: ask on a terminal]
    #[arg(value_parser = value::text)]
    name: Option<String>,

    /// The Dockerfile; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "Dockerfile")]
    file: PathBuf,

    /// Return as soon as the server has accepted it
    #[arg(long)]
    no_follow: bool,
}

pub(super) async fn run(args: SubmitArgs, ctx: &Context) -> Result<Exit, Failure> {
    let dockerfile = read(&args.file, ctx).await?;
    let Some(name) = name(args.name, ctx).await? else { return Ok(Exit::Success) };
    for warning in lint::warnings(&dockerfile) {
        ctx.out.warn(&format!("{}: {warning}", args.file.display()));
    }
    let template = submit(&ctx.plane()?.client, &name, dockerfile).await?;
    let view = super::view(&template)?;
    let label = named(&view).label();
    if args.no_follow {
        ctx.out.result(&document(&template)?, || format!("{label}: {}", view.status))?;
        let name = named(&view).handle().to_owned();
        ctx.out.hint(&format!("follow it: createos sandbox template logs {name} --follow"));
        return Ok(Exit::Success);
    }
    let sink = if ctx.out.is_json() { Sink::Stderr } else { Sink::Stdout };
    if sink == Sink::Stdout {
        ctx.out.text(format!("{label}: {}", view.status))?;
    }
    let status = follow::follow(ctx, &template, sink).await?;
    // Says the size and when it was built; the end of the log is what counts.
    let _ = template.refresh().await;
    ended(ctx, &template, &status)
}

async fn submit(client: &Client, name: &str, dockerfile: String) -> Result<Template, Failure> {
    let submitted = client.create_template(name, dockerfile).await;
    submitted.map_err(|error| {
        let unsure = error.may_have_acted();
        let failure = Failure::from(error);
        match failure.class() {
            _ if unsure => {
                failure.hint("it may be there all the same: createos sandbox template ls")
            }
            Some(Class::BadRequest) => failure.hint("check the name and the Dockerfile"),
            _ => failure,
        }
    })
}

/// One document or one line, and the exit code.
fn ended(ctx: &Context, template: &Template, status: &TemplateStatus) -> Result<Exit, Failure> {
    let mut document = document(template)?;
    document["status"] = json!(status);
    let named = named(&*super::view(template)?);
    let ready = *status == TemplateStatus::Ready;
    ctx.out.result(&document, || match ready {
        true => format!("{} is ready", named.label()),
        false => String::new(),
    })?;
    if !ready {
        ctx.complain(&follow::failed(template, status));
        return Ok(Exit::Code(1));
    }
    let name = named.handle();
    ctx.out.hint(&format!("use it: createos sandbox create --shape <id> --rootfs {name}"));
    Ok(Exit::Success)
}

fn document(template: &Template) -> Result<serde_json::Value, Failure> {
    let view = super::view(template)?;
    let curated = [
        ("action", json!("template_submitted")),
        ("id", json!(view.id)),
        ("name", json!(view.name)),
        ("status", json!(view.status)),
    ];
    output::document(&curated, &*view)
}

async fn name(name: Option<String>, ctx: &Context) -> Result<Option<String>, Failure> {
    if name.is_some() {
        return Ok(name);
    }
    if !ctx.interactive() {
        return Err(Failure::usage("the template's name is missing")
            .hint("createos sandbox template submit my-image -f Dockerfile"));
    }
    let name = prompt::line("name of the template").await?;
    if name.is_empty() {
        ctx.out.note("nothing was submitted");
        return Ok(None);
    }
    Ok(Some(name))
}

async fn read(file: &Path, ctx: &Context) -> Result<String, Failure> {
    if file == Path::new("-") {
        if ctx.out.terminal().stdin {
            return Err(Failure::usage("standard input is a terminal; pipe a Dockerfile into it"));
        }
        return text("standard input", tokio::io::stdin()).await;
    }
    let name = file.display().to_string();
    let opened = tokio::fs::File::open(file).await;
    let opened = opened.map_err(|error| {
        Failure::io(format!("cannot open {name}"), &error)
            .hint("name the Dockerfile: createos sandbox template submit <name> -f <file>")
    })?;
    text(&name, opened).await
}

async fn text(name: &str, source: impl AsyncRead + Unpin) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(MAX_BYTES + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Failure::io(format!("cannot read {name}"), &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::local(format!("{name} is larger than 1 MiB")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::local(format!("{name} is not UTF-8 text")))?;
    match text.trim() {
        "" => Err(Failure::local(format!("{name} is empty"))),
        _ => Ok(text),
    }
}
