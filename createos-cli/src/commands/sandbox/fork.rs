//! `createos sandbox fork`.

use std::path::PathBuf;

use clap::Args;
use createos_sdk::wire::SandboxStatus;
use createos_sdk::{ForkSandbox, Sandbox};
use serde_json::{Value, json};

use super::made;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, format};
use crate::resolve::{self, Found, Rules};
use crate::value::env_pair::{self, EnvPair};
use crate::value::{self, ssh_key};
use crate::wait;

/// Clone a paused sandbox
///
/// A clone has the files, memory and processes of its source, and inherits
/// rules, keys, variables and the public address. Auto-pause, disks and
/// networks are not inherited, and the size may be another.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox fork my-box
  createos sandbox fork my-box --paused
  createos sandbox fork my-box --count 3 --env SEED=2")]
pub(super) struct ForkArgs {
    /// Name or id of a paused sandbox [default: ask on a terminal]
    sandbox: Option<String>,

    /// Leave the clone paused [default: it runs]
    #[arg(long)]
    paused: bool,

    /// Make this many clones [default: 1]
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// File with an SSH public key to admit instead of the inherited ones
    /// (repeatable)
    #[arg(long, value_name = "PATH")]
    ssh_key: Vec<PathBuf>,

    /// Environment variable, instead of all inherited ones (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = env_pair::parse)]
    env: Vec<EnvPair>,

    /// Give it a public HTTPS address [default: as its source]
    #[arg(long, help_heading = "Networking")]
    ingress: bool,

    /// Allow outbound traffic to this host only, instead of the inherited rules
    /// (repeatable, or a list with commas)
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = value::word,
          help_heading = "Networking")]
    egress: Vec<String>,
}

/// What is cloned, and with what.
struct Source<'a> {
    sandbox: Sandbox,
    found: Found,
    args: &'a ForkArgs,
    keys: Vec<String>,
}

pub(super) async fn run(args: ForkArgs, ctx: &Context) -> Result<Exit, Failure> {
    let keys = ssh_key::read_all(&args.ssh_key, ctx.paths.home())?;
    let rules = Rules::ACT.offering(&[SandboxStatus::Paused]);
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), rules).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let source = Source { sandbox, found, args: &args, keys };
    source.ready(ctx).await?;
    source.warn_of_disks(ctx).await;
    let mut made: Vec<Found> = Vec::new();
    let mut documents = Vec::new();
    for _ in 0..args.count {
        match source.clone_once(ctx, &mut made).await {
            Ok(document) => documents.push(document),
            Err(failure) => return Err(with_clones(failure, &made)),
        }
    }
    report(ctx, &source.found, &documents, &made)?;
    Ok(Exit::Success)
}

