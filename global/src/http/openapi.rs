//! The document of the query API, OpenAPI 3.1: paths and parameters from the lists that the handlers read by, schemas of what is
//! answered from `schemas.json`.

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::cursor::CHARACTERS_MAX;
use super::parameters::{
    ID_CHARACTERS_MAX, K_DEFAULT, K_MAX, LIMIT_DEFAULT, LIMIT_MAX, Parameter, REGION_BYTES_MAX, WINDOWS_MAX,
};
use super::request::Given;
use super::routes::{self, Answer, Id, Route};
use super::times::TIME_MAX_MS;
use super::validator::answered;
use super::{Access, Problem, Shared, names};
use crate::question::TopWindow;
use crate::session;
use crate::window::Granularity;

static SCHEMAS: &str = include_str!("schemas.json");

pub async fn document(State(_): State<Shared>, _: Access, given: Given, head: HeaderMap) -> Result<Response, Problem> {
    given.read(&routes::OPENAPI)?;
    static TEXT: OnceLock<(String, String)> = OnceLock::new();
    let (text, etag) = TEXT.get_or_init(|| {
        let text = openapi().to_string();
        let etag = format!("W/\"{:016x}\"", xxh3_64(text.as_bytes()));
        (text, etag)
    });
    let fields = [(header::CONTENT_TYPE, "application/json")];
    Ok(answered(&head, etag, || (fields, text.as_str()).into_response()))
}

pub fn openapi() -> Value {
    let mut paths: Map<String, Value> =
        routes::ALL.iter().map(|route| (route.path.to_owned(), json!({ "get": operation(route) }))).collect();
    paths.insert(session::PATH.to_owned(), session_operations());
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("it stands beside this file");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tollgate query API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Clicks, each counted exactly once. Reads only; what `/v1/session` changes is the browser's cookie. Whatever is wrong with a question is said as problem+json.",
        },
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": {
            "token": { "type": "http", "scheme": "bearer", "description": "As `tollgate token create` prints it." },
            "cookie": { "type": "apiKey", "in": "cookie", "name": session::COOKIE, "description": "As POST /v1/session gives it." },
        } },
        // None is needed as long as no token was ever made.
        "security": [{ "token": [] }, { "cookie": [] }, {}],
    })
}

fn operation(route: &Route) -> Value {
    let id = route.id.map(|id| {
        json!({
            "name": id.name(), "in": "path", "required": true,
            "description": format!("The {}, as clicks name it.", match id {
                Id::Ad => "ad",
                Id::Campaign => "campaign",
                Id::Advertiser => "advertiser",
            }),
            "schema": { "type": "string", "minLength": 1, "maxLength": ID_CHARACTERS_MAX },
        })
    });
    let parameters = route.parameters.iter().map(|parameter| {
        let (schema, about) = (schema_of(*parameter, route), about(*parameter));
        json!({ "name": parameter.name(), "in": "query", "required": false, "schema": schema, "description": about })
    });
    let parameters: Vec<Value> = id.into_iter().chain(parameters).collect();
    json!({ "operationId": operation_id(route), "summary": route.about, "parameters": parameters, "responses": responses(route) })
}

/// A path's words.
fn operation_id(route: &Route) -> String {
    let words = route
        .path
        .split(['/', '.', '{', '}'])
        .filter(|word| !word.is_empty() && *word != "v1" && !word.ends_with("_id"));
    words.collect::<Vec<_>>().join("_")
}

fn schema_of(parameter: Parameter, route: &Route) -> Value {
    match parameter {
        Parameter::From | Parameter::To => json!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": TIME_MAX_MS },
            { "type": "string", "format": "date-time", "pattern": "^(19[7-9][0-9]|[2-9][0-9]{3})-" },
        ] }),
        Parameter::Granularity => json!({ "enum": Granularity::ALL.map(|granularity| granularity.name()) }),
        Parameter::FilterRegion => json!({
            "type": "string", "minLength": 1, "maxLength": REGION_BYTES_MAX,
            "pattern": format!("^[A-Za-z0-9_-]{{1,{REGION_BYTES_MAX}}}$"),
        }),
        Parameter::FilterUserAgent => {
            json!({ "enum": names::user_agents().map(|(name, _)| name).collect::<Vec<_>>() })
        }
        Parameter::GroupBy => {
            json!({ "enum": route.groups.iter().map(|group| names::group_by(*group)).collect::<Vec<_>>() })
        }
        Parameter::Limit => json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT }),
        Parameter::Cursor => json!({ "type": "string", "pattern": "^01[0-9a-f]+$", "maxLength": CHARACTERS_MAX }),
        Parameter::Format => json!({ "enum": ["json", "csv"], "default": "json" }),
        Parameter::WindowMinutes => {
            json!({ "enum": TopWindow::ALL.map(|window| window.minutes()), "default": TopWindow::Minute.minutes() })
        }
        Parameter::K => json!({ "type": "integer", "minimum": 1, "maximum": K_MAX, "default": K_DEFAULT }),
        Parameter::By => json!({ "enum": ["net", "gross"], "default": "net" }),
    }
}

