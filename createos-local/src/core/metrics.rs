//! What a sandbox uses now (api.md 4.18, 9.13).

use std::time::Duration;

use createos_sdk::SandboxId;
use tokio::time::Instant;

use super::{Core, CoreError};

/// CPU use is what happened within this time.
const WINDOW: Duration = Duration::from_millis(100);

/// One measurement.
pub(crate) struct Measured {
    /// Percent of one CPU.
    pub(crate) cpu_pct: f64,
    pub(crate) mem_used_bytes: u64,
    pub(crate) mem_total_bytes: u64,
}

impl Core {
    /// Measures a running sandbox. Takes a moment.
    pub(crate) async fn metrics(&self, id: &SandboxId) -> Result<Measured, CoreError> {
        let live = self.live(id).await?;
        let runtime = &self.inner.runtime;
        let (before, began) = (runtime.usage(id).await?, Instant::now());
        tokio::time::sleep(WINDOW).await;
        let after = runtime.usage(id).await?;
        let used = after.cpu.saturating_sub(before.cpu);
        Ok(Measured {
            cpu_pct: 100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64(),
            mem_used_bytes: after.memory_bytes,
            mem_total_bytes: live.sandbox().limits().memory_bytes,
        })
    }
}
