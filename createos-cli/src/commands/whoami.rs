//! `createos whoami`: who is signed in, and on which control plane.

use serde_json::json;

use super::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let plane = ctx.plane()?;
    let who = plane.client.whoami().await?;
    let stats = &who.stats;
    let document = json!({
        "user_id": who.user_id,
        "stats": {
            "running": stats.running,
            "paused": stats.paused,
            "other": stats.other,
            "total": stats.total,
        },
        "method": plane.credential.method(),
        "control_plane": { "kind": plane.target.kind(), "url": plane.target.url() },
    });
    ctx.out.result(&document, || {
        let counts = format!(
            "{} running, {} paused, {} other, {} in all",
            stats.running, stats.paused, stats.other, stats.total
        );
        let rows = [
            ("user", who.user_id.clone()),
            ("signed in with", plane.credential.describe()),
            ("control plane", plane.target.to_string()),
            ("sandboxes", counts),
        ];
        format::columns(&rows)
    })?;
    Ok(Exit::Success)
}
