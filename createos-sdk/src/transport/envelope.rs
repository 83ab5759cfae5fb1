//! What an answer says: data, an acknowledgement, or one of the many shapes of an error
//! (api.md 1.8).

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::send::{Head, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{Envelope, EnvelopeStatus, Failure};

/// Characters of a plain-text error body that make it into the message.
const SNIPPET: usize = 200;
/// Characters of a server's sentence that are kept: all of any real one.
const LONGEST: usize = 8000;

/// The data of a successful answer.
pub(crate) fn data<T: DeserializeOwned>(reply: &Reply) -> Result<T> {
    let body = &reply.body;
    match serde_json::from_slice::<Envelope<T>>(body) {
        Ok(envelope) if envelope.status == EnvelopeStatus::Success => Ok(envelope.data),
        Ok(_) => Err(contradiction(&reply.head, body)),
        Err(error) => Err(unreadable(&reply.head, body, error)),
    }
}

/// The data of an answer whose envelope may say anything: readiness (api.md 3.2).
pub(crate) fn data_of_any<T: DeserializeOwned>(reply: &Reply) -> Option<T> {
    #[derive(Deserialize)]
    struct Any<T> {
        data: T,
    }
    serde_json::from_slice::<Any<T>>(&reply.body).ok().map(|any| any.data)
}

/// That a request worked, whatever the answer says beyond that (api.md 9.28).
pub(crate) fn acknowledged(reply: &Reply) -> Result<()> {
    #[derive(Deserialize)]
    struct Status {
        status: EnvelopeStatus,
        #[serde(default, rename = "data")]
        _data: Option<IgnoredAny>,
    }
    let body = &reply.body;
    if matches!(reply.head.status, 204 | 205) && body.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<Status>(body) {
        Ok(answer) if answer.status == EnvelopeStatus::Success => Ok(()),
        Ok(_) => Err(contradiction(&reply.head, body)),
        Err(error) => Err(unreadable(&reply.head, body, error)),
    }
}

/// The error that an answer with an error status means.
pub(crate) fn failure(head: &Head, body: &[u8]) -> Error {
    let kind = ErrorKind::of_status(head.status);
    if (300..400).contains(&head.status) {
        let message = "the server answered with a redirect, which is never followed; \
                       check the base URL";
        return head.stamp(Error::new(ErrorKind::Protocol, message));
    }
    let failure = serde_json::from_slice::<Failure>(body).ok();
    let text = failure.as_ref().and_then(|failure| failure.text().map(|text| text.into_owned()));
    let message = text.map_or_else(|| without_words(head, body), |text| clipped(&text, LONGEST));
    let code = failure.as_ref().and_then(code_of);
    head.stamp(Error::new(kind, message).with_code(code)).with_retry_after(head.retry_after)
}

fn code_of(failure: &Failure) -> Option<String> {
    failure.text_code().map(|code| clipped(&code, SNIPPET))
}

fn clipped(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// A sentence for an error whose body says nothing in our protocol.
fn without_words(head: &Head, body: &[u8]) -> String {
    let plain = head.media_type() == "text/plain";
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SNIPPET)]);
    let text = text.trim();
    if plain && !text.is_empty() {
        return clipped(text, SNIPPET);
    }
    match head.media_type() {
        "" | "application/json" => format!("request failed with status {}", head.status),
        other => format!("request failed with status {} and a body of {other}", head.status),
    }
}

/// A success status with a failure inside.
fn contradiction(head: &Head, body: &[u8]) -> Error {
    let failure = serde_json::from_slice::<Failure>(body).ok();
    let (text, code) = match &failure {
        Some(failure) => (failure.text(), code_of(failure)),
        None => (None, None),
    };
    let message = format!(
        "status {} with a body that reports a failure: {}",
        head.status,
        text.map_or("no reason given".to_owned(), |text| clipped(&text, LONGEST))
    );
    head.stamp(Error::new(ErrorKind::Protocol, message).with_code(code))
}

