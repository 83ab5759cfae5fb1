//! Lists: page by page, all at once, or as a stream that fetches ahead (api.md 1.9).

use std::collections::VecDeque;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::transport::request::Call;
use crate::transport::send::{self, Reply};
use crate::transport::{ends_at, envelope};
use crate::wire::{Page, Pagination, SandboxStatus};

/// Largest page a server gives (api.md 1.9).
const MAX_PAGE: u64 = 500;

type Decode<T> = dyn Fn(&Client, &Reply) -> Result<Page<T>> + Send + Sync;

/// A list on the server.
///
/// Awaiting it gives every row, like [`collect_all`](Self::collect_all).
/// [`stream`](Self::stream) gives them one by one and fetches the next page while the
/// current one is used; [`page`](Self::page) gives a single page.
///
/// A server that announces a total which its pages contradict is an error of kind
/// [`Protocol`](ErrorKind::Protocol), never a short list and never an endless one. Rows that
/// come or go between two pages can be seen twice or not at all, as with any offset.
///
/// ```no_run
/// # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
/// use createos_sdk::wire::SandboxStatus;
/// use futures::TryStreamExt;
///
/// let mut running = client.sandboxes().status(SandboxStatus::Running).stream();
/// while let Some(sandbox) = running.try_next().await? {
///     println!("{}", sandbox.id());
/// }
/// # Ok(()) }
/// ```
#[must_use = "nothing is sent until awaited"]
pub struct List<T> {
    client: Client,
    call: Call,
    decode: Arc<Decode<T>>,
    status: Option<SandboxStatus>,
    page_size: u64,
}

impl<T: Send + 'static> List<T> {
    pub(crate) fn new<W: DeserializeOwned>(
        client: Client,
        call: Call,
        row: impl Fn(&Client, W) -> T + Send + Sync + 'static,
    ) -> Self {
        let decode = move |client: &Client, reply: &Reply| {
            let page: Page<W> = envelope::data(reply)?;
            let data = page.data.into_iter().map(|wire| row(client, wire)).collect();
            Ok(Page { data, pagination: page.pagination })
        };
        Self { client, call, decode: Arc::new(decode), status: None, page_size: MAX_PAGE }
    }

    /// Rows per page, 1 to 500, for [`stream`](Self::stream) and
    /// [`collect_all`](Self::collect_all). Default 500.
    pub fn page_size(mut self, rows: u64) -> Self {
        self.page_size = rows;
        self
    }

    /// Sets options of every page's call. A deadline counts for all pages together.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.call.options = self.call.options.overlaid(options);
        self
    }

    /// The rows one by one. Nothing is sent until the stream is polled.
    pub fn stream(self) -> Items<T> {
        Items { list: self, rows: VecDeque::new(), walk: None, next: Next::Start }
    }

    /// Every row.
    ///
    /// # Errors
    ///
    /// Those of the call, and `Protocol` when the pages contradict each other.
    pub fn collect_all(self) -> Pending<Vec<T>> {
        Pending::new(async move {
            let mut items = self.stream();
            let mut all = Vec::new();
            while let Some(item) = items.next().await {
                all.push(item?);
            }
            Ok(all)
        })
    }

    /// The rows after the first `offset`, at most `limit` of them (1 to 500).
    pub fn page(self, limit: u64, offset: u64) -> Pending<Page<T>> {
        Pending::new(async move { self.fetch(limit, offset).await })
    }

    async fn fetch(&self, limit: u64, offset: u64) -> Result<Page<T>> {
        if !(1..=MAX_PAGE).contains(&limit) {
            let why = format!("{limit} is outside 1 to {MAX_PAGE} rows");
            return Err(Error::invalid_argument("page size", why).in_operation(self.call.operation));
        }
        let mut call = self.call.clone();
        if let Some(status) = &self.status {
            call = call.query("status", status.as_str());
        }
        let call = call.query("limit", &limit.to_string()).query("offset", &offset.to_string());
        let decode = |reply: Reply| (self.decode)(&self.client, &reply);
        send::send(self.client.inner(), &call, decode).await
    }

    fn facts(&self) -> CallFacts {
        CallFacts { attempts: 1, ..self.call.facts() }
    }
}

