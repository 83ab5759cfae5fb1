//! Taking files and links from the sandbox.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use tar::EntryType;
use tokio::sync::mpsc;

use super::local::{LocalRoot, Refusal, Staged};
use super::plan::Op;
use super::remote::{OPERATION, RemoteRoot, decode, failed};
use super::tree::Stat;
use crate::error::{ErrorKind, Result};
use crate::exec::ExecEvent;

/// Pieces that wait to be unpacked.
const WAITING: usize = 4;
/// What an archive may hold besides content, for each entry: headers and a long name.
const OVERHEAD: u64 = 16 << 10;

/// A file that is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    at: usize,
    link: bool,
    from: Stat,
    mode: u32,
}

/// What became of a file that was wanted.
#[derive(Debug)]
pub(super) enum Fetched {
    Staged(Staged),
    /// It is not that version any more.
    Changed,
    Failed(io::Error),
}

/// Takes the files and links of these operations, which are all writes, and stages them here.
pub(super) async fn fetch(
    remote: &RemoteRoot,
    local: &Arc<LocalRoot>,
    ops: &[Op],
) -> Result<Vec<Fetched>> {
    let mut wanted = HashMap::new();
    for (at, op) in ops.iter().enumerate() {
        if let Op::Write { path, link, from, mode, .. } = op {
            let (link, from, mode) = (*link, from.clone(), *mode);
            wanted.insert(path.clone(), Wanted { at, link, from, mode });
        }
    }
    let mut fetched: Vec<Fetched> = ops.iter().map(|_| Fetched::Changed).collect();
    let linked = archive(remote, local, &wanted, &mut fetched).await?;
    // A second name of a file comes without content, unless it comes alone.
    for path in linked {
        let Some(one) = wanted.get(&path).cloned() else { continue };
        let alone = HashMap::from([(path, one)]);
        archive(remote, local, &alone, &mut fetched).await?;
    }
    Ok(fetched)
}

/// Takes one archive; the paths in it that came without their content.
async fn archive(
    remote: &RemoteRoot,
    local: &Arc<LocalRoot>,
    wanted: &HashMap<Vec<u8>, Wanted>,
    fetched: &mut [Fetched],
) -> Result<Vec<Vec<u8>>> {
    let mark = format!("{:016x}", fastrand::u64(..));
    let mut paths: Vec<&[u8]> = wanted.keys().map(Vec::as_slice).collect();
    paths.sort_unstable();
    let script = remote.archive(&mark, &paths);
    let command = remote.sandbox.command("sh").args(["-c".to_owned(), script]).named(OPERATION);
    let mut events = command.stream().await?;
    let (give, take) = mpsc::channel(WAITING);
    let limit = wanted.values().map(|one| one.from.size + OVERHEAD).sum::<u64>() + (1 << 20);
    let unpacking = {
        let (local, wanted) = (local.clone(), wanted.clone());
        let reader = Pieces { take, piece: Bytes::new() }.take(limit);
        tokio::task::spawn_blocking(move || unpack(&local, &wanted, reader))
    };
    let mut give = Some(give);
    let mut text = Text::default();
    let mut stderr = Vec::new();
    let status = loop {
        let event = events.try_next().await?;
        match event {
            Some(ExecEvent::Stdout(bytes)) => {
                let (piece, ended) = text.take(&bytes);
                if let (Some(sender), false) = (&give, piece.is_empty()) {
                    // Refused when the archive has ended, or is no good.
                    let _ = sender.send(piece).await;
                }
                if ended {
                    give = None;
                }
            }
            Some(ExecEvent::Stderr(bytes)) => stderr.extend_from_slice(&bytes),
            Some(ExecEvent::Error(why)) => {
                return Err(failed(&remote.sandbox, ErrorKind::CommandFailed, why));
            }
            Some(ExecEvent::Exit(status)) => break status,
            None => {
                return Err(failed(&remote.sandbox, ErrorKind::StreamLost, "a part is missing"));
            }
        }
    };
    drop(give);
    let unpacked = unpacking.await;
    let (staged, linked) =
        unpacked.map_err(|_| failed(&remote.sandbox, ErrorKind::Io, "the runtime ended"))?;
    if matches!(status.code(), 44 | 45) {
        let why = format!("{} in the sandbox is gone", remote.path);
        return Err(failed(&remote.sandbox, ErrorKind::NotFound, why));
    }
    let versions = decode(&text.behind).and_then(|bytes| RemoteRoot::versions(&bytes, &mark));
    let now: HashMap<Vec<u8>, Stat> = versions.unwrap_or_default().into_iter().collect();
    for (path, result) in staged {
        let Some(one) = wanted.get(&path) else { continue };
        let same = now.get(&path).is_some_and(|stat| stat == &one.from);
        fetched[one.at] = match result {
            Ok(staged) if same => Fetched::Staged(staged),
            Ok(staged) => {
                local.discard(&staged);
                Fetched::Changed
            }
            Err(Refusal::Changed) => Fetched::Changed,
            Err(Refusal::Failed(error)) => Fetched::Failed(error),
        };
    }
    Ok(linked)
}

