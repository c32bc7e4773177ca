//! The ranking of ads.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::answers::{TopAnswer, value_of};
use super::reads::Lane;
use super::request::Given;
use super::validator::{answered, etag};
use super::{Access, Problem, Shared, routes};
use crate::question::TopQuestion;

pub async fn top_k(
    State(shared): State<Shared>,
    access: Access,
    given: Given,
    head: HeaderMap,
) -> Result<Response, Problem> {
    let asked = given.read(&routes::TOP)?;
    let filter = asked.filter(access.scope());
    let question =
        TopQuestion { window: asked.window, k: asked.k, by: asked.by, region: filter.region, scope: filter.scope };
    let read = shared
        .reads
        .read(&shared.store, Lane::Short, move |snapshot| snapshot.top(&question).map(|top| (question, top)));
    let (question, top) = read.await?;
    let answer = TopAnswer::of(&question, &top);
    let etag = etag(&value_of(&answer), "json");
    Ok(answered(&head, &etag, || axum::Json(answer).into_response()))
}
