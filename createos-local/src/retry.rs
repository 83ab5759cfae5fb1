//! Trying again what may fail in passing.

use std::time::Duration;

/// Attempts it, and again after each of the pauses while the error is one that may pass.
pub(crate) async fn again<T, E, F>(
    pauses: impl IntoIterator<Item = Duration>,
    may_pass: impl Fn(&E) -> bool,
    attempt: impl Fn() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    for pause in pauses {
        match attempt().await {
            Err(error) if may_pass(&error) => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_nothing_else_is() {
        let pauses = [Duration::from_secs(1), Duration::from_secs(2)];
        for (works_at, may_pass, tries) in [(1, true, 1), (3, true, 3), (4, true, 3), (2, false, 1)]
        {
            let (count, begun) = (Cell::new(0), tokio::time::Instant::now());
            let outcome = again(
                pauses,
                |()| may_pass,
                async || {
                    count.set(count.get() + 1);
                    if count.get() == works_at { Ok(()) } else { Err(()) }
                },
            );
            assert_eq!(outcome.await.is_ok(), tries == works_at, "{works_at}");
            assert_eq!(count.get(), tries, "{works_at}");
            let waited = [0, 1, 3][tries - 1];
            assert_eq!(begun.elapsed().as_secs(), waited);
        }
    }
}
