//! File operations against a real shell and its tools: the scripted server runs the command
//! it is sent on this machine.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use createos_sdk::{ErrorKind, FileKind, Files};
use serde_json::{Value, json};
use wiremock::matchers::{any, method};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::{sandbox, success};

/// Runs what is asked for; files are those of this machine.
pub(crate) async fn machine() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(run).mount(&server).await;
    Mock::given(any()).respond_with(file).mount(&server).await;
    server
}

fn run(request: &Request) -> ResponseTemplate {
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let arguments = asked["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let done = Command::new(asked["cmd"].as_str().unwrap())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = done.status.code().unwrap();
    let result = json!({"stdout": text(&done.stdout), "stderr": text(&done.stderr),
                        "exit_code": code});
    success(json!({"result": result, "exec_ms": 1.0}))
}

fn file(request: &Request) -> ResponseTemplate {
    let (_, path) = request.url.query_pairs().find(|(name, _)| name == "path").unwrap();
    if request.method.as_str() == "PUT" {
        std::fs::write(&*path, &request.body).unwrap();
        return success(json!({"bytes": request.body.len(), "path": path}));
    }
    match std::fs::read(&*path) {
        Ok(bytes) => ResponseTemplate::new(200).set_body_bytes(bytes),
        Err(_) => ResponseTemplate::new(404),
    }
}

fn at(directory: &Path, name: &[u8]) -> Vec<u8> {
    [directory.as_os_str().as_bytes(), b"/", name].concat()
}

async fn names(files: &Files, directory: &Path) -> BTreeMap<Vec<u8>, FileKind> {
    let entries = files.list(directory.as_os_str().as_bytes()).await.unwrap();
    entries.into_iter().map(|entry| (entry.name.to_vec(), entry.info.kind)).collect()
}

const NAMES: &[&[u8]] = &[
    b"plain",
    b"-rf",
    b"--help",
    b" blank ",
    b"new\nline\n",
    b"\n81a4 5 1 0 0 .",
    b"quote'\"`$(id)${HOME}\\n%s;&|*?[a]~#!",
    b"caf\xc3\xa9",
    b"bytes \xff\xfe\x80",
    b"\x01\x1b[31m\x7f",
    b"...",
    b".hidden",
];

#[tokio::test]
async fn any_name_survives_every_operation() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for name in NAMES {
        files.create_dir(at(directory, name)).await.unwrap();
    }
    let found = names(&files, directory).await;
    assert_eq!(found.len(), NAMES.len());
    for name in NAMES {
        assert_eq!(found.get(*name), Some(&FileKind::Directory), "{name:?}");
        let info = files.stat(at(directory, name)).await.unwrap();
        assert!(info.is_dir());
        let moved = [name, &b"\n2"[..]].concat();
        files.rename(at(directory, name), at(directory, &moved)).await.unwrap();
        let inner = [&moved[..], b"/", name].concat();
        files.create_dir(at(directory, &inner)).await.unwrap();
        let not_empty = files.remove(at(directory, &moved)).await.unwrap_err();
        assert_eq!(not_empty.kind(), ErrorKind::Conflict);
        files.remove_all(at(directory, &moved)).await.unwrap();
    }
    assert!(names(&files, directory).await.is_empty());
}

#[tokio::test]
async fn what_is_known_about_files_is_exact() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::write(directory.join("file"), "12345").unwrap();
    let mode = std::fs::Permissions::from_mode(0o4751);
    std::fs::set_permissions(directory.join("file"), mode).unwrap();
    std::os::unix::fs::symlink("nowhere\nat all", directory.join("link")).unwrap();
    let info = files.stat(at(directory, b"file")).await.unwrap();
    assert_eq!((info.size, info.mode, info.kind), (5, 0o4751, FileKind::File));
    let modified = std::fs::metadata(directory.join("file")).unwrap().modified().unwrap();
    let told = info.modified.unwrap().to_system_time();
    assert!(modified.duration_since(told).unwrap().as_secs() < 1);
    let link = files.stat(at(directory, b"link")).await.unwrap();
    assert_eq!(link.kind, FileKind::Symlink);
    assert_eq!(link.link_target.unwrap(), "nowhere\nat all");
    files.remove(at(directory, b"link")).await.unwrap();
    files.list("/").await.unwrap();
    files.stat("/").await.unwrap();
}

#[tokio::test]
async fn failures_say_what_they_are() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::write(directory.join("file"), "12345").unwrap();
    std::fs::create_dir(directory.join("dir")).unwrap();
    let missing = at(directory, b"missing");
    for error in [
        files.list(&missing).await.unwrap_err(),
        files.stat(&missing).await.unwrap_err(),
        files.remove(&missing).await.unwrap_err(),
        files.remove_all(&missing).await.unwrap_err(),
        files.rename(&missing, at(directory, b"x")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.operation().unwrap().starts_with("files.") && error.resource().is_some());
    }
    let file = at(directory, b"file");
    assert_eq!(files.list(&file).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(files.create_dir(&file).await.unwrap_err().kind(), ErrorKind::Conflict);
    let onto = files.rename(&file, at(directory, b"dir")).await.unwrap_err();
    assert_eq!(onto.kind(), ErrorKind::Conflict);
    let beside = files.rename(&file, at(directory, b"no/where")).await.unwrap_err();
    assert_eq!(beside.kind(), ErrorKind::CommandFailed);
    assert!(directory.join("file").exists());
    for path in ["relative", "/a/../b", "/", ""] {
        let error = files.remove_all(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path:?}");
    }
}