impl List<Sandbox> {
    /// Only sandboxes in this state.
    pub fn status(mut self, status: SandboxStatus) -> Self {
        self.status = Some(status);
        self
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            call: self.call.clone(),
            decode: self.decode.clone(),
            status: self.status.clone(),
            page_size: self.page_size,
        }
    }
}

impl<T: Send + 'static> IntoFuture for List<T> {
    type Output = Result<Vec<T>>;
    type IntoFuture = Pending<Vec<T>>;

    fn into_future(self) -> Pending<Vec<T>> {
        self.collect_all()
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("operation", &self.call.operation)
            .field("status", &self.status)
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}

/// The rows of a [`List`], fetched page by page. While the rows of one page are taken, the
/// next page is on its way. Dropping it gives that up. After an error it has ended.
#[must_use = "a stream does nothing until polled"]
pub struct Items<T> {
    list: List<T>,
    rows: VecDeque<T>,
    walk: Option<Walk>,
    next: Next<T>,
}

enum Next<T> {
    Start,
    /// There is a page at this offset that nobody has asked for yet.
    At(u64),
    Fetching(Task<Page<T>>, u64),
    Done,
}

impl<T: Send + 'static> Items<T> {
    fn fetch(&mut self, offset: u64) {
        let list = self.list.clone();
        let ends = match &self.walk {
            Some(walk) => walk.ends,
            None => {
                let limit = list.call.options.deadline.or(list.client.inner().deadline);
                let ends = ends_at(limit);
                self.walk = Some(Walk { ends, ..Walk::default() });
                ends
            }
        };
        let task = Task::spawn(async move { fetch_until(list, offset, ends).await });
        self.next = Next::Fetching(task, offset);
    }

    fn took(&mut self, page: Page<T>, offset: u64) -> Result<()> {
        let walk = self.walk.get_or_insert_default();
        let rows = page.data.len() as u64;
        let next = walk.step(offset, self.list.page_size, rows, page.pagination);
        let next = next.map_err(|why| {
            Error::new(ErrorKind::Protocol, why).with_status(200).in_call(&self.list.facts())
        })?;
        self.next = next.map_or(Next::Done, Next::At);
        self.rows = page.data.into();
        Ok(())
    }
}

async fn fetch_until<T: Send + 'static>(
    mut list: List<T>,
    offset: u64,
    ends: Option<Instant>,
) -> Result<Page<T>> {
    if let Some(ends) = ends {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = "the deadline of the list passed between two pages";
            return Err(Error::new(ErrorKind::Timeout, message).in_call(&list.facts()));
        }
        list.call.options.deadline = Some(left);
    }
    list.fetch(list.page_size, offset).await
}

// Rows are moved out, never pinned.
impl<T> Unpin for Items<T> {}

