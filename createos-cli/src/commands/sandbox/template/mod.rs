//! `createos sandbox template …`.

mod follow;
mod lint;
mod list;
mod logs;
mod rm;
mod show;
mod submit;

use clap::{Args, Subcommand};
use createos_sdk::wire::TemplateView;
use createos_sdk::{Client, Template};

use super::choose::{self, Named, TEMPLATE};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;

/// Build images of your own from Dockerfiles
#[derive(Args)]
#[command(
    visible_aliases = ["templates", "tpl"],
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox template submit my-rails -f Dockerfile
  createos sandbox template logs my-rails --follow
  createos sandbox create --shape s-1vcpu-1gb --rootfs my-rails"
)]
pub(super) struct TemplateArgs {
    #[command(subcommand)]
    command: TemplateCommand,
}

#[derive(Subcommand)]
enum TemplateCommand {
    Submit(submit::SubmitArgs),
    Ls(list::ListArgs),
    Show(show::ShowArgs),
    Logs(logs::LogsArgs),
    Rm(rm::RmArgs),
}

impl TemplateArgs {
    pub(super) fn writes_payload(&self) -> bool {
        match &self.command {
            TemplateCommand::Logs(_) => true,
            TemplateCommand::Ls(args) => args.quiet,
            _ => false,
        }
    }
}

pub(super) async fn run(args: TemplateArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        TemplateCommand::Submit(args) => submit::run(args, ctx).await,
        TemplateCommand::Ls(args) => list::run(args, ctx).await,
        TemplateCommand::Show(args) => show::run(args, ctx).await,
        TemplateCommand::Logs(args) => logs::run(args, ctx).await,
        TemplateCommand::Rm(args) => rm::run(args, ctx).await,
    }
}

/// Every template, newest first.
async fn all(client: &Client) -> createos_sdk::Result<Vec<TemplateView>> {
    let rows = client.templates().await?;
    let mut views: Vec<TemplateView> =
        rows.iter().filter_map(Template::view).map(|view| (*view).clone()).collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.created_at));
    Ok(views)
}

fn named(view: &TemplateView) -> Named {
    Named::new(view.id.as_str(), &*view.name)
}

/// The template that was typed, or picked; `None` when nothing was picked.
async fn chosen(ctx: &Context, text: Option<&str>) -> Result<Option<Template>, Failure> {
    let client = &ctx.plane()?.client;
    let rows = async || Ok(all(client).await?.iter().map(named).collect());
    let Some(choice) = choose::typed_or_picked(ctx, TEMPLATE, text, rows).await? else {
        return Ok(None);
    };
    let word = choice.key();
    let found = client.get_template(word).await;
    found.map(Some).map_err(|error| TEMPLATE.explain(word, error))
}

/// What the server last said of it.
fn view(template: &Template) -> Result<std::sync::Arc<TemplateView>, Failure> {
    template.view().ok_or_else(|| Failure::local("the server describes no template"))
}

/// Nothing until it is built.
fn size(view: &TemplateView) -> String {
    match view.ext4_size_bytes {
        0 => String::new(),
        bytes => format::bytes(bytes),
    }
}
