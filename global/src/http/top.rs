//! The ranking of ads.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::answers::TopAnswer;
use super::finished::Finished;
use super::reads::Lane;
use super::request::Given;
use super::{Access, Problem, Shared, routes};
use crate::question::{Top, TopQuestion};
use crate::question_error::QuestionError;
use crate::snapshot::Snapshot;

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
    let bodies = shared.reads.bodies();
    let answer = read(&shared, question, move |snapshot, question, top| {
        Finished::json(snapshot, &TopAnswer::of(question, top)).into_response(&head, &bodies)
    });
    answer.await?
}

/// From memory at once; where not all of the window is there, in its turn among long reads: it is an hour of all ads' rows.
async fn read<T: Send + 'static>(
    shared: &Shared,
    question: TopQuestion,
    then: impl FnOnce(&Snapshot, &TopQuestion, &Top) -> T + Send + 'static,
) -> Result<T, Problem> {
    let lane = Lane::long(question.scope.clone());
    let (reads, store) = (&shared.reads, &shared.store);
    let in_memory = move |snapshot: &Snapshot| {
        let top = snapshot.top_in_memory(&question)?;
        Ok::<_, QuestionError>(match top {
            Some(top) => Ok(then(snapshot, &question, &top)),
            None => Err((question, then)),
        })
    };
    match reads.read(store, Lane::Short, in_memory).await? {
        Ok(done) => Ok(done),
        Err((question, then)) => {
            let ranked = move |snapshot: &Snapshot| {
                let top = snapshot.top(&question)?;
                Ok::<_, QuestionError>(then(snapshot, &question, &top))
            };
            reads.read(store, lane, ranked).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::watch;

    use super::*;
    use crate::fixture::{partial, transaction};
    use crate::http::live::Live;
    use crate::http::reads::Reads;
    use crate::question::{RankBy, TopWindow};
    use crate::store::{Options, Store};
    use crate::window::MINUTE_MS;

    /// With too little room for the counts of the hour, a ranking of the hour is a long read; that of the last minute is none.
    #[tokio::test]
    async fn a_ranking_that_is_read_from_rows_waits_for_a_long_turn() {
        let folder = tempfile::tempdir().expect("folder");
        let options = Options { ranking_bytes_max: 400, ..Options::default() };
        let store = Arc::new(Store::open_with(&folder.path().join("store"), options).expect("a new store"));
        store.commit(&transaction("e", 1, 0, Vec::new())).expect("commit");
        store.keep_up(0).expect("warm");
        for minute in 1..30u64 {
            let at_ms = minute as i64 * MINUTE_MS;
            let ads = vec![partial("a", at_ms, 0, minute, &[]), partial("b", at_ms, 0, 100, &[])];
            store.commit(&transaction("e", minute + 1, at_ms, ads)).expect("commit");
        }
        let (_ending, ended) = watch::channel(());
        let shared = Shared { store, reads: Reads::default(), live: Arc::new(Live::new(ended)) };
        let asked = |window| TopQuestion { window, k: 1, by: RankBy::Net, region: None, scope: None };
        let soon = |window| {
            tokio::time::timeout(Duration::from_secs(2), read(&shared, asked(window), |_, _, top| top.clone()))
        };
        let turns = (shared.reads.turn(Lane::Long).await, shared.reads.turn(Lane::Long).await);
        let minute = soon(TopWindow::Minute).await.expect("at once").expect("ranked");
        assert_eq!((minute.ads[0].ad_id.as_str(), minute.ads[0].net), ("b", 100));
        assert!(soon(TopWindow::Hour).await.is_err(), "both turns are taken");
        drop(turns);
        let hour = soon(TopWindow::Hour).await.expect("in its turn").expect("ranked");
        assert_eq!((hour.ads[0].ad_id.as_str(), hour.ads[0].net), ("b", 2_800));
    }
}
