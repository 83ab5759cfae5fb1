//! The body of an answer that is taken as a stream.
//!
//! There is no limit on how long it may last, only on how long it may be silent while
//! somebody waits for it. A slow reader is not a silent server.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::de::IgnoredAny;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::ndjson::{Lines, MAX_LINE};
use super::send::{Head, root_cause};
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::observe::{Event, EventKind, Observer};

type Cause = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Source = Pin<Box<dyn Stream<Item = Result<Bytes, Cause>> + Send + Sync>>;

/// How long the end of a complete body is waited for.
const FINISH_GRACE: Duration = Duration::from_millis(50);

/// An open body.
pub(crate) struct Incoming {
    source: Source,
    facts: CallFacts,
    status: u16,
    request_id: Option<String>,
    opened: Instant,
    stall: Duration,
    deadline: Option<Instant>,
    /// Since when somebody waits for the next byte.
    waiting: Option<Instant>,
    /// Goes off when the wait may have been too long. Setting it for every byte would cost more
    /// than all else, so it may go off early and is then set anew.
    timer: Option<Pin<Box<Sleep>>>,
    /// Runs while the end of a complete body is waited for.
    grace: Option<Pin<Box<Sleep>>>,
    announced: Option<u64>,
    received: u64,
    ended: bool,
    observer: Option<Observer>,
    broken: Option<ErrorKind>,
}

impl Incoming {
    pub(crate) fn new(
        response: reqwest::Response,
        facts: CallFacts,
        head: &Head,
        stall: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        // The address may hold a query, and the error carries the path already.
        let source = response.bytes_stream().map_err(|error| error.without_url().into());
        let mut this = Self::over(Box::pin(source), head.status, facts, stall, deadline);
        this.request_id = head.request_id.clone();
        this.announced = head.content_length;
        this
    }

