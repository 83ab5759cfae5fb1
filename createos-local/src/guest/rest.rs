//! Whether the machine could end without a loss, because its files are all there is to it.

use crate::fifo;
use crate::tree::Children;
use std::fs;
use std::io;

/// Where programs leave things that are not in files.
const IN_MEMORY: [&str; 3] = ["/run", "/dev/shm", "/dev/mqueue"];
/// Shared memory, semaphores and queues outlive the processes that made them.
const KERNEL_OBJECTS: [&str; 3] = ["/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"];
/// What a machine has in /dev from its boot.
const DEVICES: [&str; 14] = [
    "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
    "tty", "urandom", "zero",
];

pub(crate) fn is_at_rest(children: &Children) -> bool {
    IN_MEMORY.iter().all(|path| names(path).is_ok_and(|names| names.iter().all(is_there_anew)))
        && KERNEL_OBJECTS.iter().all(|path| has_no_objects(path))
        && names("/dev").is_ok_and(|names| names.iter().all(|name| DEVICES.contains(&&**name)))
        && children.are_idle()
}

/// Made by us at every boot.
fn is_there_anew(name: &String) -> bool {
    name == fifo::NAME
}

/// What a directory holds. One that is not there holds nothing.
fn names(path: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The first line is the heading. A kernel without these has no such file.
fn has_no_objects(path: &str) -> bool {
    match fs::read_to_string(path) {
        Ok(text) => text.lines().count() <= 1,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_places_hold_nothing() {
        assert!(names("/nowhere").expect("nothing").is_empty());
        assert!(names("/proc/self").expect("something").contains(&"stat".to_owned()));
        assert!(has_no_objects("/nowhere") && !has_no_objects("/proc/self/status"));
    }
}
