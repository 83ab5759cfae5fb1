//! Text for readers that take no more than so much: output and files with marks.

use createos_sdk::{ErrorKind, Gap};
use serde_json::json;

use super::guest::machine;
use super::server::{RawServer, STREAM_HEAD};
use super::{answering, fail, sandbox, success};

fn missing(gap: Option<Gap>) -> Option<(usize, u64)> {
    gap.map(|gap| (gap.at, gap.bytes))
}

#[tokio::test]
async fn the_ends_of_a_file_are_read_byte_for_byte() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    // Any byte, in the name too; line breaks at both ends.
    let path = directory.path().join("a\n'$(id) %");
    let content: Vec<u8> = (0..=255).chain(0..=255).chain([b'\n']).collect();
    std::fs::write(&path, &content).unwrap();
    let length = content.len();
    for (head, tail) in [(0, 0), (0, 5), (5, 0), (11, 7), (500, 12), (513, 0), (0, 513), (900, 900)]
    {
        let excerpt = files.read_excerpt(path.as_os_str().as_encoded_bytes(), head, tail).await;
        let excerpt = excerpt.unwrap();
        if head + tail >= length {
            assert_eq!((&excerpt.bytes[..], excerpt.gap), (&content[..], None));
            continue;
        }
        let expected = [&content[..head], &content[length - tail..]].concat();
        assert_eq!(excerpt.bytes, expected, "{head} {tail}");
        assert_eq!(missing(excerpt.gap), Some((head, (length - head - tail) as u64)));
    }
    std::fs::write(&path, "").unwrap();
    let empty = files.read_excerpt(path.as_os_str().as_encoded_bytes(), 5, 5).await.unwrap();
    assert!(empty.bytes.is_empty() && empty.gap.is_none() && empty.marked().is_empty());
}

#[tokio::test]
async fn an_excerpt_of_a_long_file_is_short_on_its_way_too() {
    let server = machine().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(3 << 30).unwrap();
    let excerpt = sandbox(&server.uri()).files().read_excerpt(path.to_str().unwrap(), 10, 20);
    let excerpt = excerpt.await.unwrap();
    assert_eq!(excerpt.bytes, [0; 30].as_slice());
    assert_eq!(missing(excerpt.gap), Some((10, (3 << 30) - 30)));
    assert!(excerpt.marked().contains("\n[… 3221225442 bytes left out …]\n"));
}

#[tokio::test]
async fn what_is_no_file_has_no_excerpt() {
    let server = machine().await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
    let at = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
    for (path, kind) in [
        (at("missing"), ErrorKind::NotFound),
        (at("dangling"), ErrorKind::NotFound),
        (directory.path().to_str().unwrap().to_owned(), ErrorKind::InvalidArgument),
        ("/dev/zero".to_owned(), ErrorKind::InvalidArgument),
        ("relative".to_owned(), ErrorKind::InvalidArgument),
    ] {
        let error = files.read_excerpt(&path, 5, 5).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Some("files.read_excerpt")), "{path}");
    }
    let before = server.received_requests().await.unwrap().len();
    for (head, tail) in [(8 << 20, 1), (usize::MAX, 1)] {
        let error = files.read_excerpt("/etc/hosts", head, tail).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with("head and tail"), "{error}");
    }
    assert_eq!(server.received_requests().await.unwrap().len(), before);
}

#[tokio::test]
async fn answers_that_are_no_excerpt_are_refused() {
    for stdout in ["", "zz", "35 0a 61 62 63", "31 0a 61 62", "ff 0a", "2d 31 0a"] {
        let result = json!({"stdout": stdout, "stderr": "", "exit_code": 0});
        let server = answering(success(json!({"result": result, "exec_ms": 1.0}))).await;
        let read = sandbox(&server.uri()).files().read_excerpt("/x", 5, 5).await;
        match stdout {
            // A file that shrank meanwhile: what is missing is told.
            "35 0a 61 62 63" => assert_eq!(missing(read.unwrap().gap), Some((3, 2))),
            _ => assert_eq!(read.unwrap_err().kind(), ErrorKind::Protocol, "{stdout:?}"),
        }
    }
    let server = answering(fail(409, "sandbox is not running")).await;
    let read = sandbox(&server.uri()).files().read_excerpt("/x", 5, 5).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn output_is_marked_where_it_was_left_out() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        for _ in 0..1000 {
            connection.chunk("{\"stdout\":\"0123456789\"}\n").await?;
        }
        connection.chunk("{\"stderr\":\"w\u{e4}rning\"}\n{\"exit_code\":0}\n").await?;
        connection.chunk("").await
    })
    .await;
    let output = sandbox(&server.url()).command("x").limit_output(12, 4).await.unwrap();
    assert_eq!(output.stdout_marked(), "012345678901\n[… 9984 bytes left out …]\n6789");
    assert_eq!(output.stderr_marked(), "w\u{e4}rning");
    let output = sandbox(&server.url()).command("x").limit_output(2, 2).await.unwrap();
    // The character in the middle of the cut goes whole.
    assert_eq!(output.stderr_marked(), "w\n[… 5 bytes left out …]\nng");
}
