//! What is sent where the asker has an answer already.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The answer with its ETag; 304 without a body where the asker has that one.
pub fn answered(asked: &HeaderMap, etag: &str, answer: impl FnOnce() -> Response) -> Response {
    let response = if has_already(asked, etag) { StatusCode::NOT_MODIFIED.into_response() } else { answer() };
    with_etag(response, etag)
}

pub fn with_etag(mut response: Response, etag: &str) -> Response {
    let fields = response.headers_mut();
    fields.insert(header::ETAG, HeaderValue::from_str(etag).expect("hexadecimal digits"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

pub fn has_already(asked: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}