    /// A body that does not come from the API.
    pub(crate) fn over(
        source: Source,
        status: u16,
        facts: CallFacts,
        stall: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            source,
            facts,
            status,
            request_id: None,
            opened: Instant::now(),
            stall,
            deadline,
            waiting: None,
            timer: None,
            grace: None,
            announced: None,
            received: 0,
            ended: false,
            observer: None,
            broken: None,
        }
    }

    /// Tells this observer how it ended.
    pub(crate) fn observed(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Length of the whole body, when the server announced it.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// An error of this stream, with everything known about its call.
    pub(crate) fn error(&self, error: Error) -> Error {
        let mut facts = self.facts.clone();
        facts.elapsed += self.opened.elapsed();
        let acted = facts.method != Some("GET");
        error
            .with_status(self.status)
            .with_request_id(self.request_id.clone())
            .with_acted(acted)
            .in_call(&facts)
    }

    /// The next line of a body made of lines of JSON; `None` at its end. A last line needs no
    /// break, but half of one is not a malformed line: the rest was lost.
    pub(crate) fn poll_line(
        &mut self,
        lines: &mut Lines,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        loop {
            let line = lines.next_line().map_err(|_too_long| {
                let limit = MAX_LINE >> 20;
                let message = format!("a line of the stream is longer than {limit} MiB");
                self.error(Error::new(ErrorKind::Protocol, message))
            })?;
            if line.is_some() {
                return Poll::Ready(Ok(line));
            }
            match ready!(self.poll_next_unpin(cx)) {
                Some(chunk) => lines.push(chunk?),
                None => {
                    let whole = |line: &Bytes| serde_json::from_slice::<IgnoredAny>(line).is_ok();
                    return Poll::Ready(Ok(lines.finish().filter(whole)));
                }
            }
        }
    }

    /// Takes the end of a body whose content is complete, because a connection can be used
    /// again only after it. It follows at once from a good server; no other is waited for.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended {
            match self.source.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(_late))) => {}
                Poll::Ready(None | Some(Err(_))) => self.ended = true,
                Poll::Pending => {
                    let grace = self.grace.get_or_insert_with(|| Box::pin(sleep(FINISH_GRACE)));
                    ready!(grace.as_mut().poll(cx));
                    self.ended = true;
                }
            }
        }
        Poll::Ready(())
    }

    fn took(&mut self, chunk: Bytes) -> Poll<Option<Result<Bytes>>> {
        self.waiting = None;
        self.received += chunk.len() as u64;
        Poll::Ready(Some(Ok(chunk)))
    }

    fn end(&mut self, cause: Option<Cause>) -> Poll<Option<Result<Bytes>>> {
        self.ended = true;
        let of = self.announced.map(|total| format!(" of {total}")).unwrap_or_default();
        let received = self.received;
        let error = match cause {
            Some(cause) => {
                let why = root_cause(&*cause);
                let message = format!("broken off after {received}{of} bytes: {why}");
                Error::new(ErrorKind::StreamLost, message).with_source(cause)
            }
            None if self.announced.is_some_and(|total| received != total) => {
                Error::new(ErrorKind::StreamLost, format!("ended after {received}{of} bytes"))
            }
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Err(self.broke(error))))
    }

    fn broke(&mut self, error: Error) -> Error {
        self.broken = Some(error.kind());
        self.error(error)
    }

    /// Waits for the next byte no longer than allowed.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let limits = [since.checked_add(self.stall), self.deadline];
        let Some(end) = limits.into_iter().flatten().min() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                break;
            }
            timer.as_mut().reset(end);
        }
        self.ended = true;
        let message = if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            "the deadline of the call passed while its stream was open".to_owned()
        } else {
            format!("nothing came for {:?} (the stall timeout)", self.stall)
        };
        Poll::Ready(Some(Err(self.broke(Error::new(ErrorKind::Timeout, message)))))
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.source.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(chunk))) => self.took(chunk),
            Poll::Ready(Some(Err(error))) => self.end(Some(error)),
            Poll::Ready(None) => self.end(None),
            Poll::Pending => self.wait(cx),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Some(observer) = &self.observer else { return };
        let kind = EventKind::StreamEnd { bytes: self.received, error: self.broken };
        let elapsed = self.facts.elapsed + self.opened.elapsed();
        observer.tell(&Event { elapsed, ..Event::of(&self.facts, kind) });
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("call", &self.facts.operation)
            .field("announced", &self.announced)
            .field("received", &self.received)
            .field("ended", &self.ended)
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use futures::stream;

    const STALL: Duration = Duration::from_secs(60);

    /// A body over any stream, for tests of what is built on it.
    pub(crate) fn over(source: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Incoming {
        Incoming::over(Box::pin(source.map(Ok)), 200, CallFacts::default(), STALL, None)
    }

    fn ticking(every: Duration, times: usize) -> impl Stream<Item = Bytes> + Send + Sync {
        stream::iter(0..times).then(move |_| async move {
            sleep(every).await;
            Bytes::from_static(b"x")
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_last_for_ever_as_long_as_it_moves() {
        let started = Instant::now();
        let chunks: Vec<_> = over(ticking(STALL - Duration::from_secs(1), 100)).collect().await;
        assert!(chunks.iter().all(Result::is_ok) && chunks.len() == 100);
        assert!(started.elapsed() > 90 * STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_once() {
        let mut body = over(stream::iter([Bytes::from_static(b"a")]).chain(stream::pending()));
        assert_eq!(body.next().await.unwrap().unwrap(), "a");
        let started = Instant::now();
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(started.elapsed(), STALL);
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_byte() {
        let mut body = over(ticking(STALL / 6, 3).chain(stream::pending()));
        for _ in 0..3 {
            assert!(body.next().await.unwrap().is_ok());
        }
        let started = Instant::now();
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Timeout, STALL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_a_silent_server() {
        let mut body = over(ticking(Duration::from_secs(1), 3));
        for _ in 0..3 {
            sleep(10 * STALL).await;
            assert!(body.next().await.unwrap().is_ok());
        }
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_for_the_stream_too() {
        let mut body = over(ticking(Duration::from_secs(1), 100));
        body.deadline = Some(Instant::now() + Duration::from_millis(2500));
        let kinds: Vec<_> = body.map(|chunk| chunk.map_err(|e| e.kind())).collect().await;
        assert_eq!(kinds.len(), 3);
        assert_eq!(kinds[2], Err(ErrorKind::Timeout));
    }

    #[tokio::test]
    async fn a_body_shorter_than_announced_is_lost() {
        let mut body = over(stream::iter([Bytes::from_static(b"abc")]));
        body.announced = Some(4);
        assert!(body.next().await.unwrap().is_ok());
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StreamLost);
        assert!(error.message().contains("3 of 4"), "{error}");
        assert!(body.next().await.is_none());
    }
}
