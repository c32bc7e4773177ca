//! An answer that is finished: its bytes, and the ETag that names them. Made where the store is read, on a thread that may block and
//! in the reader's turn; the port's own thread only sends it.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::answers::Standing;
use super::bodies::Bodies;
use super::problem::Problem;
use super::validator::{has_already, with_etag};
use crate::snapshot::Snapshot;

/// Made of a snapshot, which is only had where the store is read.
pub struct Finished {
    kind: &'static str,
    text: Vec<u8>,
    /// Of the counts with their states and versions. Weak: answers with one ETag may differ in how late they are. None: it says what
    /// the clock says too.
    etag: Option<u64>,
    /// The field Link, where there is a page after this one.
    link: Option<String>,
}

/// What a body is sent from, with its place among those that are not taken yet.
struct Held {
    text: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Finished {
    /// An object with the fields of `counts` and, after them, of what it stands on: that moves with every commit, so it is not in
    /// the ETag.
    pub fn json(snapshot: &Snapshot, counts: &impl Serialize) -> Finished {
        let mut text = serde_json::to_vec(counts).expect("plain data");
        let etag = Some(xxh3_64(&text));
        let standing = serde_json::to_vec(&Standing::of(&snapshot.as_of())).expect("plain data");
        debug_assert!(text.len() > 2 && text.ends_with(b"}") && standing.starts_with(b"{"), "objects that have fields");
        text.pop();
        text.push(b',');
        text.extend_from_slice(&standing[1..]);
        Finished { kind: "application/json", text, etag, link: None }
    }

    pub fn csv(_: &Snapshot, text: Vec<u8>) -> Finished {
        let etag = Some(xxh3_64(&text));
        Finished { kind: "text/csv; charset=utf-8; header=present", text, etag, link: None }
    }

    /// It says what the clock says too, and is never the same.
    pub fn of_now(self) -> Finished {
        Finished { etag: None, ..self }
    }

    pub fn with_link(self, link: Option<String>) -> Finished {
        let seed = |etag: u64| link.as_ref().map_or(etag, |link| xxh3_64_with_seed(link.as_bytes(), etag));
        Finished { etag: self.etag.map(seed), link, ..self }
    }

    /// As it is sent to somebody who asked with these fields; a body where they do not have it already, and where there is room for it
    /// among those that are not taken yet.
    pub fn into_response(self, asked: &HeaderMap, bodies: &Bodies) -> Result<Response, Problem> {
        let Finished { kind, mut text, etag, link } = self;
        let etag = etag.map(|etag| format!("W/\"{etag:016x}\""));
        let mut response = if etag.as_ref().is_some_and(|etag| has_already(asked, etag)) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            text.shrink_to_fit();
            let place = bodies.place(text.len())?;
            let body = Body::from(Bytes::from_owner(Held { text, _place: place }));
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        };
        if let Some(link) = link {
            let link = HeaderValue::from_str(&link).expect("a URL and hexadecimal digits");
            response.headers_mut().insert(header::LINK, link);
        }
        Ok(match etag {
            Some(etag) => with_etag(response, &etag),
            None => response,
        })
    }
}
