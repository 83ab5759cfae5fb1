//! Uploads and downloads (api.md 4.13).

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use createos_sdk::wire::UploadedFile;
use futures::StreamExt as _;
use hyper::body::Body as _;

use super::Front;
use super::answer::{self, Answer, Fail, ok};
use super::path::Id;
use super::query::Query;

pub(super) async fn upload(
    State(front): State<Front>,
    Id(id): Id,
    query: Query,
    body: Body,
) -> Answer {
    let live = front.core().live(&id).await?;
    let path = path_of(&query)?;
    let declared = body.size_hint().exact();
    // Dropped on every way out of here but the last, and the old file stays as it was.
    let mut upload = live.upload(path, declared).await?;
    let stall = front.core().tuning().upload_stall;
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = tokio::select! {
            chunk = tokio::time::timeout(stall, chunks.next()) => chunk,
            error = upload.interrupted() => return Err(error.into()),
        };
        match chunk {
            Ok(Some(Ok(chunk))) => upload.write(chunk).await?,
            Ok(Some(Err(_))) => return Err(Fail::field("body", "ended before it was complete")),
            Ok(None) => break,
            Err(_) => {
                let message = format!("no byte of the body came for {} seconds", stall.as_secs());
                return Err(Fail::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        }
    }
    let bytes = upload.commit().await?;
    ok(UploadedFile::new(bytes, String::from_utf8_lossy(path)))
}

pub(super) async fn download(State(front): State<Front>, Id(id): Id, query: Query) -> Answer {
    let live = front.core().live(&id).await?;
    let download = live.download(path_of(&query)?).await?;
    let size = HeaderValue::from(download.size);
    // An error in the middle breaks the connection off before Content-Length is reached.
    let chunks = futures::stream::unfold(download, |mut download| async {
        download.next().await.map(|chunk| (chunk, download))
    });
    let mut response = Response::new(answer::streamed(chunks));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CONTENT_LENGTH, size);
    Ok(response)
}

fn path_of(query: &Query) -> Result<&[u8], Fail> {
    query
        .bytes("path")
        .ok_or_else(|| Fail::field("path", "is missing; give an absolute path as `?path=`"))
}
