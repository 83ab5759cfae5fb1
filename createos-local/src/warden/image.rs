//! Two files of an image that CRIU must see otherwise than it wrote them.
//!
//! A file of CRIU's begins with 8 bytes that say what it is; then come protocol buffers,
//! each after its length.

use crate::failure::{Failure, Result};
use crate::ranges::IDS;
use std::collections::{BTreeMap, BTreeSet};

const HEADER: usize = 8;

pub(crate) fn damaged(how: &str) -> Failure {
    format!("the image is damaged: {how}").into()
}

/// A user namespace, but with all ids mapped to a range.
pub(crate) fn users_of(file: &[u8], base: u32) -> Result<Vec<u8>> {
    let header = file.get(..HEADER).ok_or_else(|| damaged("its users are cut off"))?;
    let mut extent = Vec::new();
    for (field, value) in [(1, 0), (2, base), (3, IDS)] {
        write_field(&mut extent, field, value);
    }
    let mut message = Vec::new();
    for map in [1, 2] {
        message.extend([map << 3 | 2, extent.len().to_le_bytes()[0]]);
        message.extend(&extent);
    }
    Ok([header, &length_of(&message), &message].concat())
}

/// The tree of processes, with sessions that can be made.
///
/// CRIU makes a process where its session is: as a child of a member. That fails for an
/// orphan that fell to another process than PID 1 and left its session behind. Such a one
/// moves to the session of its parent: since its own has lost the process that led it, or
/// only shares a terminal with it, little depends on it.
pub(crate) fn tree_of(file: &[u8]) -> Result<Vec<u8>> {
    let cut = || damaged("its processes are cut off");
    let (header, mut rest) = file.split_at_checked(HEADER).ok_or_else(cut)?;
    let mut tasks = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let (message, after) = after.split_at_checked(length).ok_or_else(cut)?;
        tasks.push(Task::parse(message).ok_or_else(cut)?);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(cut());
    }
    move_orphans(&mut tasks);
    let mut file = header.to_vec();
    for task in &tasks {
        let message = task.to_message();
        file.extend(length_of(&message));
        file.extend(message);
    }
    Ok(file)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Task {
    pid: u32,
    parent: u32,
    group: u32,
    session: u32,
    threads: Vec<u32>,
}

impl Task {
    fn parse(mut message: &[u8]) -> Option<Self> {
        let mut task = Self::default();
        while !message.is_empty() {
            let tag = read_varint(&mut message)?;
            let value = read_varint(&mut message)?;
            // Each is a number by itself; there is nothing else in it.
            match (tag & 7 == 0, tag >> 3) {
                (true, 1) => task.pid = value,
                (true, 2) => task.parent = value,
                (true, 3) => task.group = value,
                (true, 4) => task.session = value,
                (true, 5) => task.threads.push(value),
                _ => return None,
            }
        }
        Some(task)
    }

    fn to_message(&self) -> Vec<u8> {
        let mut message = Vec::new();
        let fields = [(1, self.pid), (2, self.parent), (3, self.group), (4, self.session)];
        let threads = self.threads.iter().map(|thread| (5, *thread));
        for (field, value) in fields.into_iter().chain(threads) {
            write_field(&mut message, field, value);
        }
        message
    }
}

/// Parents stand before their children.
fn move_orphans(tasks: &mut [Task]) {
    let Some(init) = tasks.first().map(|task| task.pid) else { return };
    let parents: BTreeMap<u32, u32> = tasks.iter().map(|task| (task.pid, task.parent)).collect();
    let is_below = |pid: u32, above: u32| {
        let ancestors = std::iter::successors(parents.get(&pid), |pid| parents.get(pid));
        // A tree is not deeper than it has members; a damaged one might go round.
        ancestors.take(parents.len()).any(|ancestor| *ancestor == above)
    };
    let mut sessions = BTreeMap::new();
    let mut moved = BTreeSet::new();
    for task in tasks.iter_mut() {
        let own = task.pid == task.session || is_below(task.pid, task.session);
        // What fell to PID 1, CRIU knows how to make.
        if !own && task.parent != init && task.pid != init {
            let place = sessions.get(&task.parent).copied().unwrap_or(task.session);
            if place != task.session {
                task.session = place;
                moved.insert(task.pid);
            }
        }
        sessions.insert(task.pid, task.session);
    }
    // A group cannot reach over two sessions.
    let stays = |task: &&Task| !moved.contains(&task.pid);
    let staying = tasks.iter().filter(stays).flat_map(|task| [task.group, task.pid]);
    let staying: BTreeSet<u32> = staying.collect();
    let mut leaders = BTreeMap::new();
    for task in tasks.iter_mut().filter(|task| moved.contains(&task.pid)) {
        if staying.contains(&task.group) {
            task.group = *leaders.entry((task.group, task.session)).or_insert(task.pid);
        }
    }
}