impl<T: Send + 'static> Stream for Items<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = &mut *self;
        loop {
            if let Some(row) = this.rows.pop_front() {
                if let Next::At(offset) = this.next {
                    this.fetch(offset);
                }
                return Poll::Ready(Some(Ok(row)));
            }
            match &mut this.next {
                Next::Done => return Poll::Ready(None),
                Next::Start => this.fetch(0),
                Next::At(offset) => {
                    let offset = *offset;
                    this.fetch(offset);
                }
                Next::Fetching(task, offset) => {
                    let offset = *offset;
                    let page = ready!(task.poll(cx));
                    this.next = Next::Done;
                    if let Err(error) = page.and_then(|page| this.took(page, offset)) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("list", &self.list).finish_non_exhaustive()
    }
}

/// A spawned call that ends when nobody wants its answer any more.
struct Task<T>(JoinHandle<Result<T>>);

impl<T: Send + 'static> Task<T> {
    fn spawn(work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let joined = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(joined.unwrap_or_else(|error| {
            let message = "the runtime ended while a page was being fetched";
            Err(Error::new(ErrorKind::Io, message).with_source(error))
        }))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a walk through the pages is, and what it may still believe.
#[derive(Debug, Default)]
struct Walk {
    ends: Option<Instant>,
    /// Rows after which the list counts as endless.
    ceiling: Option<u64>,
}

impl Walk {
    /// Judges the page at `offset` and gives the offset of the next, if there is one.
    fn step(
        &mut self,
        offset: u64,
        asked: u64,
        rows: u64,
        pagination: Option<Pagination>,
    ) -> Result<Option<u64>, String> {
        let after = offset + rows;
        let Some(page) = pagination else {
            // The older forms are the whole list in one answer.
            return match offset {
                0 => Ok(None),
                _ => Err(format!("the page at {offset} is not a page but a whole list")),
            };
        };
        if page.offset != offset {
            return Err(format!("asked for rows from {offset} on, got them from {}", page.offset));
        }
        if rows > asked {
            return Err(format!("asked for {asked} rows, got {rows}"));
        }
        if after > page.total && rows > 0 {
            return Err(format!("{after} rows although only {} were announced", page.total));
        }
        if after >= page.total {
            return Ok(None);
        }
        if rows == 0 {
            return Err(format!("no rows at {offset} although {} were announced", page.total));
        }
        // A list may grow while it is read, but not as fast as it is read, for ever.
        let ceiling = *self.ceiling.get_or_insert(page.total.saturating_mul(2) + 10_000);
        if after > ceiling {
            return Err(format!("more than {ceiling} rows and still growing"));
        }
        Ok(Some(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(total: u64, offset: u64) -> Option<Pagination> {
        Page::<()>::new(vec![], total, 500, offset).pagination
    }

    #[test]
    fn honest_lists_end_where_they_say() {
        let mut walk = Walk::default();
        assert_eq!(walk.step(0, 500, 500, at(1200, 0)), Ok(Some(500)));
        assert_eq!(walk.step(500, 500, 500, at(1200, 500)), Ok(Some(1000)));
        assert_eq!(walk.step(1000, 500, 200, at(1200, 1000)), Ok(None));
        assert_eq!(Walk::default().step(0, 500, 0, at(0, 0)), Ok(None));
        assert_eq!(Walk::default().step(0, 500, 37, None), Ok(None));
        assert_eq!(Walk::default().step(0, 500, 50, at(60, 0)), Ok(Some(50)), "a smaller clamp");
    }

    #[test]
    fn rows_that_went_meanwhile_are_no_lie() {
        let mut walk = Walk::default();
        assert_eq!(walk.step(0, 2, 2, at(5, 0)), Ok(Some(2)));
        assert_eq!(walk.step(2, 2, 0, at(1, 2)), Ok(None));
    }

    #[test]
    fn lies_are_found() {
        let lie = |offset, asked, rows, page| Walk::default().step(offset, asked, rows, page);
        assert!(lie(0, 500, 0, at(10, 0)).unwrap_err().contains("no rows"));
        assert!(lie(500, 500, 0, at(501, 500)).unwrap_err().contains("no rows"));
        assert!(lie(0, 500, 7, at(3, 0)).unwrap_err().contains("only 3"));
        assert!(lie(500, 500, 500, at(9000, 0)).unwrap_err().contains("from 0"));
        assert!(lie(0, 2, 3, at(10, 0)).unwrap_err().contains("got 3"));
        assert!(lie(2, 2, 2, None).unwrap_err().contains("whole list"));
    }

    #[test]
    fn a_list_that_grows_as_fast_as_it_is_read_ends_with_an_error() {
        let mut walk = Walk::default();
        let mut offset = 0;
        let error = loop {
            match walk.step(offset, 500, 500, at(offset + 1000, offset)) {
                Ok(next) => offset = next.unwrap(),
                Err(error) => break error,
            }
        };
        assert!(error.contains("still growing") && offset < 20_000, "{error}");
    }
}
