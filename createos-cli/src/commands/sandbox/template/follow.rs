//! Printing the log of a build while it is written.

use createos_sdk::Template;
use createos_sdk::template::BuildEvent;
use createos_sdk::wire::TemplateStatus;
use futures::StreamExt;

use super::named;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Payload, Spinner};

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    Stdout,
    Stderr,
}

/// Prints the log to its end; how the build ended. A broken connection is made again, and
/// what was lost meanwhile still comes.
pub(super) async fn follow(
    ctx: &Context,
    template: &Template,
    sink: Sink,
) -> Result<TemplateStatus, Failure> {
    let view = super::view(template)?;
    let named = named(&view);
    let _note = ctx.if_interrupted(format!(
        "the build of {} goes on; come back to it: createos sandbox template logs {} --follow",
        named.label(),
        named.handle()
    ));
    let mut spinner =
        Some(Spinner::start(ctx.out.terminal(), format!("building {}", named.handle())));
    let mut payload = Payload::new();
    let mut events = template.logs().watch();
    while let Some(event) = events.next().await {
        match event? {
            BuildEvent::Line(line) => {
                drop(spinner.take());
                let text = line.text + "\n";
                match sink {
                    Sink::Stdout => payload.stdout(text.as_bytes()).await?,
                    Sink::Stderr => payload.stderr(text.as_bytes()).await?,
                }
            }
            BuildEvent::End(status) => return Ok(status),
            _ => {}
        }
    }
    // The stream ends with an error or the end of the build.
    Err(Failure::local("the log has no end"))
}

/// A build that did not succeed.
pub(super) fn failed(template: &Template, status: &TemplateStatus) -> Failure {
    let named = match super::view(template) {
        Ok(view) => named(&view),
        Err(failure) => return failure,
    };
    Failure::local(format!("the build of {} is {status}", named.label()))
        .hint(format!("read its log: createos sandbox template logs {}", named.handle()))
}
