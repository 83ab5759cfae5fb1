//! `createos local image pull`.

use clap::Args;
use createos_local::images::{Images, PullProgress};

use super::{failure, imported};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Bar;

/// Pull a container image from a registry
///
/// Short names are of Docker Hub. A private image is asked for with the account
/// that `docker login` has kept for its registry. What has the name already is
/// replaced when the new image is complete.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos local image pull alpine:3.20
  createos local image pull ghcr.io/owner/tool:1 --as tool:1
  createos local image pull localhost:5000/tool@sha256:<digest>")]
pub(super) struct PullArgs {
    /// The image, such as alpine:3.20 or registry.example/team/tool:1
    #[arg(value_name = "IMAGE")]
    reference: String,

    /// What to call it here [default: its name and tag, without the registry]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,

    /// For another platform than this machine's, such as linux/arm64; its
    /// programs run only where the kernel has been taught to run them
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

impl PullArgs {
    pub(super) async fn run(self, images: &Images, ctx: &Context) -> Result<Exit, Failure> {
        let bar = Bar::new(ctx.out.terminal());
        let pen = bar.pen();
        let mut pull = images.pull(&self.reference).progress(move |progress| match progress {
            PullProgress::Fetching { bytes, total } => pen.show(bytes, Some(total)),
            PullProgress::Unpacking { layer, of } => {
                pen.say(format!("unpacking layer {layer} of {of}"));
            }
            _ => {}
        });
        if let Some(name) = self.name {
            pull = pull.name(name);
        }
        if let Some(platform) = self.platform {
            pull = pull.platform(platform);
        }
        let image = pull.await.map_err(failure)?;
        drop(bar);
        imported(&image, ctx)
    }
}
