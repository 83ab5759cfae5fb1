//! Uploads and downloads: bounded, exact, and never half.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::{ErrorKind, MAX_FILE_BYTES, RequestOptions, Result, Upload};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use wiremock::ResponseTemplate;

use super::server::RawServer;
use super::{answering, sandbox, success};

fn file_answer(body: &[u8], announced: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {announced}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Serves a file, of which it announces more than it sends.
async fn cutting_off(sent: usize, announced: usize) -> RawServer {
    RawServer::start(move |_, mut connection| async move {
        connection.read_request().await?;
        connection.write(file_answer(&vec![b'x'; sent], announced)).await
    })
    .await
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_download_is_a_stream_with_a_length() -> Result<()> {
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let server = answering(ResponseTemplate::new(200).set_body_bytes(content.clone())).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let download = sandbox(&server.uri())
        .files()
        .download("/x")
        .progress(move |progress| log.lock().unwrap().push((progress.bytes, progress.total)))
        .await?;
    let len = content.len() as u64;
    assert_eq!(download.len(), Some(len));
    assert!(!download.is_empty());
    let pieces: Vec<Bytes> = download.try_collect().await?;
    assert_eq!(pieces.concat(), content);
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(len, Some(len))));
    Ok(())
}

#[tokio::test]
async fn a_download_that_breaks_off_is_lost() {
    let server = cutting_off(1000, 1001).await;
    let files = sandbox(&server.url()).files();
    let mut download = files.download("/x").await.unwrap();
    let mut received = 0;
    let error = loop {
        match download.next().await.unwrap() {
            Ok(piece) => received += piece.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(received, 1000);
    assert_eq!(error.kind(), ErrorKind::StreamLost);
    assert!(error.message().contains("1000 of 1001"), "{error}");
    assert!(download.next().await.is_none());

    let error = files.read("/x").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connection, 3));
}

#[tokio::test]
async fn a_silent_download_is_a_timeout() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(file_answer(b"abc", 10)).await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let files = sandbox(&server.url()).files();
    let quick = || RequestOptions::new().stall_timeout(Duration::from_millis(100));
    let download = files.download("/x").with(quick()).await.unwrap();
    let outcome: Result<Vec<Bytes>> = download.try_collect().await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
    let error = files.read("/x").with(quick()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 3));
}

#[tokio::test]
async fn reading_is_bounded() -> Result<()> {
    let server = answering(ResponseTemplate::new(200).set_body_bytes(vec![b'x'; 1000])).await;
    let files = sandbox(&server.uri()).files();
    assert_eq!(files.read("/x").limit(1000).await?.len(), 1000);
    let error = files.read("/x").limit(999).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Protocol, 1));
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write("HTTP/1.1 200 OK\r\n\r\n").await?;
        loop {
            connection.write([b'x'; 4096]).await?;
        }
    })
    .await;
    let error = sandbox(&server.url()).files().read("/x").limit(1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    Ok(())
}

#[tokio::test]
async fn text_is_strict() -> Result<()> {
    let server = answering(ResponseTemplate::new(200).set_body_bytes(*b"a\xff")).await;
    let error = sandbox(&server.uri()).files().read_string("/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.message().contains("byte 1"), "{error}");
    let server = answering(ResponseTemplate::new(200).set_body_string("ä")).await;
    assert_eq!(sandbox(&server.uri()).files().read_string("/x").await?, "ä");
    Ok(())
}

#[tokio::test]
async fn a_local_file_is_replaced_whole_or_not_at_all() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let local = directory.path().join("out.bin");
    std::fs::write(&local, "old").unwrap();

    let server = cutting_off(100_000, 100_001).await;
    let error = sandbox(&server.url()).files().download_to("/x", &local).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamLost);
    assert_eq!(std::fs::read(&local).unwrap(), b"old");
    assert_eq!(names(directory.path()), ["out.bin"]);

    let server = answering(ResponseTemplate::new(404)).await;
    let error = sandbox(&server.uri()).files().download_to("/x", &local).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read(&local).unwrap(), b"old");

    let server = answering(ResponseTemplate::new(200).set_body_string("new")).await;
    let bytes = sandbox(&server.uri()).files().download_to("/x", &local).await?;
    assert_eq!((bytes, std::fs::read(&local).unwrap()), (3, b"new".to_vec()));
    assert_eq!(names(directory.path()), ["out.bin"]);
    Ok(())
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_local_file_has_the_mode_of_any_new_file() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (ordinary, local) = (directory.path().join("a"), directory.path().join("b"));
    std::fs::write(&ordinary, "").unwrap();
    let server = answering(ResponseTemplate::new(200).set_body_string("new")).await;
    sandbox(&server.uri()).files().download_to("/x", &local).await?;
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&local), mode(&ordinary));
    Ok(())
}

