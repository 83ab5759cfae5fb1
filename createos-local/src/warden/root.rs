//! The root filesystem of a sandbox, put together from what it is layered from.

use crate::disks::Disks;
use crate::failure::Result;
use crate::layers::{self, Creator};
use crate::protocol::Boot;
use crate::ranges::Range;
use crate::sys;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The mounts that make up a root filesystem, not attached anywhere yet.
pub(crate) struct Root {
    pub(crate) system: OwnedFd,
    pub(crate) usr: Option<OwnedFd>,
}

/// Where each part can be seen.
struct Parts {
    agent: String,
    private: String,
    layers: Vec<String>,
    base: String,
    host_usr: Option<String>,
}

impl Root {
    /// For an ordinary user, inside the sandbox's namespaces. The current directory is the
    /// data directory.
    pub(crate) fn of_user(boot: &Boot, agent: &str) -> Result<Self> {
        let parts = Parts {
            agent: agent.to_owned(),
            private: boot.directory.clone(),
            layers: boot.layers.clone(),
            base: boot.base.clone(),
            host_usr: boot.host_usr.then(|| "/usr".to_owned()),
        };
        parts.put_together(Creator::User)
    }

    /// For host root, from outside: only host root may mount layers whose ids are mapped.
    pub(crate) fn of_range(
        boot: &Boot,
        agent: &str,
        range: &Range,
        disks: Option<&Disks>,
    ) -> Result<Self> {
        let mut shown = Shown(Vec::new());
        let below = |path: &str| format!("{}/{path}", range.stage);
        let mut place = |directory: &str, name: &str| -> Result<String> {
            let Some(disk) = disks.and_then(|disks| disks.mount_of(directory)) else {
                return Ok(below(directory));
            };
            let target = below(name);
            layers::attach_mapped(&disk, Path::new(&target), &range.mapping)?;
            shown.0.push(PathBuf::from(&target));
            Ok(target)
        };
        let private = place(&boot.directory, "disk")?;
        let layers = boot.layers.iter().enumerate();
        let layers = layers.map(|(index, layer)| place(layer, &format!("l{index}")));
        let parts = Parts {
            agent: below(agent),
            private,
            layers: layers.collect::<Result<_>>()?,
            base: below(&boot.base),
            host_usr: boot.host_usr.then(|| below("usr")),
        };
        parts.put_together(Creator::Root { base: range.base })
    }
}

impl Parts {
    fn put_together(&self, creator: Creator) -> Result<Root> {
        let private = Path::new(&self.private);
        let of_layers = |part: &str| -> Vec<String> {
            self.layers.iter().map(|layer| format!("{layer}/{part}/upper")).collect()
        };
        let mut lower = vec![self.agent.clone()];
        lower.extend(of_layers("root"));
        lower.push(format!("{}/fs", self.base));
        let system = layers::overlay(&lower, &private.join("root"), creator)?;
        let Some(host_usr) = &self.host_usr else { return Ok(Root { system, usr: None }) };
        // The base's own `usr` lies over the host's: it hides what is private there, and
        // gives ordinary users directories that they may write in.
        let mut lower = of_layers("usr");
        lower.extend([format!("{}/usr", self.base), host_usr.clone()]);
        let usr = layers::overlay(&lower, &private.join("usr"), creator)?;
        Ok(Root { system, usr: Some(usr) })
    }
}

/// Disks shown with mapped ids, until the overlays hold on to them by themselves.
struct Shown(Vec<PathBuf>);

impl Drop for Shown {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = sys::detach_mount(path);
        }
    }
}
