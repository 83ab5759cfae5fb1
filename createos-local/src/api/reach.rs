//! What a delegated token reaches (api.md 1.2): its own sandbox's commands, files, processes,
//! desktop, ports and life, and nothing else.

use axum::http::{Method, StatusCode};
use createos_sdk::SandboxId;

use super::answer::Fail;
use crate::core::CoreError;

/// Parts of a sandbox that its token opens, each with everything below.
const OPEN: [&str; 9] =
    ["pause", "resume", "exec", "files", "processes", "computer", "tunnel", "shell", "shell-ws"];

/// Refuses what the token of `own` does not open. What it does not own it does not even learn
/// the existence of.
pub(super) fn check(own: &SandboxId, method: &Method, path: &str) -> Result<(), Fail> {
    let refuse = || {
        let message = "an access token reaches its own sandbox's commands, files, processes, \
                       ports and life cycle; this needs the owner's key";
        Err(Fail::new(StatusCode::FORBIDDEN, message))
    };
    let Some(rest) = path.strip_prefix("/v1/sandboxes/") else { return refuse() };
    let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
    if id == "by-ip" {
        return refuse();
    }
    if id != own.as_str() {
        return Err(CoreError::NoSandbox.into());
    }
    let first = part.split('/').next().unwrap_or_default();
    match first {
        "" if matches!(*method, Method::GET | Method::HEAD | Method::DELETE) => Ok(()),
        first if OPEN.contains(&first) => Ok(()),
        _ => refuse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_working_parts_of_its_own_sandbox() {
        let own: SandboxId = "sb-own".parse().unwrap();
        let status = |method: Method, path: &str| {
            check(&own, &method, path).err().map(|fail| fail.status().as_u16())
        };
        for (method, path) in [
            (Method::GET, "/v1/sandboxes/sb-own"),
            (Method::DELETE, "/v1/sandboxes/sb-own"),
            (Method::POST, "/v1/sandboxes/sb-own/pause"),
            (Method::POST, "/v1/sandboxes/sb-own/exec"),
            (Method::POST, "/v1/sandboxes/sb-own/tunnel/80"),
            (Method::GET, "/v1/sandboxes/sb-own/processes/p/connect"),
            (Method::GET, "/v1/sandboxes/sb-own/computer/screen"),
        ] {
            assert_eq!(status(method, path), None, "{path}");
        }
        for (method, path) in [
            (Method::PATCH, "/v1/sandboxes/sb-own"),
            (Method::POST, "/v1/sandboxes/sb-own/fork"),
            (Method::GET, "/v1/sandboxes/sb-own/access-token"),
            (Method::POST, "/v1/sandboxes/sb-own/access-token/rotate"),
            (Method::PUT, "/v1/sandboxes/sb-own/egress"),
            (Method::POST, "/v1/sandboxes/sb-own/executable"),
            (Method::GET, "/v1/sandboxes"),
            (Method::POST, "/v1/sandboxes"),
            (Method::GET, "/v1/sandboxes/by-ip/10.0.0.2"),
            (Method::GET, "/v1/whoami"),
            (Method::GET, "/v1/networks"),
        ] {
            assert_eq!(status(method, path), Some(403), "{path}");
        }
        for path in ["/v1/sandboxes/sb-other", "/v1/sandboxes/sb-own2/exec", "/v1/sandboxes/"] {
            assert_eq!(status(Method::GET, path), Some(404), "{path}");
        }
    }
}
