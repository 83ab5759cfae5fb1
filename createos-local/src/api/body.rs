//! Request bodies: JSON, bounded, with the field at fault named.

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::answer::Fail;
use crate::core::shown;

/// The largest JSON body.
pub(super) const MAX_JSON: usize = 16 << 20;

/// Reads a body that must be a JSON object.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, Fail> {
    let bytes = collect(body).await?;
    if bytes.is_empty() {
        return Err(Fail::field("body", "is empty; send a JSON object"));
    }
    parse(&bytes)
}

/// Reads a body that may be left out, or be `null`.
pub(super) async fn read_optional_json<T: DeserializeOwned>(body: Body) -> Result<Option<T>, Fail> {
    let bytes = collect(body).await?;
    if bytes.is_empty() { Ok(None) } else { parse(&bytes) }
}

async fn collect(body: Body) -> Result<Bytes, Fail> {
    match Limited::new(body, MAX_JSON).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {} MiB", MAX_JSON >> 20);
            Err(Fail::new(StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(_) => Err(Fail::field("body", "ended before it was complete")),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fail> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // "." is the whole body: not JSON at all, or a required field is missing.
        let field = if path == "." || !error.is_data() { "body" } else { &path };
        Fail::field(&shown(field), explain(&error))
    })?;
    json.end().map_err(|error| Fail::field("body", explain(&error)))?;
    Ok(value)
}

/// What serde says, without the value it repeats: that may be long, or a secret.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find('`').or_else(|| text.find('"')), text.rfind(", expected ")) {
        (Some(value), Some(expected)) if value < expected => {
            format!("{}a value{}", &text[..value], &text[expected..])
        }
        _ => text,
    }
}

/// Action routes take no body, `{}` or `null` (api.md 1.4) and read nothing from it. What came
/// is taken off the connection so that the connection can be used again.
pub(super) async fn ignore(body: Body) {
    let _ = Limited::new(body, MAX_JSON).collect().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_of_the_wrong_type_are_not_repeated() {
        #[derive(Debug, serde::Deserialize)]
        struct Wanted {
            #[allow(dead_code, reason = "only its type matters")]
            list: Vec<u8>,
        }
        for value in ["\"hunter2\"", "\"hun, expected ter2\"", "{\"hunter2\":1}", "[\"hunter2\"]"] {
            let json = format!("{{\"list\":{value}}}");
            let fail = format!("{:?}", read_json::<Wanted>(Body::from(json)).await.unwrap_err());
            assert!(fail.contains("expected") && !fail.contains("ter2"), "{fail}");
        }
    }
}