fn read_varint(message: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

fn write_field(message: &mut Vec<u8>, field: u8, mut value: u32) {
    message.push(field << 3);
    while value >= 0x80 {
        message.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    message.push(value.to_le_bytes()[0]);
}

fn length_of(message: &[u8]) -> [u8; 4] {
    u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_described_as_criu_does() {
        // As CRIU 4.2 wrote it for 0..65536 at 0x70000000.
        let written: &[u8] = &[
            0x19, 0x43, 0x56, 0x54, 0x06, 0x49, 0x47, 0x55, 0x1c, 0, 0, 0, 0x0a, 0x0c, 8, 0, 0x10,
            0x80, 0x80, 0x80, 0x80, 7, 0x18, 0x80, 0x80, 4, 0x12, 0x0c, 8, 0, 0x10, 0x80, 0x80,
            0x80, 0x80, 7, 0x18, 0x80, 0x80, 4,
        ];
        assert_eq!(users_of(written, 0x7000_0000).expect("whole"), written);
        assert_ne!(users_of(written, 0x7001_0000).expect("whole"), written);
        assert!(users_of(&written[..7], 0).is_err());
    }

    fn task([pid, parent, group, session]: [u32; 4]) -> Task {
        Task { pid, parent, group, session, threads: vec![pid] }
    }

    fn moved<const N: usize>(tasks: [[u32; 4]; N]) -> Vec<[u32; 4]> {
        let mut tasks = tasks.map(task);
        move_orphans(&mut tasks);
        tasks.map(|task| [task.pid, task.parent, task.group, task.session]).to_vec()
    }

    #[test]
    fn a_tree_round_trips_and_every_cut_is_noticed() {
        let mut file = vec![7; HEADER];
        let mut ends = vec![HEADER];
        for each in [[1, 0, 1, 1], [300, 1, 300, 300], [70_000, 300, 300, 300]] {
            let message = task(each).to_message();
            file.extend(length_of(&message));
            file.extend(message);
            ends.push(file.len());
        }
        assert_eq!(tree_of(&file).expect("whole"), file);
        for length in (0..file.len()).filter(|length| !ends.contains(length)) {
            assert!(tree_of(&file[..length]).is_err(), "cut at {length}");
        }
        file[HEADER + 4] = 0x0a;
        assert!(tree_of(&file).is_err(), "a field that is none");
    }

    #[test]
    fn what_criu_can_make_stays() {
        for whole in [
            // A shell with a job, a daemon, a child forked before its parent's setsid.
            [[1, 0, 1, 1], [2, 1, 2, 2], [3, 2, 3, 2], [4, 3, 3, 2]],
            [[1, 0, 1, 1], [2, 1, 2, 2], [3, 2, 3, 3], [4, 3, 3, 1]],
            // Orphans of PID 1, with and without the leader.
            [[1, 0, 1, 1], [2, 1, 2, 2], [3, 1, 3, 2], [4, 1, 9, 9]],
        ] {
            assert_eq!(moved(whole), whole);
        }
    }

    #[test]
    fn orphans_elsewhere_move_to_their_parent_s_session() {
        // 2 looks after what 3 started; 3 is gone. 5 and 6 are a pipeline below 4.
        assert_eq!(
            moved([[1, 0, 1, 1], [2, 1, 1, 1], [4, 2, 3, 3], [5, 4, 5, 3], [6, 4, 5, 3]]),
            [[1, 0, 1, 1], [2, 1, 1, 1], [4, 2, 3, 1], [5, 4, 5, 1], [6, 4, 5, 1]]
        );
        // 3 still leads; 4 and 5 have left it and its group.
        assert_eq!(
            moved([[1, 0, 1, 1], [2, 1, 1, 1], [3, 2, 3, 3], [4, 2, 3, 3], [5, 4, 3, 3]]),
            [[1, 0, 1, 1], [2, 1, 1, 1], [3, 2, 3, 3], [4, 2, 4, 1], [5, 4, 4, 1]]
        );
        // A daemon below has a session of its own, and keeps it.
        assert_eq!(
            moved([[1, 0, 1, 1], [2, 1, 1, 1], [4, 2, 3, 3], [5, 4, 5, 5]]),
            [[1, 0, 1, 1], [2, 1, 1, 1], [4, 2, 3, 1], [5, 4, 5, 5]]
        );
    }
}
