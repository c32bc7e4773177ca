//! Who is let in to the query port, and what each may see: every request passes here before any route.
//!
//! A token comes as `Authorization: Bearer`, or as the cookie that [`crate::session`] gives for one. As long as no token was ever
//! made, whoever reaches the loopback may see everything; from the first on, everybody needs one. Paths outside `/v1/` are the
//! pages and the description of the API, which are nobody's secret: they are served, and see nothing of the store.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::http::{Access, Problem, is_stream};
use crate::query_side::{QuerySide, Refused};
use crate::question::Scope;
use crate::session;
use crate::tokens::{Bucket, Hash, Token};

/// What needs a token begins so.
const GUARDED: &str = "/v1/";

/// Of one port.
#[derive(Clone)]
pub struct Guard {
    pub side: Arc<QuerySide>,
    on_loopback: bool,
    buckets: Arc<Mutex<BTreeMap<Hash, Bucket>>>,
    since: Instant,
}

/// Whom a request is from.
#[derive(Clone)]
pub enum Asker {
    /// No token was ever made, and this is the loopback.
    Anybody,
    Holder(Hash, Arc<Token>),
}

/// Not let in: why, and of a token that asks too fast when it may come again.
#[derive(Debug)]
pub struct Turned {
    pub why: Refused,
    after_ms: u64,
}

impl Guard {
    pub fn new(side: Arc<QuerySide>, on_loopback: bool) -> Guard {
        Guard { side, on_loopback, buckets: Arc::default(), since: Instant::now() }
    }

    /// Whom a request with these fields is from.
    pub fn asker(&self, fields: &HeaderMap) -> Result<Asker, Turned> {
        if self.side.tokens.now().is_empty() && self.on_loopback {
            return if is_of_this_host(fields) { Ok(Asker::Anybody) } else { Err(self.turn(Refused::Host, 0)) };
        }
        let given = bearer(fields).map_err(|()| self.turn(Refused::BadToken, 0))?;
        let given = given.or_else(|| session::cookie(fields)).ok_or_else(|| self.turn(Refused::NoToken, 0))?;
        self.holder(given)
    }

    /// Whose token this is; takes a request off what it may ask.
    pub fn holder(&self, token: &str) -> Result<Asker, Turned> {
        let tokens = self.side.tokens.now();
        let (hash, token) = tokens.find(token).ok_or_else(|| self.turn(Refused::BadToken, 0))?;
        let now_ms = self.since.elapsed().as_millis() as u64;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(&hash) {
            // No more than there are tokens.
            buckets.retain(|hash, _| tokens.holds(hash));
        }
        let bucket = buckets.entry(hash).or_insert_with(|| Bucket::full(token.rate_per_s, now_ms));
        bucket.take(token.rate_per_s, now_ms).map_err(|after_ms| self.turn(Refused::Rate, after_ms))?;
        Ok(Asker::Holder(hash, token.clone()))
    }

    fn turn(&self, why: Refused, after_ms: u64) -> Turned {
        self.side.refused(why);
        Turned { why, after_ms }
    }

    fn admits(&self, asker: &Asker) -> bool {
        let tokens = self.side.tokens.now();
        match asker {
            Asker::Anybody => tokens.is_empty(),
            Asker::Holder(hash, _) => tokens.holds(hash),
        }
    }

    /// Until the token of a stream is revoked; or, where it needed none, until one is made.
    async fn revoked(self, asker: Asker) {
        let mut changed = self.side.tokens.changed();
        while self.admits(&asker) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Asker {
    fn access(&self) -> Access {
        let scope = match self {
            Asker::Anybody => None,
            Asker::Holder(_, token) => token.scope(),
        };
        scope.map_or(Access::All, Access::Scoped)
    }
}

/// Gives each request its [`Access`], or turns it away. A stream that has no end ends with the token it was opened with.
pub async fn let_in(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with(GUARDED) || path == session::PATH {
        request.extensions_mut().insert(Access::Scoped(Arc::new(Scope::default())));
        return next.run(request).await;
    }
    let asker = match guard.asker(request.headers()) {
        Ok(asker) => asker,
        Err(turned) => return turned.into_response(),
    };
    request.extensions_mut().insert(asker.access());
    let response = next.run(request).await;
    if !is_stream(&response) {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(guard.revoked(asker)))))
}

/// Lets operators' commands in to what they ask and change on the admin port, and no web page: that port knows no tokens, and a browser
/// on its host reaches it. A page gives its own name as Host, or says where it is from with whatever it may send to others.
pub async fn let_operators_in(request: Request, next: Next) -> Response {
    let fields = request.headers();
    let (status, error) = if !is_of_this_host(fields) {
        let error =
            "this path is asked by address or as localhost, not by another name, which any web page could give it";
        (StatusCode::MISDIRECTED_REQUEST, error)
    } else if [header::ORIGIN, session::FETCH_SITE].iter().any(|field| fields.contains_key(field)) {
        (StatusCode::FORBIDDEN, "this path is for commands; a browser's page has no business here")
    } else {
        return next.run(request).await;
    };
    (status, Json(json!({ "error": error }))).into_response()
}

/// Whether a request names an address or `localhost`. A page of another site can point a name of its own at the loopback, and would
/// read all that a browser on this host can (DNS rebinding); but the name stays in the field.
fn is_of_this_host(fields: &HeaderMap) -> bool {
    // No browser leaves it out.
    let Some(host) = fields.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// The token of `Authorization: Bearer`; Err: the field says something else.
fn bearer(fields: &HeaderMap) -> Result<Option<&str>, ()> {
    let mut given = fields.get_all(header::AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => {
            let (scheme, token) = field.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(())?;
            if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim())) } else { Err(()) }
        }
        (Some(_), Some(_)) => Err(()),
    }
}

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        let (status, detail, challenge) = match self.why {
            Refused::NoToken => (
                StatusCode::UNAUTHORIZED,
                "a token is needed: send it as Authorization: Bearer; an operator makes one with `tollgate token create`",
                "Bearer realm=\"tollgate\"",
            ),
            Refused::BadToken => (
                StatusCode::UNAUTHORIZED,
                "there is no such token, or it was revoked",
                "Bearer realm=\"tollgate\", error=\"invalid_token\"",
            ),
            Refused::Rate => (
                StatusCode::TOO_MANY_REQUESTS,
                "faster than this token may ask: Retry-After says when to come again",
                "",
            ),
            Refused::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "without tokens this port is asked by address or as localhost, not by another name, which any web page could \
                 give it; make a token with `tollgate token create`",
                "",
            ),
        };
        let mut response = Problem::new(status, detail).into_response();
        let fields = response.headers_mut();
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.why == Refused::Rate {
            let seconds = self.after_ms.div_ceil(1_000).max(1);
            fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        } else if !challenge.is_empty() {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