/// A success status with a body that is not the promised answer.
fn unreadable(head: &Head, body: &[u8], error: serde_json::Error) -> Error {
    // A failure lacks the data that was asked for, so it ends up here too.
    let failure = serde_json::from_slice::<Failure>(body).ok();
    let known = |failure: &Failure| !matches!(failure.status, EnvelopeStatus::Unknown(_));
    if failure.as_ref().is_some_and(|it| known(it) && it.status != EnvelopeStatus::Success) {
        return contradiction(head, body);
    }
    let message = match head.media_type() {
        _ if body.is_empty() => "the answer is empty".to_owned(),
        "" | "application/json" => format!("the answer cannot be read: {error}"),
        other => format!("the answer is {other} instead of JSON; check the base URL"),
    };
    head.stamp(Error::new(ErrorKind::Protocol, message).with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Health, Readiness};
    use bytes::Bytes;

    fn reply(status: u16, content_type: &str, body: &str) -> Reply {
        Reply {
            head: Head::for_test(status, content_type),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn data_of_a_success() {
        let good = reply(200, "application/json", r#"{"status":"success","data":{"up":true}}"#);
        assert_eq!(data::<Health>(&good).unwrap(), Health::new(true));
    }

    #[test]
    fn answers_that_are_not_this_protocol() {
        for (status, content_type, body, part) in [
            (200, "application/json", "", "empty"),
            (204, "", "", "empty"),
            (200, "application/json", r#"{"status":"success","data":{"up":tr"#, "cannot be read"),
            (200, "application/json", r#"{"status":"success"}"#, "missing field `data`"),
            (200, "application/json", r#"{"up":true}"#, "missing field"),
            (200, "application/json", r#"{"status":"success","data":null}"#, "cannot be read"),
            (200, "application/json", r#"{"status":"fail","data":"nope"}"#, "nope"),
            (200, "application/json", r#"{"status":"fail","data":{"up":true}}"#, "up: true"),
            (200, "application/json", r#"{"status":"error","message":"broken"}"#, "broken"),
            (200, "text/html; charset=utf-8", "<html>hi</html>", "text/html instead of JSON"),
        ] {
            let error = data::<Health>(&reply(status, content_type, body)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{body}");
            assert!(error.message().contains(part), "{body}: {error}");
            assert_eq!(error.status(), Some(status));
        }
    }

    #[test]
    fn acknowledgements() {
        for body in [r#"{"status":"success","data":{"ok":true}}"#, r#"{"status":"success"}"#] {
            acknowledged(&reply(200, "application/json", body)).unwrap();
        }
        acknowledged(&reply(204, "", "")).unwrap();
        for (status, body) in [(200, ""), (200, "{}"), (201, r#"{"status":"fail","data":"x"}"#)] {
            assert!(acknowledged(&reply(status, "application/json", body)).is_err(), "{body}");
        }
    }

    #[test]
    fn readiness_is_read_from_any_envelope() {
        for status in ["success", "fail", "error", "new"] {
            let body = format!(r#"{{"status":"{status}","data":{{"ready":false}}}}"#);
            let found = data_of_any::<Readiness>(&reply(503, "application/json", &body));
            assert_eq!(found, Some(Readiness::new(false)));
        }
        assert_eq!(data_of_any::<Readiness>(&reply(503, "text/html", "<html>")), None);
    }

    #[test]
    fn a_huge_sentence_is_clipped() {
        let huge = "x".repeat(1 << 20);
        let body = format!(r#"{{"status":"fail","data":{{"code":"{huge}","message":"{huge}"}}}}"#);
        let error = failure(&Head::for_test(400, "application/json"), body.as_bytes());
        assert_eq!(error.message().len(), LONGEST);
        assert_eq!(error.code().unwrap().len(), SNIPPET);
    }

    #[test]
    fn error_bodies_say_what_they_can() {
        let json = "application/json";
        for (status, content_type, body, kind, message) in [
            (404, json, r#"{"status":"fail","data":"no such"}"#, ErrorKind::NotFound, "no such"),
            (404, json, r#"{"status":"fail","data":null}"#, ErrorKind::NotFound, "status 404"),
            (503, json, r#"{"status":"error","message":"full"}"#, ErrorKind::Unavailable, "full"),
            (500, json, "", ErrorKind::Server, "request failed with status 500"),
            (500, json, r#"{"status":"er"#, ErrorKind::Server, "status 500"),
            (502, "text/html", "<h1>Bad</h1>", ErrorKind::Server, "a body of text/html"),
            (502, "text/plain; x", " upstream down ", ErrorKind::Server, "upstream down"),
            (301, "text/html", "", ErrorKind::Protocol, "redirect"),
        ] {
            let error = failure(&reply(status, content_type, body).head, body.as_bytes());
            assert_eq!(error.kind(), kind, "{body}");
            assert!(error.message().contains(message), "{body}: {error}");
            assert!(!error.message().contains('<'), "{error}");
        }
    }
}
