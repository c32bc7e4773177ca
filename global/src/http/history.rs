//! What came to an ad's minutes after they were closed.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Serialize, Serializer};

use super::cursor::{Cursor, question_of};
use super::finished::Finished;
use super::parameters::BadParameter;
use super::reads::Lane;
use super::request::{Given, PathId};
use super::times::format_time;
use super::{Access, Problem, Shared, routes};
use crate::consumer::wall_ms;
use crate::history::CorrectionsPage;
use crate::question::Correction;
use crate::window::{Grain, MINUTE_MS, Window, ceil, floor};

#[derive(Serialize)]
struct HistoryAnswer<'a> {
    ad_id: &'a str,
    from: String,
    to: String,
    corrections: CorrectionsAnswer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Made one at a time, like the rows of counts.
struct CorrectionsAnswer<'a>(&'a [Correction]);

impl Serialize for CorrectionsAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(CorrectionAnswer::of))
    }
}

#[derive(Serialize)]
struct CorrectionAnswer {
    window_start: String,
    window_end: String,
    version: u64,
    /// Versions in one, of which `version` is the last; of more than 32 the oldest are kept as a sum.
    versions: u64,
    at: String,
    reason: &'static str,
    gross_added: u64,
    net_added: u64,
}

impl CorrectionAnswer {
    fn of(correction: &Correction) -> CorrectionAnswer {
        CorrectionAnswer {
            window_start: format_time(correction.minute.start_ms),
            window_end: format_time(correction.minute.end_ms),
            version: correction.version,
            versions: correction.versions,
            at: format_time(correction.at_ms),
            reason: correction.reason.name(),
            gross_added: correction.gross_added,
            net_added: correction.net_added,
        }
    }
}

pub async fn of_ad(
    State(shared): State<Shared>,
    access: Access,
    id: PathId,
    given: Given,
    head: HeaderMap,
) -> Result<Response, Problem> {
    let (ad_id, asked) = (id.read(&routes::HISTORY)?, given.read(&routes::HISTORY)?);
    let span = asked.span(wall_ms())?;
    let mut span = Window { start_ms: floor(span.start_ms, MINUTE_MS), end_ms: ceil(span.end_ms, MINUTE_MS) };
    let identity = question_of(&[routes::HISTORY.path, &ad_id]);
    let mut from_ms = span.start_ms;
    if let Some(text) = &asked.cursor {
        let cursor = Cursor::parse(text).filter(|cursor| cursor.question == identity && cursor.after.1.is_none());
        let cursor = cursor.filter(|cursor| asked.says(span, cursor.span));
        let allowed =
            "next_cursor of an answer about the history of the same ad, and of the same span where one is said";
        let cursor = cursor.ok_or_else(|| BadParameter::new("cursor", text, allowed))?;
        (span, from_ms) = (cursor.span, cursor.after.0);
    }
    let (scope, limit) = (access.scope(), asked.limit);
    let answer = shared.reads.answer(&shared.store, Lane::Short, head, move |snapshot| {
        let kept_from_ms = snapshot.progress().kept_from(Grain::Minute);
        if span.start_ms < kept_from_ms {
            return Err(pruned(span, kept_from_ms));
        }
        let left = Window { start_ms: from_ms, ..span };
        let shown = scope.is_none_or(|scope| snapshot.catalogue().owns(&scope, &ad_id));
        let none = CorrectionsPage::new(limit);
        let page = if shown { snapshot.history(Some(&ad_id), left, limit)? } else { none };
        let next = page.next_ms.map(|after| Cursor { question: identity, span, after: (after, None) }.to_text());
        let answer = HistoryAnswer {
            ad_id: &ad_id,
            from: format_time(span.start_ms),
            to: format_time(span.end_ms),
            corrections: CorrectionsAnswer(&page.corrections),
            next_cursor: next,
        };
        Ok::<_, Problem>(Finished::json(snapshot, &answer))
    });
    answer.await
}

/// Corrections are kept as long as the minutes that they are of.
fn pruned(span: Window, kept_from_ms: i64) -> Problem {
    let kept = format_time(kept_from_ms);
    let detail = format!("corrections of minutes are kept from {kept} on, and those of before are gone");
    let given = format_time(span.start_ms);
    BadParameter { detail, ..BadParameter::new("from", &given, format!("{kept} or later")) }.into()
}
