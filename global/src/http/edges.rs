//! The edges: how far each is, and what did not go as it should.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;

use super::finished::Finished;
use super::reads::Lane;
use super::request::Given;
use super::times::format_time;
use super::{Access, Problem, Shared, routes};
use crate::consumer::wall_ms;
use crate::edges::{EdgeState, TroubleKind};
use crate::tables::StoreError;

#[derive(Serialize)]
struct EdgesAnswer {
    now: String,
    edges: Vec<EdgeAnswer>,
}

#[derive(Serialize)]
pub struct EdgeAnswer {
    edge_id: String,
    presence: &'static str,
    /// When its last whole transaction was committed, and how long ago that is; None: there was none.
    seen: Option<String>,
    silent_ms: Option<i64>,
    watermark: Option<String>,
    /// How far its watermark is behind the clock.
    lag_ms: Option<i64>,
    /// What it counted is everybody's: not for who may see campaigns alone.
    #[serde(flatten)]
    counted: Option<Counted>,
}

#[derive(Serialize)]
struct Counted {
    txn_seq: u64,
    clicks: u64,
    clicks_missing: u64,
    troubles_seen: BTreeMap<&'static str, u64>,
    troubles: Vec<TroubleAnswer>,
    /// Nothing past this is final until an operator has said `tollgate edges accept`.
    held_at: Option<String>,
}

#[derive(Serialize)]
struct TroubleAnswer {
    kind: &'static str,
    at: String,
    txn_seq: u64,
    clicks_missing: u64,
    text: String,
}

impl EdgeAnswer {
    pub fn of(edge: &EdgeState, now_ms: i64, access: &Access) -> EdgeAnswer {
        EdgeAnswer {
            edge_id: edge.edge_id.clone(),
            presence: edge.presence.name(),
            seen: edge.seen_ms.map(format_time),
            silent_ms: edge.silent_ms(now_ms),
            watermark: edge.watermark_ms.map(format_time),
            lag_ms: edge.watermark_ms.map(|watermark_ms| now_ms.saturating_sub(watermark_ms).max(0)),
            counted: access.is_all().then(|| Counted::of(edge)),
        }
    }
}

impl Counted {
    fn of(edge: &EdgeState) -> Counted {
        let troubles = edge.troubles.iter().map(|trouble| TroubleAnswer {
            kind: TroubleKind::ALL
                .iter()
                .find(|kind| kind.code() == trouble.kind)
                .map_or("unknown", |kind| kind.name()),
            at: format_time(trouble.at_ms),
            txn_seq: trouble.txn_seq,
            clicks_missing: trouble.clicks,
            text: trouble.text.clone(),
        });
        Counted {
            txn_seq: edge.txn_seq,
            clicks: edge.clicks,
            clicks_missing: edge.clicks_missing,
            troubles_seen: TroubleKind::ALL.iter().map(|kind| kind.name()).zip(edge.troubles_seen).collect(),
            troubles: troubles.collect(),
            held_at: edge.held_at_ms.map(format_time),
        }
    }
}

pub async fn edges(
    State(shared): State<Shared>,
    access: Access,
    given: Given,
    head: HeaderMap,
) -> Result<Response, Problem> {
    given.read(&routes::EDGES)?;
    let now_ms = wall_ms();
    let answer = shared.reads.answer(&shared.store, Lane::Short, head, move |snapshot| {
        let edges = snapshot.edges(now_ms)?;
        let answer = EdgesAnswer {
            now: format_time(now_ms),
            edges: edges.iter().map(|edge| EdgeAnswer::of(edge, now_ms, &access)).collect(),
        };
        Ok::<_, StoreError>(Finished::json(snapshot, &answer).of_now())
    });
    answer.await
}
