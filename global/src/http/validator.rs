//! The ETag of an answer, and what is sent where the asker has it already.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

/// What says as of when an answer is, not what was counted: it moves with every commit.
const STANDING: [&str; 4] = ["as_of", "watermark", "complete_up_to", "final_up_to"];

/// Names the counts of an answer with their states and versions. Weak: answers with one ETag may differ in how late they are.
pub fn etag(answer: &Value, format: &str) -> String {
    let mut named = answer.clone();
    if let Some(fields) = named.as_object_mut() {
        fields.retain(|name, _| !STANDING.contains(&name.as_str()));
    }
    format!("W/\"{:016x}\"", xxh3_64(format!("{format}\n{named}").as_bytes()))
}

/// The answer with its ETag; 304 without a body where the asker has that one.
pub fn answered(asked: &HeaderMap, etag: &str, answer: impl FnOnce() -> Response) -> Response {
    let mut response = if has_already(asked, etag) { StatusCode::NOT_MODIFIED.into_response() } else { answer() };
    let fields = response.headers_mut();
    fields.insert(header::ETAG, HeaderValue::from_str(etag).expect("hexadecimal digits"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

fn has_already(asked: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}
