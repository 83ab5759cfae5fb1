//! A file that is open for reading alone: ranges of an object, fetched ahead of a reader that
//! goes forward.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fuser::Errno;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::OwnedSemaphorePermit;

use super::super::answer::Object;
use super::volume::Volume;

const MIB: u64 = 1 << 20;
/// How much is fetched at once: at first, and at most, when a reader goes forward.
const FIRST: u64 = MIB;
const LARGEST: u64 = 8 * MIB;
/// Reads of one reader that goes forward overtake each other by no more than this.
const NEAR: u64 = 2 * MIB;

pub(super) struct Reader {
    path: String,
    object: Object,
    window: tokio::sync::Mutex<Window>,
}

#[derive(Default)]
struct Window {
    chunks: VecDeque<Chunk>,
    /// Where a reader that goes forward reads next.
    next: u64,
    /// How much is fetched at once; 0 when it jumps about.
    stride: u64,
}

#[derive(Clone)]
struct Chunk {
    start: u64,
    end: u64,
    bytes: Shared<BoxFuture<'static, Result<Bytes, Errno>>>,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Reader {
    pub(super) fn new(path: String, object: Object) -> Self {
        Self { path, object, window: tokio::sync::Mutex::default() }
    }

    pub(super) async fn read(
        &self,
        volume: &Arc<Volume>,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, Errno> {
        let end = offset.saturating_add(length).min(self.object.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let mut parts = {
            let mut window = self.window.lock().await;
            window.turn_to(offset);
            let parts = self.cover(volume, &mut window, offset, end);
            window.next = window.next.max(end);
            self.fetch_ahead(volume, &mut window);
            parts
        };
        if let [(chunk, from, to)] = parts.as_slice() {
            let bytes = chunk.bytes.clone().await?;
            return Ok(bytes.slice(*from..*to));
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(end - offset).unwrap_or(0));
        for (chunk, from, to) in parts.drain(..) {
            whole.extend_from_slice(&chunk.bytes.await?[from..to]);
        }
        Ok(whole.freeze())
    }

    /// Chunks that hold what is wanted, and which part of each; what is missing is fetched.
    fn cover(
        &self,
        volume: &Arc<Volume>,
        window: &mut Window,
        offset: u64,
        end: u64,
    ) -> Vec<(Chunk, usize, usize)> {
        let (mut at, mut parts) = (offset, Vec::new());
        while at < end {
            let holds = |chunk: &&Chunk| chunk.start <= at && at < chunk.end;
            let chunk = match window.chunks.iter().find(holds) {
                Some(chunk) => chunk.clone(),
                None => {
                    let next = window.chunks.iter().map(|chunk| chunk.start);
                    let next = next.filter(|start| *start > at).min().unwrap_or(u64::MAX);
                    let to = end.max(at + window.stride).min(next);
                    let chunk = self.fetch(volume, at, to, end.min(next));
                    window.chunks.push_back(chunk.clone());
                    chunk
                }
            };
            let to = chunk.end.min(end);
            parts.push((chunk.clone(), (at - chunk.start) as usize, (to - chunk.start) as usize));
            at = to;
        }
        parts
    }

    fn fetch_ahead(&self, volume: &Arc<Volume>, window: &mut Window) {
        let last = window.chunks.iter().map(|chunk| chunk.end).max().unwrap_or(0);
        // Half of what is there has been read: time for more.
        let is_time = last < self.object.size && last.saturating_sub(window.next) < window.stride;
        if window.stride == 0 || !is_time {
            return;
        }
        window.stride = (window.stride * 2).min(LARGEST);
        let chunk = self.fetch(volume, last, last + window.stride, last);
        if chunk.end > chunk.start {
            window.chunks.push_back(chunk);
        }
    }

    /// Fetches up to `wish`; without room for that, no further than `need`.
    fn fetch(&self, volume: &Arc<Volume>, start: u64, wish: u64, need: u64) -> Chunk {
        let wish = wish.min(self.object.size);
        let mib = u32::try_from((wish - start).div_ceil(MIB)).unwrap_or(u32::MAX);
        let room = Arc::clone(&volume.shared.read_ahead).try_acquire_many_owned(mib).ok();
        let end = if room.is_some() { wish } else { need.min(self.object.size) };
        let (of, path) = (Arc::clone(volume), self.path.clone());
        let etag = self.object.etag.clone();
        let fetched = volume.runtime.spawn(async move {
            let got = of.s3.get(&of.key(&path), start, end - start, &etag).await;
            of.heed(got)
        });
        let bytes = fetched.map(|done| done.unwrap_or(Err(Errno::EIO))).boxed().shared();
        Chunk { start, end, bytes, _room: room.map(Arc::new) }
    }
}

impl Window {
    /// Sees whether the reader goes forward, and lets go of what it has behind it.
    fn turn_to(&mut self, offset: u64) {
        let is_forward = offset.abs_diff(self.next) <= NEAR;
        if !is_forward {
            self.chunks.clear();
            (self.next, self.stride) = (offset, 0);
            return;
        }
        self.stride = self.stride.max(FIRST);
        let behind = offset.saturating_sub(NEAR);
        // One that failed is tried again.
        self.chunks
            .retain(|chunk| chunk.end > behind && !matches!(chunk.bytes.peek(), Some(Err(_))));
    }
}
