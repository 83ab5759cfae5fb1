//! What can be asked for: shapes (api.md 10.1) and root filesystems (10.2).

use crate::runtime::{DESKTOP_ROOTFS, HOST_ROOTFS, Limits};

/// Disk size of every shape.
pub(crate) const DISK_MIB: u64 = 10_240;

/// Enough for builds and test suites; a fork bomb ends here, well below the host's own limits.
const MAX_PROCESSES: u32 = 4096;
/// And before it takes all the memory: where that runs out, everything inside crawls.
const PROCESSES_PER_MIB: u32 = 4;

/// A size of sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) id: &'static str,
    pub(crate) vcpu: u32,
    pub(crate) mem_mib: u64,
    pub(crate) disk_mib: u64,
    /// Hundredths of a CPU, on shapes that get less than their whole CPUs.
    pub(crate) cpu_quota_pct: Option<u32>,
}

impl Shape {
    const fn new(id: &'static str, vcpu: u32, mem_mib: u64, cpu_quota_pct: Option<u32>) -> Self {
        Self { id, vcpu, mem_mib, disk_mib: DISK_MIB, cpu_quota_pct }
    }

    pub(crate) const fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.mem_mib << 20,
            cpu_percent: match self.cpu_quota_pct {
                Some(percent) => percent,
                None => self.vcpu * 100,
            },
            max_processes: match self.mem_mib as u32 * PROCESSES_PER_MIB {
                few if few < MAX_PROCESSES => few,
                _ => MAX_PROCESSES,
            },
            disk_mib: self.disk_mib,
        }
    }
}

const SHAPES: [Shape; 11] = [
    Shape::new("s-0.25vcpu-512mb", 1, 512, Some(25)),
    Shape::new("s-0.5vcpu-1gb", 1, 1024, Some(50)),
    Shape::new("s-1vcpu-256mb", 1, 256, None),
    Shape::new("s-1vcpu-1gb", 1, 1024, None),
    Shape::new("s-1vcpu-2gb", 1, 2048, None),
    Shape::new("s-2vcpu-2gb", 2, 2048, None),
    Shape::new("s-2vcpu-4gb", 2, 4096, None),
    Shape::new("s-4vcpu-4gb", 4, 4096, None),
    Shape::new("s-4vcpu-8gb", 4, 8192, None),
    Shape::new("s-8vcpu-8gb", 8, 8192, None),
    Shape::new("s-8vcpu-16gb", 8, 16_384, None),
];

/// A root filesystem that this machine can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rootfs {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// Everything that can be asked for here.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    rootfs: Vec<Rootfs>,
    /// Why there is no root filesystem with a desktop, where there is none.
    no_desktop: Option<String>,
}

impl Catalog {
    /// A catalog of these root filesystems; the first is the default.
    pub(crate) fn new(rootfs: Vec<Rootfs>) -> Self {
        Self { rootfs, no_desktop: None }
    }

    /// Adds the root filesystem with a desktop, or why it is not there.
    pub(crate) fn with_desktop(mut self, desktop: Result<(), String>) -> Self {
        match desktop {
            Ok(()) => self.rootfs.push(Rootfs {
                name: DESKTOP_ROOTFS.to_owned(),
                description: format!("{HOST_ROOTFS} with a desktop to look at and to use"),
            }),
            Err(why) => self.no_desktop = Some(why),
        }
        self
    }

    /// Why this machine does not have a root filesystem that others have.
    pub(crate) fn missing_rootfs(&self, name: &str) -> Option<&str> {
        self.no_desktop.as_deref().filter(|_| name == DESKTOP_ROOTFS)
    }

    pub(crate) fn shapes(&self) -> &'static [Shape] {
        &SHAPES
    }

    pub(crate) fn shape(&self, id: &str) -> Option<&'static Shape> {
        SHAPES.iter().find(|shape| shape.id == id)
    }

    pub(crate) fn rootfs(&self) -> &[Rootfs] {
        &self.rootfs
    }

    pub(crate) fn default_rootfs(&self) -> Option<&Rootfs> {
        self.rootfs.first()
    }

    pub(crate) fn has_rootfs(&self, name: &str) -> bool {
        self.rootfs.iter().any(|rootfs| rootfs.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_what_its_name_says() {
        for shape in &SHAPES {
            let (cpu, mem) = shape.id["s-".len()..].split_once("vcpu-").unwrap();
            let percent = (cpu.parse::<f64>().unwrap() * 100.0) as u32;
            let mem_mib = match mem.strip_suffix("gb") {
                Some(gb) => gb.parse::<u64>().unwrap() * 1024,
                None => mem.strip_suffix("mb").unwrap().parse().unwrap(),
            };
            assert_eq!(shape.limits().cpu_percent, percent, "{}", shape.id);
            assert_eq!(shape.limits().memory_bytes, mem_mib << 20, "{}", shape.id);
            assert_eq!(shape.cpu_quota_pct.is_some(), percent < 100, "{}", shape.id);
        }
    }
}
