//! Work that has to be done although nobody waits for it any more.
//!
//! It runs on one thread of this crate's own, so that it goes on when the caller's runtime
//! ends. What cannot be helped is a process that ends: [`Running::hold`] delays that where it
//! can.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Started at first use, and then there for as long as the process.
static WORKER: LazyLock<Option<UnboundedSender<Job>>> = LazyLock::new(|| start_worker().ok());

fn start_worker() -> std::io::Result<UnboundedSender<Job>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (jobs, mut inbox) = unbounded_channel::<Job>();
    let work = async move {
        while let Some(job) = inbox.recv().await {
            tokio::spawn(job);
        }
    };
    std::thread::Builder::new()
        .name("createos-background".to_owned())
        .spawn(move || runtime.block_on(work))?;
    Ok(jobs)
}

/// Starts `work` at once.
pub(crate) fn start(work: impl Future<Output = ()> + Send + 'static) -> Running {
    let (ended, end) = channel();
    let job = Box::pin(async move {
        let _ended: Sender<()> = ended;
        work.await;
    });
    match &*WORKER {
        // The thread never ends, so neither does its inbox.
        Some(worker) => drop(worker.send(job)),
        // A machine that has no thread left: the caller's own runtime is the next best.
        None => drop(Handle::try_current().map(|runtime| runtime.spawn(job))),
    }
    Running(end)
}

/// Work under way.
pub(crate) struct Running(Receiver<()>);

impl Running {
    /// Keeps the caller's runtime from ending, and by that usually the process, until the
    /// work is done or `limit` has passed. Within a runtime the caller itself goes on.
    pub(crate) fn hold(self, limit: Duration) {
        let waiter = Waiter { work: self.0, until: Instant::now() + limit };
        match Handle::try_current() {
            // A runtime waits for its blocking tasks. One that is already ending drops the
            // task instead of running it, and dropping is what waits.
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(waiter))),
            Err(_) => drop(waiter),
        }
    }
}

/// Waits when dropped.
struct Waiter {
    work: Receiver<()>,
    until: Instant,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let left = self.until.saturating_duration_since(Instant::now());
        // Nothing is ever sent: the work's end shows as its sender going away.
        let _ = self.work.recv_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn slow(done: &Arc<AtomicBool>) -> impl Future<Output = ()> + Send + 'static {
        let done = done.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            done.store(true, Ordering::SeqCst);
        }
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_runtime_that_ends_waits_for_what_is_held() {
        for builder in [Builder::new_current_thread, Builder::new_multi_thread] {
            let done = Arc::new(AtomicBool::new(false));
            let runtime = builder().enable_all().build().unwrap();
            let started = Instant::now();
            let goes_on = runtime.block_on(async {
                start(slow(&done)).hold(LIMIT);
                started.elapsed()
            });
            assert!(goes_on < Duration::from_millis(90), "the caller was kept: {goes_on:?}");
            drop(runtime);
            assert!(done.load(Ordering::SeqCst));
        }
    }

    /// The task is dropped by the runtime's end, and what it drops begins the work.
    #[test]
    fn work_begun_while_a_runtime_ends_is_done_too() {
        struct Late(Arc<AtomicBool>);
        impl Drop for Late {
            fn drop(&mut self) {
                start(slow(&self.0)).hold(LIMIT);
            }
        }
        for builder in [Builder::new_current_thread, Builder::new_multi_thread] {
            let done = Arc::new(AtomicBool::new(false));
            let late = Late(done.clone());
            let runtime = builder().enable_all().build().unwrap();
            runtime.spawn(async move {
                let _late = late;
                std::future::pending::<()>().await;
            });
            drop(runtime);
            assert!(done.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn without_a_runtime_the_caller_waits() {
        let done = Arc::new(AtomicBool::new(false));
        start(slow(&done)).hold(LIMIT);
        assert!(done.load(Ordering::SeqCst));
        let started = Instant::now();
        start(std::future::pending()).hold(Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(5), "and no longer than the limit");
    }

    #[test]
    fn work_that_panics_ends_like_any_other() {
        start(async { panic!("on purpose") }).hold(LIMIT);
    }
}
