//! `createos sandbox template logs`.

use clap::Args;
use createos_sdk::wire::{BuildFrame, TemplateStatus};

use super::chosen;
use super::follow::{self, Sink};
use crate::commands::Exit;
use crate::commands::sandbox::choose::TEMPLATE;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Payload;

/// Print the log of a build
///
/// With --follow it is printed to its end; the exit code is 1 when the build
/// fails.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox template logs my-rails
  createos sandbox template logs my-rails --follow")]
pub(super) struct LogsArgs {
    /// Name or id [default: ask on a terminal]
    template: Option<String>,

    /// Go on until the build has ended
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(args: LogsArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(template) = chosen(ctx, args.template.as_deref()).await? else {
        return Ok(Exit::Success);
    };
    if args.follow {
        let status = follow::follow(ctx, &template, Sink::Stdout).await?;
        if status != TemplateStatus::Ready {
            ctx.complain(&follow::failed(&template, &status));
            return Ok(Exit::Code(1));
        }
        return Ok(Exit::Success);
    }
    let log = template.logs().await;
    let log = log.map_err(|error| TEMPLATE.explain(template.id().as_str(), error))?;
    Payload::new().stdout(plain(&log).as_bytes()).await?;
    Ok(Exit::Success)
}

/// The lines of a log; some servers send each in a frame here, too.
fn plain(log: &str) -> String {
    let mut text = String::new();
    for line in log.split_inclusive('\n') {
        match serde_json::from_str::<BuildFrame>(line) {
            Ok(frame) if frame.is_final => {}
            Ok(BuildFrame { line: Some(line), ts: Some(_), .. })
            | Ok(BuildFrame { line: Some(line), attempt: Some(_), .. }) => {
                text.push_str(line.strip_suffix('\n').unwrap_or(&line));
                text.push('\n');
            }
            _ => text.push_str(line),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_unwrapped_and_all_else_is_kept() {
        let log = "plain\n{\"ts\":\"2026-08-02T10:00:00Z\",\"line\":\"framed\\n\"}\n\
                   {\"line\":\"a program wrote this\"}\n{\"attempt\":1,\"line\":\"x\"}\n\
                   {\"final\":true,\"status\":\"ready\"}\nno end";
        let text = "plain\nframed\n{\"line\":\"a program wrote this\"}\nx\nno end";
        assert_eq!(plain(log), text);
    }
}
