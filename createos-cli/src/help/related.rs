//! "See also": what a command is used together with.

/// Commands by their path, and the ones to look at next.
const RELATED: &[(&str, &[&str])] = &[
    ("login", &["whoami", "logout", "local start"]),
    ("logout", &["login", "whoami"]),
    ("whoami", &["login", "logout", "local status"]),
    ("version", &["completion", "man"]),
    ("completion", &["man"]),
    ("man", &["completion"]),
    ("local", &["whoami", "sandbox"]),
    ("local start", &["local status", "local stop", "local doctor"]),
    ("local stop", &["local start"]),
    ("local status", &["local start", "local doctor"]),
    ("local serve", &["local start"]),
    ("local doctor", &["local start"]),
    ("local image", &["sandbox rootfs", "sandbox create"]),
    ("sandbox", &["local start", "login"]),
    ("sandbox create", &["sandbox shapes", "sandbox rootfs", "sandbox exec", "sandbox rm"]),
    ("sandbox list", &["sandbox get", "sandbox rm"]),
    ("sandbox get", &["sandbox list", "sandbox edit"]),
    ("sandbox edit", &["sandbox get"]),
    ("sandbox pause", &["sandbox resume", "sandbox fork"]),
    ("sandbox resume", &["sandbox pause", "sandbox fork"]),
    ("sandbox fork", &["sandbox pause", "sandbox resume"]),
    ("sandbox rm", &["sandbox list", "sandbox pause"]),
    ("sandbox exec", &["sandbox shell", "sandbox push"]),
    ("sandbox shell", &["sandbox exec", "sandbox tunnel"]),
    ("sandbox push", &["sandbox pull", "sandbox exec"]),
    ("sandbox pull", &["sandbox push", "sandbox exec"]),
    ("sandbox tunnel", &["sandbox create", "sandbox shell"]),
    ("sandbox network", &["sandbox create", "sandbox firewall"]),
    ("sandbox firewall", &["sandbox create", "sandbox network"]),
    ("sandbox disk", &["sandbox create"]),
    ("sandbox template", &["sandbox create", "sandbox rootfs"]),
    ("sandbox shapes", &["sandbox create", "sandbox rootfs"]),
    ("sandbox rootfs", &["sandbox create", "sandbox template", "local image"]),
    ("sandbox offload", &["sandbox exec", "sandbox matrix"]),
    ("sandbox matrix", &["sandbox offload", "sandbox fork"]),
];

/// The lines for a command, one per related command.
pub(super) fn see_also(path: &str) -> Option<String> {
    let (_, related) = RELATED.iter().find(|(known, _)| *known == path)?;
    let lines: Vec<String> = related.iter().map(|name| format!("  createos {name}")).collect();
    Some(lines.join("\n"))
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    RELATED.iter().copied()
}