impl Source<'_> {
    /// Forking never stops a running workload by itself.
    async fn ready(&self, ctx: &Context) -> Result<(), Failure> {
        let (found, sandbox) = (&self.found, &self.sandbox);
        let view = sandbox.refresh().await.map_err(|error| found.explain(error))?;
        let handle = found.handle();
        match &view.status {
            SandboxStatus::Paused => Ok(()),
            SandboxStatus::Pausing => {
                wait::until(ctx, sandbox, found, SandboxStatus::Paused).await.map(drop)
            }
            SandboxStatus::Running => Err(Failure::local(format!(
                "{} is running; only a paused sandbox can be forked",
                found.label()
            ))
            .hint(format!("createos sandbox pause {handle}\ncreateos sandbox fork {handle}"))),
            other => Err(Failure::local(format!(
                "{} is {other}; only a paused sandbox can be forked",
                found.label()
            ))
            .hint(format!("look at it: createos sandbox get {}", found.id))),
        }
    }

    /// An extra: a server without disks is no reason to fail.
    async fn warn_of_disks(&self, ctx: &Context) {
        let disks = self.sandbox.disks().await.unwrap_or_default();
        if !disks.is_empty() {
            let disks: Vec<String> =
                disks.iter().map(|disk| format!("{} at {}", disk.name, disk.mount_path)).collect();
            ctx.out.warn(&format!("a clone starts without the disks: {}", disks.join(", ")));
        }
    }

    fn request(&self) -> ForkSandbox {
        let args = self.args;
        let mut request = self.sandbox.fork().no_wait();
        if args.paused {
            request = request.start_paused();
        }
        if args.ingress {
            request = request.ingress(true);
        }
        if !args.egress.is_empty() {
            request = request.egress(&args.egress);
        }
        for key in &self.keys {
            request = request.ssh_pubkey(key);
        }
        for pair in &args.env {
            request = request.env(&pair.key, pair.value.as_str());
        }
        request
    }

    /// Adds the clone to those that exist as soon as it does.
    async fn clone_once(&self, ctx: &Context, made: &mut Vec<Found>) -> Result<Value, Failure> {
        let child = {
            let _spinner = output::Spinner::start(
                ctx.out.terminal(),
                format!(
                    "cloning {}, {} of {}",
                    self.found.label(),
                    made.len() + 1,
                    self.args.count
                ),
            );
            let _note = ctx.if_interrupted(exist(made).unwrap_or_else(|| {
                "a clone may have been made all the same: createos sandbox list".to_owned()
            }));
            self.request().await.map_err(|error| self.refused(error))?
        };
        let name = child.view().and_then(|view| view.name.clone());
        let found = Found { id: child.id().clone(), name };
        made.push(found.clone());
        let _note = ctx.if_interrupted(exist(made).unwrap_or_default());
        let wanted = match self.args.paused {
            true => SandboxStatus::Paused,
            false => SandboxStatus::Running,
        };
        let view = wait::until(ctx, &child, &found, wanted).await?;
        let source = [("source_id", json!(self.found.id.as_str()))];
        let server = output::to_value(&*view)?;
        made::document("forked", &found, &["name", "status"], &source, &server)
    }

    fn refused(&self, error: createos_sdk::Error) -> Failure {
        let unsure = error.may_have_acted();
        let failure = self.found.explain(error);
        match unsure {
            true => failure.hint("one more may have been made: createos sandbox list"),
            false => failure,
        }
    }
}

/// They cost money, so nobody may lose sight of them.
fn with_clones(failure: Failure, made: &[Found]) -> Failure {
    let Some(exist) = exist(made) else { return failure };
    let message = format!("{}; {} of the clones exist", failure.message(), made.len());
    let hint = failure.advice().map(|hint| format!("{hint}\n{exist}")).unwrap_or(exist);
    failure.saying(message).hint(hint)
}

fn exist(made: &[Found]) -> Option<String> {
    let labels: Vec<String> =
        made.iter().map(|found| format!("exists: {}", found.label())).collect();
    match labels.is_empty() {
        true => None,
        false => Some(format!("{}\nremove: {}", labels.join("\n"), made::removal(made))),
    }
}

fn report(
    ctx: &Context,
    source: &Found,
    documents: &[Value],
    made: &[Found],
) -> Result<(), Failure> {
    let text = || {
        let pairs = documents.iter().zip(made);
        let blocks = pairs.map(|(document, clone)| block(source, document, clone));
        blocks.collect::<Vec<String>>().join("\n")
    };
    match documents {
        [one] => ctx.out.result(one, text)?,
        many => ctx.out.result(&many, text)?,
    }
    if let Some(first) = made.first() {
        ctx.out.hint(&format!("next: createos sandbox get {}", first.handle()));
    }
    Ok(())
}

fn block(source: &Found, document: &Value, clone: &Found) -> String {
    let word = |key: &str| made::word(document, key).map(str::to_owned);
    let rows = [
        ("id", Some(clone.id.to_string())),
        ("status", word("status")),
        ("ip", word("ip")),
        ("public url", made::url(document)),
    ];
    let rows: Vec<(&str, String)> =
        rows.into_iter().filter_map(|(label, value)| Some((label, value?))).collect();
    format::details(&format!("{} cloned to {}", source.handle(), clone.handle()), &rows)
}