#[tokio::test]
async fn giving_a_download_up_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let local = directory.path().join("out.bin");
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(file_answer(b"abc", 10)).await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let (begun, on_begun) = tokio::sync::oneshot::channel();
    let begun = Mutex::new(Some(begun));
    let download = sandbox(&server.url()).files().download_to("/x", &local).progress(move |_| {
        if let Some(begun) = begun.lock().unwrap().take() {
            let _ = begun.send(());
        }
    });
    let task = tokio::spawn(async move { download.await });
    on_begun.await.unwrap();
    assert_eq!(names(directory.path()).len(), 1, "the partial file");
    task.abort();
    let _ = task.await;
    assert!(names(directory.path()).is_empty());
}

#[tokio::test]
async fn local_places_that_cannot_be_written_are_named() {
    let server = answering(ResponseTemplate::new(200).set_body_string("new")).await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    let error = files.download_to("/x", directory.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let missing = directory.path().join("no/such/x");
    let error = files.download_to("/x", &missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("no/such/x"), "{error}");
}

#[tokio::test]
async fn every_source_arrives_with_its_length() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    let local = directory.path().join("in");
    std::fs::write(&local, &content).unwrap();
    let len = content.len() as u64;
    let pieces: Vec<_> =
        content.chunks(7777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let known = [
        Upload::from(content.clone()),
        Upload::file(&local),
        Upload::reader(std::io::Cursor::new(content.clone())).with_len(len),
        Upload::stream(stream::iter(pieces)).with_len(len),
    ];
    for upload in known {
        let server = answering(success(json!({}))).await;
        let what = format!("{upload:?}");
        let last = Arc::new(Mutex::new(None));
        let log = last.clone();
        sandbox(&server.uri())
            .files()
            .write("/x", upload)
            .progress(move |progress| *log.lock().unwrap() = Some((progress.bytes, progress.total)))
            .await?;
        let request = &server.received_requests().await.unwrap()[0];
        assert_eq!(request.body, content, "{what}");
        assert_eq!(request.headers["content-length"], len.to_string(), "{what}");
        assert_eq!(*last.lock().unwrap(), Some((len, Some(len))), "{what}");
    }
    let server = answering(success(json!({}))).await;
    let unknown = Upload::reader(std::io::Cursor::new(content.clone()));
    sandbox(&server.uri()).files().write("/x", unknown).await?;
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.body, content);
    assert_eq!(request.headers["transfer-encoding"], "chunked");
    Ok(())
}

#[tokio::test]
async fn empty_files_are_files() -> Result<()> {
    let server = answering(ResponseTemplate::new(204)).await;
    sandbox(&server.uri()).files().write("/x", "").await?;
    let request = &server.received_requests().await.unwrap()[0];
    assert!(request.body.is_empty());
    assert_eq!(request.headers["content-length"], "0");
    let server = answering(ResponseTemplate::new(200)).await;
    assert!(sandbox(&server.uri()).files().read("/x").await?.is_empty());
    Ok(())
}