fn about(parameter: Parameter) -> String {
    match parameter {
        Parameter::From => "Event time from here on: RFC 3339, or a whole number of seconds (below 1e11) or milliseconds. Widened to whole \
                            panes of 10 s, with a granularity to whole windows. Not given: an hour before to. Earlier than hours are kept is refused."
            .to_owned(),
        Parameter::To => "Event time before this, which must be after from. Not given: now.".to_owned(),
        Parameter::Granularity => format!(
            "A row for each window of this length in which there is something. A span has at most {WINDOWS_MAX} of them."
        ),
        Parameter::FilterRegion => format!(
            "Only clicks of this region: an ISO 3166-1 alpha-2 code, a name of the edge's --regions, other, or {} for clicks that name \
             none. Upper and lower case matter.",
            names::REGION_NONE
        ),
        Parameter::FilterUserAgent => {
            "Only clicks of this class of user agents: a kind of device, or a family of browsers.".to_owned()
        }
        Parameter::GroupBy => "A row for each group of this kind, in each window.".to_owned(),
        Parameter::Limit => "Rows of a page, at most.".to_owned(),
        Parameter::Cursor => "next_cursor of the page before; all else as asked for that one.".to_owned(),
        Parameter::Format => "csv: the rows alone, one line each, after one with their names; without a granularity or group one row \
                              of the whole span. The next page is in the field Link."
            .to_owned(),
        Parameter::WindowMinutes => "Length of the window, in minutes.".to_owned(),
        Parameter::K => "How many ads.".to_owned(),
        Parameter::By => "What ads are ranked by.".to_owned(),
    }
}

/// The one path that is not only read: see [`crate::session`].
fn session_operations() -> Value {
    let shown = json!({ "description": "What may be seen.", "content": { "application/json": json_of("Session") } });
    let body = json!({
        "type": "object", "required": ["token"],
        "properties": { "token": { "type": "string", "description": "As `tollgate token create` prints it." } },
    });
    let elsewhere = problem("A page of another site asks.");
    let none = problem("This is no token that counts.");
    let fast = problem("Faster than the token may ask: Retry-After says when to come again.");
    let method = problem("The path knows GET, HEAD, POST and DELETE.");
    let mut begun = shown.clone();
    begun["headers"] = json!({ "Set-Cookie": { "schema": { "type": "string" }, "description": "The token, for this browser alone." } });
    let ended = json!({ "description": "The browser has no cookie any more.", "headers": begun["headers"] });
    json!({
        "get": {
            "operationId": "session", "summary": "What the token of this request may see.", "parameters": [],
            "responses": {
                "200": shown, "401": none, "405": method, "429": fast,
                "421": problem("Where no token is needed: the Host is neither an address nor localhost."),
            },
        },
        "post": {
            "operationId": "begin_session", "summary": "Trades a token for a cookie.", "security": [{}],
            "requestBody": { "required": true, "content": {
                "application/json": { "schema": body }, "application/x-www-form-urlencoded": { "schema": body },
            } },
            "responses": {
                "200": begun, "400": problem("The body has no token."), "401": none, "403": elsewhere, "405": method,
                "413": problem("The body is longer than a token is."), "429": fast,
                "415": problem("The body is neither JSON nor a form."),
            },
        },
        "delete": {
            "operationId": "end_session", "summary": "Takes the cookie away.", "security": [{}],
            "responses": { "204": ended, "403": elsewhere, "405": method },
        },
    })
}

fn json_of(schema: &str) -> Value {
    json!({ "schema": schema_named(schema) })
}

fn schema_named(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn problem(about: &str) -> Value {
    json!({ "description": about, "content": { "application/problem+json": json_of("Problem") } })
}

fn responses(route: &Route) -> Value {
    let json = |schema: &str| json!({ "application/json": json_of(schema) });
    let content = match route.answer {
        Answer::Count => json!({
            "application/json": json_of("Count"),
            "text/csv": { "schema": { "type": "string" } },
        }),
        Answer::Top => json("Top"),
        Answer::Invalid => json("Invalid"),
        Answer::History => json("History"),
        Answer::Edges => json("Edges"),
        Answer::Methodology => json("Methodology"),
        Answer::Live => json!({ "text/event-stream": {
            "schema": { "type": "string", "description": "Events `state`, whose data is JSON, as x-event-data says." },
            "x-event-data": { "state": { "oneOf": [schema_named("LiveStateOfAll"), schema_named("LiveStateOfScope")] } },
        } }),
        Answer::OpenApi => json!({ "application/json": { "schema": { "type": "object" } } }),
    };
    let mut responses = json!({
        "200": { "description": route.about, "content": content },
        "400": problem("A parameter that is not known here, is there twice, or has a value that cannot be answered: so is a from before hours are kept, for what is left would be too small a sum."),
        "401": problem("A token is needed, or this is none that counts."),
        "404": problem("There is no such path."),
        "405": problem("The path is read with GET or HEAD."),
        "421": problem("Where no token is needed: the Host is neither an address nor localhost."),
        "429": problem("Faster than the token may ask: Retry-After says when to come again."),
        "503": problem("Ask again in a moment: Retry-After says when."),
    });
    if !matches!(route.answer, Answer::Live | Answer::Edges) {
        let etag = json!({ "schema": { "type": "string" }, "description": "Names the counts that are answered, with their states and versions; as of when they are is not in it." });
        responses["200"]["headers"] = json!({ "ETag": etag });
        responses["304"] =
            json!({ "description": "If-None-Match names the answer: it is as it was.", "headers": { "ETag": etag } });
    }
    responses
}
