//! Work that a signal must not cut in half.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the end of the process waits for such work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pieces of work under way.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Runs `work` to its end on a thread of its own, also when nobody waits for it
/// any more. `None` where the machine has no thread for it.
pub(crate) async fn run<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let counted = Counted::new();
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("unbroken".to_owned()).spawn(move || {
        let _counted = counted;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            let _ = done.send(runtime.block_on(work));
        }
    });
    thread.ok()?;
    result.await.ok()
}

/// Waits for work that is under way, but not for ever. Called before the process ends.
pub(crate) fn settle() {
    let until = Instant::now() + PATIENCE;
    let mut running = count();
    while *running > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        running = ENDED.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn count() -> MutexGuard<'static, usize> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Counted;

impl Counted {
    fn new() -> Self {
        *count() += 1;
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *count() -= 1;
        ENDED.notify_all();
    }
}
