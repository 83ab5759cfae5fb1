//! What S3 answers, strictly read.

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::S3Error;

/// Most characters of the server's own words that are repeated.
const WORDS: usize = 200;

/// An object, as far as a file system must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    pub(crate) etag: String,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) objects: Vec<(String, Object)>,
    /// Keys up to the delimiter that they have in common.
    pub(crate) prefixes: Vec<String>,
    /// Where it goes on.
    pub(crate) next: Option<String>,
}

#[derive(Deserialize)]
enum ListAnswer {
    ListBucketResult(ListBucketResult),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    contents: Vec<Contents>,
    #[serde(default)]
    common_prefixes: Vec<CommonPrefixes>,
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    last_modified: String,
    #[serde(rename = "ETag", default)]
    etag: String,
    size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommonPrefixes {
    prefix: String,
}

#[derive(Deserialize)]
enum UploadAnswer {
    InitiateMultipartUploadResult(Upload),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    upload_id: String,
}

/// The answers to the last step of an upload, and to copies, which may be errors under 200.
#[derive(Deserialize)]
#[allow(clippy::enum_variant_names, reason = "they are S3's names")]
enum DoneAnswer {
    CompleteMultipartUploadResult(Tagged),
    CopyObjectResult(Tagged),
    CopyPartResult(Tagged),
    Error(Said),
}

#[derive(Deserialize)]
struct Tagged {
    #[serde(rename = "ETag", default)]
    etag: String,
}

#[derive(Deserialize)]
enum ErrorAnswer {
    Error(Said),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn garbage(what: &str) -> S3Error {
    S3Error::Garbage(what.to_owned())
}

fn xml<T: for<'de> Deserialize<'de>>(body: &[u8], what: &str) -> Result<T, S3Error> {
    let text = std::str::from_utf8(body).map_err(|_| garbage(what))?;
    quick_xml::de::from_str(text).map_err(|_| garbage(what))
}

/// A page of a listing of keys that begin with `prefix`.
pub(super) fn listing(body: &[u8], prefix: &str) -> Result<Listing, S3Error> {
    let ListAnswer::ListBucketResult(answer) = xml(body, "a listing cannot be read")?;
    let encoded = answer.encoding_type.as_deref() == Some("url");
    let decode = |key: String| -> Result<String, S3Error> {
        let key = if encoded { decoded(&key)? } else { key };
        if key.starts_with(prefix) { Ok(key) } else { Err(garbage("it lists what is elsewhere")) }
    };
    let object = |one: Contents| -> Result<(String, Object), S3Error> {
        let modified = one.last_modified.parse::<createos_sdk::Timestamp>();
        let modified = modified.map_err(|_| garbage("a time cannot be read"))?.into();
        Ok((decode(one.key)?, Object { size: one.size, modified, etag: one.etag }))
    };
    let next = answer.next_continuation_token.filter(|token| !token.is_empty());
    if answer.is_truncated && next.is_none() {
        return Err(garbage("a listing breaks off"));
    }
    Ok(Listing {
        objects: answer.contents.into_iter().map(object).collect::<Result<_, _>>()?,
        prefixes: answer
            .common_prefixes
            .into_iter()
            .map(|one| decode(one.prefix))
            .collect::<Result<_, _>>()?,
        next: next.filter(|_| answer.is_truncated),
    })
}

/// Keys in listings are encoded as forms are, or as addresses: a plus sign is a blank in both.
fn decoded(key: &str) -> Result<String, S3Error> {
    let blanks = key.replace('+', " ");
    let decoded = percent_decode_str(&blanks).decode_utf8();
    decoded.map(String::from).map_err(|_| garbage("a key is not text"))
}

/// The id of an upload in parts.
pub(super) fn upload_id(body: &[u8]) -> Result<String, S3Error> {
    let UploadAnswer::InitiateMultipartUploadResult(upload) =
        xml(body, "the begin of an upload cannot be read")?;
    Ok(upload.upload_id)
}

/// The tag of what was put together, or copied. The status does not tell whether that went well.
pub(super) fn done(body: &[u8]) -> Result<String, S3Error> {
    match xml(body, "the end of an upload cannot be read")? {
        DoneAnswer::CompleteMultipartUploadResult(tagged)
        | DoneAnswer::CopyObjectResult(tagged)
        | DoneAnswer::CopyPartResult(tagged) => Ok(tagged.etag),
        DoneAnswer::Error(said) => {
            let status = reqwest::StatusCode::INTERNAL_SERVER_ERROR;
            Err(S3Error::Refused { status, code: words(&said.code), message: words(&said.message) })
        }
    }
}

/// A refusal, with what the server says in its body, if that can be read.
pub(super) fn refused(status: reqwest::StatusCode, headers: &HeaderMap, body: &[u8]) -> S3Error {
    let said = match xml(body, "") {
        Ok(ErrorAnswer::Error(said)) => said,
        Err(_) => Said::default(),
    };
    let (code, mut message) = (words(&said.code), words(&said.message));
    let region = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    if let Some(region) = region {
        let (comma, region) = (if message.is_empty() { "" } else { "; " }, words(region));
        message = format!("{message}{comma}the bucket is in region {region}");
    }
    S3Error::Refused { status, code, message }
}

fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

/// An object, from the headers of an answer.
pub(super) fn object(headers: &HeaderMap) -> Result<Object, S3Error> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let size = text("content-length").and_then(|size| size.parse().ok());
    let modified = text("last-modified").and_then(|at| httpdate::parse_http_date(at).ok());
    Ok(Object {
        size: size.ok_or_else(|| garbage("an object without a size"))?,
        modified: modified.ok_or_else(|| garbage("an object without a time"))?,
        etag: text("etag").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_whatever_the_namespace_and_decoded_if_encoded() {
        let page = |extra: &str, keys: &str| {
            format!(
                "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://x/\"><Name>b</Name>{extra}{keys}</ListBucketResult>"
            )
        };
        let key = "<Contents><Key>a/b+c%2Bd</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;1&quot;</ETag><Size>7</Size></Contents>";
        let common = "<CommonPrefixes><Prefix>a/x/</Prefix></CommonPrefixes>";
        let more =
            "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
        let text = page(
            &format!("<EncodingType>url</EncodingType>{more}"),
            &format!("{key}{common}{key}{common}"),
        );
        let read = listing(text.as_bytes(), "a/").unwrap();
        assert_eq!(read.objects.len(), 2);
        assert_eq!(read.objects[0].0, "a/b c+d");
        assert_eq!((read.objects[0].1.size, read.objects[0].1.etag.as_str()), (7, "\"1\""));
        assert_eq!(read.prefixes, ["a/x/", "a/x/"]);
        assert_eq!(read.next.as_deref(), Some("t"));
        let plain = listing(page("", key).as_bytes(), "").unwrap();
        assert_eq!((plain.objects[0].0.as_str(), plain.next), ("a/b+c%2Bd", None));
    }

    #[test]
    fn what_is_no_listing_is_no_empty_one() {
        for text in [
            "",
            "<html><body>Welcome</body></html>",
            "{}",
            "<ListBucketResult>",
            "<Error><Code>X</Code></Error>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            "<ListBucketResult><CommonPrefixes><Prefix>other/</Prefix></CommonPrefixes></ListBucketResult>",
        ] {
            assert!(matches!(listing(text.as_bytes(), "a/"), Err(S3Error::Garbage(_))), "{text}");
        }
        assert!(listing(b"\xff", "").is_err());
    }

    #[test]
    fn errors_under_success_are_errors_and_words_are_bounded() {
        assert_eq!(done(b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>").unwrap(), "e");
        let error = done(b"<Error><Code>InternalError</Code></Error>").unwrap_err();
        assert!(error.to_string().contains("InternalError"));
        let long =
            format!("<Error><Code>No</Code><Message>{}</Message></Error>", "x\u{7}".repeat(9999));
        let status = reqwest::StatusCode::FORBIDDEN;
        let error = refused(status, &HeaderMap::new(), long.as_bytes()).to_string();
        assert!(
            error.starts_with("S3 said 403 Forbidden: No: xxx") && error.len() < 260,
            "{error}"
        );
        let bare = refused(status, &HeaderMap::new(), b"<html>").to_string();
        assert!(bare.contains("keys are wrong"), "{bare}");
    }
}
