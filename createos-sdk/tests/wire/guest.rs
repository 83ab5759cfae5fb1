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

/// Everything below a directory: kind, permissions and content by path.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, (String, u32)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = match meta.file_type() {
                kind if kind.is_dir() => {
                    open.push(path.clone());
                    "dir".to_owned()
                }
                kind if kind.is_symlink() => format!("{:?}", std::fs::read_link(&path).unwrap()),
                _ => format!("{:?}", std::fs::read(&path).unwrap()),
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            found.insert(name, (content, meta.permissions().mode() & 0o777));
        }
    }
    found
}

fn populate(root: &Path) {
    std::fs::create_dir_all(root.join("deep/er").join("x".repeat(150))).unwrap();
    std::fs::write(root.join("deep/er").join("x".repeat(150)).join("y".repeat(150)), "1").unwrap();
    for name in NAMES {
        let path = root.join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(&path, name).unwrap();
    }
    let run = root.join("run.sh");
    std::fs::write(&run, vec![b'x'; 700_000]).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("../run.sh", root.join("deep/link")).unwrap();
    std::fs::create_dir(root.join("sealed")).unwrap();
    std::fs::write(root.join("sealed/inside"), "").unwrap();
    let sealed = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(root.join("sealed"), sealed).unwrap();
}

#[tokio::test]
async fn directories_go_there_and_back_unchanged() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let work = tempfile::tempdir().unwrap();
    let (from, there, back) =
        (work.path().join("from"), work.path().join("the re\n"), work.path().join("back"));
    std::fs::create_dir(&from).unwrap();
    populate(&from);
    let told = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let sink = told.clone();
    let progress = move |at: createos_sdk::Progress| {
        sink.store(at.bytes, std::sync::atomic::Ordering::SeqCst);
    };
    let sent = files
        .upload_dir(&from, there.as_os_str().as_bytes())
        .progress(progress.clone())
        .await
        .unwrap();
    assert!(told.swap(0, std::sync::atomic::Ordering::SeqCst) > 700_000);
    assert_eq!(tree(&there), tree(&from));
    let got = files.download_dir(there.as_os_str().as_bytes(), &back).progress(progress);
    let got = got.await.unwrap();
    assert!(told.load(std::sync::atomic::Ordering::SeqCst) > 700_000);
    assert_eq!(tree(&back), tree(&from));
    assert_eq!(got, sent);
    assert_eq!((sent.files, sent.symlinks, sent.directories), (15, 1, 4));

    // Again, over what is there.
    for root in [&from, &there, &back] {
        let open = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(root.join("sealed"), open).unwrap();
    }
    std::fs::write(there.join("run.sh"), "new").unwrap();
    files.download_dir(there.as_os_str().as_bytes(), &back).await.unwrap();
    assert_eq!(tree(&back), tree(&there));
}

#[tokio::test]
async fn what_is_no_directory_and_links_that_lead_out_are_refused() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let work = tempfile::tempdir().unwrap();
    let work = work.path();
    std::fs::write(work.join("file"), "1").unwrap();
    std::fs::create_dir(work.join("dir")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", work.join("dir/out")).unwrap();
    let error = files.upload_dir(work.join("file"), "/tmp/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = files.upload_dir(work.join("dir"), at(work, b"file")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = files.download_dir(at(work, b"file"), work.join("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = files.download_dir(at(work, b"none"), work.join("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = files.download_dir(at(work, b"dir"), work.join("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.message().contains("/etc/passwd"), "{error}");
    let got = files.download_dir(at(work, b"dir"), work.join("x")).skip_outside_links();
    assert_eq!(got.await.unwrap().skipped, 1);
}

/// Nothing stays behind in the sandbox, also when the transfer is given up.
#[tokio::test]
async fn the_archive_is_removed() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("file"), vec![b'x'; 100_000]).unwrap();
    files.upload_dir(work.path(), at(work.path(), b"copy")).await.unwrap();
    let archive = || async {
        let seen = server.received_requests().await.unwrap();
        let path = |request: &Request| {
            let pairs = request.url.query_pairs().into_owned();
            pairs.into_iter().find(|(name, _)| name == "path").map(|(_, path)| path)
        };
        seen.iter().rev().find_map(path).unwrap()
    };
    let path = archive().await;
    for _ in 0..500 {
        if !Path::new(&path).exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{path} was left behind");
}

#[tokio::test]
async fn a_download_is_a_reader_too() {
    use tokio::io::AsyncReadExt;

    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let work = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(work.path().join("file"), &content).unwrap();
    let path = work.path().join("file").to_str().unwrap().to_owned();
    let mut reader = files.download(path).await.unwrap();
    let mut first = [0; 7];
    reader.read_exact(&mut first).await.unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert_eq!([&first[..], &rest].concat(), content);
    let cut = super::server::RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write("HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nabc").await
    })
    .await;
    let mut reader = sandbox(&cut.url()).files().download("/x").await.unwrap();
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<createos_sdk::Error>().unwrap();
    assert_eq!(inner.kind(), ErrorKind::StreamLost);
}
