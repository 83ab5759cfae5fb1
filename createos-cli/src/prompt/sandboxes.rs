//! Pickers of sandboxes.

use createos_sdk::wire::SandboxView;

use super::{pick, pick_several};
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::{self, Found, Rules};

/// Rows of one picker.
const MOST: u64 = 200;

/// Picks one sandbox; `None` when there is none or nothing was picked.
pub(crate) async fn pick_sandbox(ctx: &Context, rules: Rules) -> Result<Option<Found>, Failure> {
    let Some(mut rows) = candidates(ctx, rules).await? else { return Ok(None) };
    let picked = pick(ctx, "which sandbox?", labels(&rows)).await?;
    Ok(picked.map(|at| rows.swap_remove(at)))
}

/// Picks any number of sandboxes; `None` when there is none or nothing was picked.
pub(crate) async fn pick_sandboxes(
    ctx: &Context,
    rules: Rules,
) -> Result<Option<Vec<Found>>, Failure> {
    let Some(rows) = candidates(ctx, rules).await? else { return Ok(None) };
    let picked = pick_several(ctx, "which sandboxes?", labels(&rows)).await?;
    Ok(picked.map(|picked| picked.into_iter().map(|at| rows[at].clone()).collect()))
}

/// Says so when there are none.
async fn candidates(ctx: &Context, rules: Rules) -> Result<Option<Vec<Found>>, Failure> {
    let client = &ctx.plane()?.client;
    let mut views: Vec<SandboxView> = Vec::new();
    if rules.offered.is_empty() {
        views = resolve::views(client.sandboxes().page(MOST, 0).await?.data);
    }
    for status in rules.offered {
        let page = client.sandboxes().status(status.clone()).page(MOST, 0).await?;
        views.extend(resolve::views(page.data));
    }
    if views.is_empty() {
        let states: Vec<&str> = rules.offered.iter().map(|status| status.as_str()).collect();
        let state = if states.is_empty() { "" } else { &format!("{} ", states.join(" or ")) };
        ctx.out.note(&format!("there are no {state}sandboxes"));
        return Ok(None);
    }
    Ok(Some(views.into_iter().map(|view| Found { id: view.id, name: view.name }).collect()))
}

fn labels(rows: &[Found]) -> Vec<String> {
    rows.iter().map(|row| format!("{}   (id: {})", row.handle(), row.id)).collect()
}
