//! `createos sandbox shapes`.

use clap::Args;
use createos_sdk::wire::Shape;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, ids};

/// List the sizes a sandbox can have
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox shapes
  createos sandbox shapes --output json")]
pub(super) struct ShapesArgs {
    /// Print one id per line and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
}

pub(super) async fn run(args: ShapesArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut shapes = ctx.plane()?.client.shapes().await?;
    shapes.sort_by(|a, b| (a.mem_mib, a.vcpu, &a.id).cmp(&(b.mem_mib, b.vcpu, &b.id)));
    if args.quiet {
        ctx.out.raw(&ids(shapes.iter().map(|shape| shape.id.as_str())))?;
        return Ok(Exit::Success);
    }
    ctx.out.result(&shapes, || match shapes.is_empty() {
        true => "This control plane offers no sizes.".into(),
        false => ctx.out.table(&table(&shapes)),
    })?;
    if !shapes.is_empty() {
        ctx.out.hint("next: createos sandbox create --shape <id>");
    }
    Ok(Exit::Success)
}

fn table(shapes: &[Shape]) -> Table {
    let throttled = shapes.iter().any(|shape| shape.cpu_quota_pct.is_some());
    let mut columns = vec![("ID", 0), ("VCPU", 0), ("RAM", 0), ("DISK", 0)];
    if throttled {
        columns.push(("CPU SHARE", 0));
    }
    let mut table = Table::new(&columns);
    for shape in shapes {
        let mut cells = vec![
            shape.id.clone(),
            shape.vcpu.to_string(),
            format!("{} MiB", shape.mem_mib),
            format!("{} MiB", shape.default_disk_mib),
        ];
        if throttled {
            cells.push(shape.cpu_quota_pct.map(|share| format!("{share} %")).unwrap_or_default());
        }
        table.row(cells);
    }
    table
}
