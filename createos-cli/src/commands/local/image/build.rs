//! `createos local image build`.

use clap::Args;
use createos_local::images::Images;

use super::{failure, imported};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Bar;

/// Build a minimal Debian from packages
///
/// By mmdebstrap, which must be installed (Debian, Ubuntu: apt install
/// mmdebstrap). Nothing is taken from this machine's own system. It takes a
/// minute or so, and the network.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos local image build debian:13
  createos local image build dev:1 --include python3,git,ca-certificates
  createos local image build debian:sid --suite sid -- --variant=apt")]
pub(super) struct BuildArgs {
    /// Its name, such as debian:13
    name: String,

    /// Which release of Debian
    #[arg(long, value_name = "NAME", default_value = "trixie")]
    suite: String,

    /// Packages to have besides the essential ones and apt
    #[arg(long, value_name = "PACKAGE,...", value_delimiter = ',')]
    include: Vec<String>,

    /// Where packages come from: an address, or a line or file of sources
    /// [default: Debian's own servers]
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,

    /// Options for mmdebstrap
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

impl BuildArgs {
    pub(super) async fn run(self, images: &Images, ctx: &Context) -> Result<Exit, Failure> {
        let bar = Bar::new(ctx.out.terminal());
        let pen = bar.pen();
        pen.say("starting mmdebstrap".to_owned());
        let mut build = images.build_debian(&self.name).suite(self.suite);
        build = build.progress(move |line| pen.say(line.trim_start_matches("I: ").to_owned()));
        for package in self.include {
            build = build.package(package);
        }
        for mirror in self.mirror {
            build = build.mirror(mirror);
        }
        for option in self.options {
            build = build.option(option);
        }
        let image = build.await.map_err(failure)?;
        drop(bar);
        imported(&image, ctx)
    }
}