type Unpacked = (Vec<(Vec<u8>, Result<Staged, Refusal>)>, Vec<Vec<u8>>);

/// Stages what is wanted, and only that. An archive that is damaged or too long ends where it
/// does: what is missing is not staged.
fn unpack(local: &LocalRoot, wanted: &HashMap<Vec<u8>, Wanted>, reader: impl Read) -> Unpacked {
    let (mut staged, mut linked) = (Vec::new(), Vec::new());
    let mut archive = tar::Archive::new(reader);
    let Ok(entries) = archive.entries() else { return (staged, linked) };
    for entry in entries {
        let Ok(mut entry) = entry else { break };
        let name = entry.path_bytes().into_owned();
        let path = name.strip_prefix(b"./").unwrap_or(&name).to_vec();
        let Some(one) = wanted.get(&path) else { continue };
        let kind = entry.header().entry_type();
        let result = match kind {
            EntryType::Regular | EntryType::Continuous
                if !one.link && entry.size() == one.from.size =>
            {
                local.stage(&path, one.mode, &mut entry, one.from.size)
            }
            EntryType::Symlink if one.link => match entry.link_name_bytes() {
                Some(target) => local.stage_link(&path, &target),
                None => Err(Refusal::Changed),
            },
            EntryType::Link if wanted.len() > 1 => {
                linked.push(path);
                continue;
            }
            _ => Err(Refusal::Changed),
        };
        staged.push((path, result));
    }
    (staged, linked)
}

/// The text of the script: base64, a line `-`, and more.
#[derive(Default)]
struct Text {
    /// Digits that wait for their group of four.
    digits: Vec<u8>,
    ended: bool,
    /// What is behind the line.
    behind: Vec<u8>,
}

impl Text {
    /// What these bytes stand for, and whether the archive has ended.
    fn take(&mut self, bytes: &[u8]) -> (Bytes, bool) {
        let mut rest = bytes;
        if !self.ended {
            let end = rest.iter().position(|byte| *byte == b'-');
            let own = &rest[..end.unwrap_or(rest.len())];
            self.digits.extend(own.iter().copied().filter(|byte| !byte.is_ascii_whitespace()));
            self.ended = end.is_some();
            rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
        }
        self.behind.extend_from_slice(rest);
        let whole = self.digits.len() / 4 * 4;
        let decoded = STANDARD.decode(&self.digits[..whole]).unwrap_or_default();
        self.digits.drain(..whole);
        (decoded.into(), self.ended)
    }
}

struct Pieces {
    take: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.take.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_may_be_cut_anywhere() {
        let whole = format!("{}\n{}\n-\nYQ==\n", "aGVsbG8g", "d29ybGQ=");
        for cut in 0..whole.len() {
            let mut text = Text::default();
            let (one, _) = text.take(&whole.as_bytes()[..cut]);
            let (two, ended) = text.take(&whole.as_bytes()[cut..]);
            assert_eq!([one, two].concat(), b"hello world", "cut at {cut}");
            assert!(ended);
            assert_eq!(decode(&text.behind).unwrap(), b"a");
        }
    }
}