/// What a server saw of one request: its head, and how many bytes of body came.
async fn upload_seen_by_server(upload: Upload) -> (createos_sdk::Error, String, usize) {
    let (report, on_report) = tokio::sync::oneshot::channel();
    let report = Mutex::new(Some(report));
    let server = RawServer::start(move |_, mut connection| {
        let report = report.lock().unwrap().take();
        async move {
            let head = connection.read_head().await?;
            let body = connection.read_to_end().await?;
            if let Some(report) = report {
                let _ = report.send((head, body));
            }
            Ok(())
        }
    })
    .await;
    let error = sandbox(&server.url()).files().write("/x", upload).await.unwrap_err();
    let (head, body) = on_report.await.unwrap();
    (error, head, body.len())
}

/// A source that gives its pieces slowly enough for the server to see the first of them.
fn slowly<const N: usize>(pieces: [std::io::Result<Bytes>; N]) -> Upload {
    Upload::stream(stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        piece
    }))
}

#[tokio::test]
async fn a_source_that_fails_or_lies_aborts_the_upload() {
    let piece = |size: usize| Ok(Bytes::from(vec![b'x'; size]));
    let broken = slowly([piece(10), Err(std::io::Error::other("disk on fire"))]);
    let (error, head, _) = upload_seen_by_server(broken).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("disk on fire"), "{error}");
    assert!(head.contains("transfer-encoding: chunked"));

    let short = slowly([piece(10), Ok(Bytes::new())]).with_len(11);
    let (error, _, body) = upload_seen_by_server(short).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("10 of 11") && body <= 10, "{error}");

    let long = slowly([piece(10), piece(10)]).with_len(11);
    let (error, _, body) = upload_seen_by_server(long).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(body < 11, "the server must not see a complete body");
}

#[tokio::test]
async fn what_is_too_large_or_no_file_is_refused_before_any_traffic() {
    let server = answering(ResponseTemplate::new(500)).await;
    let files = sandbox(&server.uri()).files();
    let directory = tempfile::tempdir().unwrap();
    let sparse = directory.path().join("sparse");
    std::fs::File::create(&sparse).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    for upload in [
        Upload::file(&sparse),
        Upload::reader(tokio::io::empty()).with_len(MAX_FILE_BYTES + 1),
        Upload::file(directory.path()),
    ] {
        let what = format!("{upload:?}");
        let error = files.write("/x", upload).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what}");
        assert!(!error.may_have_acted(), "{what}");
    }
    let error = files.write("/x", Upload::file("/no/such/file")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("/no/such/file"), "{error}");
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_of_unknown_length_ends_at_the_limit() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 1 << 20])));
    let upload = Upload::stream(endless);
    let error = sandbox(&server.url()).files().write("/x", upload).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("500 MiB"), "{error}");
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_is_heard() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.json(413, r#"{"status":"fail","data":"file too large"}"#).await?;
        // A well-behaved server keeps reading for a while so that its answer is not lost.
        let linger = Duration::from_millis(500);
        let _ = tokio::time::timeout(linger, connection.read_to_end()).await;
        Ok(())
    })
    .await;
    let upload = vec![0; 64 << 20];
    let error = sandbox(&server.url()).files().write("/x", upload).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::InvalidArgument, Some(413)), "{error}");
    assert_eq!(error.message(), "file too large");
}

#[tokio::test]
async fn an_upload_may_be_slow_but_not_stand_still() -> Result<()> {
    let slow = || {
        stream::iter(0..8).then(|_| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(Bytes::from_static(b"x"))
        })
    };
    let limits = || RequestOptions::new().stall_timeout(Duration::from_millis(400));
    let server = answering(success(json!({}))).await;
    let files = sandbox(&server.uri()).files();
    files.write("/x", Upload::stream(slow())).with(limits()).await?;

    let stuck = Upload::stream(slow().chain(stream::pending()));
    let error = files.write("/x", stuck).with(limits()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.may_have_acted());
    Ok(())
}
