//! The questions of `create` without a size. What a flag said is not asked.

use std::path::{Path, PathBuf};

use createos_sdk::wire::{RootfsCatalog, Shape, TemplateStatus};
use createos_sdk::{Client, Template};

use super::CreateArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;
use crate::prompt;
use crate::value::duration::{self, AutoPause};
use crate::value::ssh_key;

/// Fills in what is missing; `false` when nothing is to be created.
///
/// # Errors
/// [`Failure::Left`] when a question was left.
pub(super) async fn complete(
    args: &mut CreateArgs,
    keys: &mut Vec<String>,
    ctx: &Context,
) -> Result<bool, Failure> {
    let client = &ctx.plane()?.client;
    let shape = size(client).await?;
    if args.name.is_none() {
        let name = prompt::line("name (empty: the server chooses)").await?;
        args.name = Some(name).filter(|name| !name.is_empty());
    }
    if args.rootfs.is_none() {
        args.rootfs = image(ctx, client).await?;
    }
    if !args.ingress {
        args.ingress = prompt::confirm("give it a public HTTPS address?", false).await?;
    }
    if args.network.is_empty() {
        args.network = networks(client).await?;
    }
    if args.ssh_key.is_empty() {
        *keys = ssh_keys(ctx).await?;
    }
    if args.auto_pause.is_none() {
        args.auto_pause = auto_pause(ctx).await?;
    }
    args.shape = Some(shape.id.clone());
    ctx.out.note(&summary(args, &shape, keys.len()));
    prompt::confirm("create it?", true).await
}

async fn size(client: &Client) -> Result<Shape, Failure> {
    let mut shapes = client.shapes().await?;
    if shapes.is_empty() {
        return Err(Failure::local("this control plane offers no sizes"));
    }
    shapes.sort_by(|a, b| (a.mem_mib, a.vcpu, &a.id).cmp(&(b.mem_mib, b.vcpu, &b.id)));
    let widest = shapes.iter().map(|shape| shape.id.len()).max().unwrap_or_default();
    let row = |shape: &Shape| {
        let (vcpu, ram, disk) = (shape.vcpu, shape.mem_mib, shape.default_disk_mib);
        format!("{:<widest$}  {vcpu:>2} vCPU  {ram:>6} MiB RAM  {disk:>7} MiB disk", shape.id)
    };
    let rows = shapes.iter().map(row).collect();
    let chosen = prompt::choose("which size?", rows, 0).await?.ok_or(Failure::Left)?;
    Ok(shapes.swap_remove(chosen))
}

/// `None` is the server's default, also where the catalog cannot be had or nothing is picked.
async fn image(ctx: &Context, client: &Client) -> Result<Option<String>, Failure> {
    let Ok(catalog) = client.rootfs().await else {
        ctx.out.note("the images cannot be listed; the server's default is taken");
        return Ok(None);
    };
    // Templates are an extra of some servers.
    let own = client.templates().await.unwrap_or_default();
    let mut rows = vec![(None, format!("server default ({})", catalog.default))];
    rows.extend(offered(&catalog));
    rows.extend(own.iter().filter_map(built));
    let labels = rows.iter().map(|(_, label)| label.clone()).collect();
    match prompt::choose("which image?", labels, 0).await? {
        Some(chosen) => Ok(rows.swap_remove(chosen).0),
        None => {
            ctx.out.note("the server's default image is taken");
            Ok(None)
        }
    }
}

/// Names and what they are called in the picker.
type Row = (Option<String>, String);

fn offered(catalog: &RootfsCatalog) -> Vec<Row> {
    let plain = |name: &String| (Some(name.clone()), name.clone());
    if catalog.entries.is_empty() {
        return catalog.rootfs.iter().map(plain).collect();
    }
    let entries = catalog.entries.iter().filter(|entry| !entry.deprecated);
    entries
        .map(|entry| match &entry.description {
            Some(text) => (Some(entry.name.clone()), format!("{}   {text}", entry.name)),
            None => plain(&entry.name),
        })
        .collect()
}

fn built(template: &Template) -> Option<Row> {
    let view = template.view()?;
    let ready = view.status == TemplateStatus::Ready;
    ready.then(|| (Some(view.name.clone()), format!("{}   your template", view.name)))
}

async fn networks(client: &Client) -> Result<Vec<String>, Failure> {
    let networks = client.networks().await.unwrap_or_default();
    let views: Vec<_> = networks.iter().filter_map(|network| network.view()).collect();
    if views.is_empty() {
        return Ok(Vec::new());
    }
    let rows = views.iter().map(|view| format!("{}   (id: {})", view.name, view.id)).collect();
    let chosen = prompt::choose_several("join which networks?", rows).await?;
    let chosen = chosen.ok_or(Failure::Left)?;
    Ok(chosen.into_iter().map(|at| views[at].id.to_string()).collect())
}

async fn ssh_keys(ctx: &Context) -> Result<Vec<String>, Failure> {
    ctx.out.note("an SSH key is needed only for shell --ssh, sync and editors");
    let files = key_files(ctx.paths.home());
    if files.is_empty() {
        return key_from_path(ctx).await;
    }
    let rows = files.iter().map(|path| path.display().to_string()).collect();
    let chosen = prompt::choose_several("admit which SSH keys?", rows).await?;
    let chosen: Vec<PathBuf> =
        chosen.ok_or(Failure::Left)?.into_iter().map(|at| files[at].clone()).collect();
    ssh_key::read_all(&chosen, None)
}

/// Public keys in `~/.ssh`, by name.
fn key_files(home: Option<&Path>) -> Vec<PathBuf> {
    let entries = home.and_then(|home| std::fs::read_dir(home.join(".ssh")).ok());
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let public = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "pub")
            && ssh_key::read_all(std::slice::from_ref(path), None).is_ok()
    };
    let mut files: Vec<PathBuf> = paths.filter(public).collect();
    files.sort();
    files
}

async fn key_from_path(ctx: &Context) -> Result<Vec<String>, Failure> {
    let read = |text: &str| match text {
        "" => Ok(Vec::new()),
        path => ssh_key::read_all(&[PathBuf::from(path)], ctx.paths.home())
            .map_err(|failure| failure.message().to_owned()),
    };
    prompt::parsed(ctx, "file with a public key (empty: none)", read).await
}

async fn auto_pause(ctx: &Context) -> Result<Option<AutoPause>, Failure> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => duration::auto_pause(text).map(Some),
    };
    let question = "pause after which time without activity, for example 30m (empty: never)";
    prompt::parsed(ctx, question, parse).await
}

fn summary(args: &CreateArgs, shape: &Shape, keys: usize) -> String {
    let chosen =
        |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.to_owned());
    let auto_pause = match args.auto_pause {
        Some(AutoPause::After(idle)) => format!("after {}", duration::show(idle)),
        _ => "never".to_owned(),
    };
    let rows = [
        ("size", format!("{} ({} vCPU, {} MiB RAM)", shape.id, shape.vcpu, shape.mem_mib)),
        ("name", chosen(&args.name, "chosen by the server")),
        ("image", chosen(&args.rootfs, "server default")),
        ("public url", if args.ingress { "yes" } else { "no" }.to_owned()),
        ("networks", listed(&args.network)),
        ("ssh keys", keys.to_string()),
        ("auto-pause", auto_pause),
    ];
    format::details("new sandbox", &rows)
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
