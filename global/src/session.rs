//! The dashboard's way in: a token is traded for a cookie that no script can read and no other site can use. The cookie holds the
//! token itself: it survives a restart, and ends with the token (docs/decisions/027).

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde::Deserialize;
use serde_json::json;

use crate::guard::{Asker, Guard};
use crate::http::{Problem, not_allowed};

pub const PATH: &str = "/v1/session";
/// Of a body: a token in JSON, with room for an impatient client's spaces.
pub const BODY_BYTES_MAX: usize = 4 << 10;
pub const COOKIE: &str = "tollgate_token";
/// A screen on a wall asks a person once a month.
const COOKIE_SECONDS: u32 = 30 * 24 * 60 * 60;
pub const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[derive(Deserialize)]
struct Traded {
    token: String,
}

pub fn route(guard: Guard) -> MethodRouter {
    let others = async || not_allowed("this path knows GET, POST and DELETE", "GET,HEAD,POST,DELETE");
    get(shown).post(begun).delete(ended).fallback(others).with_state(guard)
}

/// The token of the cookie.
pub fn cookie(fields: &HeaderMap) -> Option<&str> {
    let given = fields.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = given.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Who asks, as the pages want to know it.
async fn shown(State(guard): State<Guard>, fields: HeaderMap) -> Response {
    guard.asker(&fields).map_or_else(IntoResponse::into_response, |asker| about(&asker))
}

async fn begun(State(guard): State<Guard>, fields: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    if let Err(problem) = same_site(&fields) {
        return problem.into_response();
    }
    let token = match body.map_err(|refused| Problem::new(refused.status(), refused.body_text())) {
        Ok(body) => traded(&fields, &body),
        Err(problem) => Err(problem),
    };
    let token = match token {
        Ok(token) => token,
        Err(problem) => return problem.into_response(),
    };
    match guard.holder(&token) {
        Ok(asker) => with_cookie(&fields, &token, COOKIE_SECONDS, about(&asker)),
        Err(turned) => turned.into_response(),
    }
}

async fn ended(fields: HeaderMap) -> Response {
    match same_site(&fields) {
        Ok(()) => with_cookie(&fields, "", 0, StatusCode::NO_CONTENT.into_response()),
        Err(problem) => problem.into_response(),
    }
}

fn about(asker: &Asker) -> Response {
    let answer = match asker {
        Asker::Anybody => json!({ "token": null, "access": "all" }),
        Asker::Holder(_, token) => {
            let scope = token.scope();
            let access = if scope.is_some() { "scoped" } else { "all" };
            let scope = scope.map(|scope| json!({ "campaigns": scope.campaigns, "advertisers": scope.advertisers }));
            let named = json!({ "id": token.id, "name": token.name, "rate_per_s": token.rate_per_s });
            json!({ "token": named, "access": access, "scope": scope })
        }
    };
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(answer)).into_response()
}

/// The token of a body: `{"token": …}`, or a form with that field.
fn traded(fields: &HeaderMap, body: &[u8]) -> Result<String, Problem> {
    let kind = fields.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let missing =
        || Problem::new(StatusCode::BAD_REQUEST, "the body has no token: {\"token\": …}, or a form's token=…");
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            // What serde would say of it could hold the token.
            serde_json::from_slice::<Traded>(body).map(|traded| traded.token).map_err(|_| missing())
        }
        "application/x-www-form-urlencoded" => {
            let mut pairs = std::str::from_utf8(body).unwrap_or_default().split('&');
            // A token has nothing that a form would write in another way.
            pairs.find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned).ok_or_else(missing)
        }
        _ => {
            let detail = "send application/json or application/x-www-form-urlencoded";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}

/// Nobody is logged in or out by another site's page. The browser says where a request comes from; programs say nothing.
fn same_site(fields: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
    let same = match (text(&FETCH_SITE), text(&header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let origin = origin.split_once("://").map(|(_, host)| host);
            [&header::HOST, &FORWARDED_HOST].into_iter().any(|host| text(host).is_some() && text(host) == origin)
        }
        (None, None) => true,
    };
    if same { Ok(()) } else { Err(Problem::new(StatusCode::FORBIDDEN, "this request comes from another site's page")) }
}

fn with_cookie(fields: &HeaderMap, token: &str, seconds: u32, mut response: Response) -> Response {
    // TLS ends in a proxy, which says so.
    let tls = fields.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let secure = if tls { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::from_str(&text).expect("a token's digits and ours");
    value.set_sensitive(true);
    response.headers_mut().insert(header::SET_COOKIE, value);
    response
}
