//! The routes that count: of an ad, a campaign, an advertiser, of all; and what of an ad is invalid.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;

use super::answers::{CountAnswer, InvalidAnswer};
use super::cursor::{Cursor, question_of};
use super::finished::Finished;
use super::parameters::{Asked, BadParameter, Format};
use super::reads::Lane;
use super::request::{Given, PathId};
use super::routes::{self, Route};
use super::times::format_time;
use super::{Access, Problem, Shared, names, sheet};
use crate::consumer::wall_ms;
use crate::question::{Counts, Question, Subject};
use crate::question_error::QuestionError;
use crate::snapshot::Snapshot;

pub async fn of_ad(
    State(shared): State<Shared>,
    access: Access,
    id: PathId,
    given: Given,
    head: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let subject = Subject::Ad(id.read(&routes::AD_COUNT)?);
    count(&shared, &access, &routes::AD_COUNT, subject, &given, (head, uri)).await
}

pub async fn of_campaign(
    State(shared): State<Shared>,
    access: Access,
    id: PathId,
    given: Given,
    head: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let subject = Subject::Campaign(id.read(&routes::CAMPAIGN_COUNT)?);
    count(&shared, &access, &routes::CAMPAIGN_COUNT, subject, &given, (head, uri)).await
}

pub async fn of_advertiser(
    State(shared): State<Shared>,
    access: Access,
    id: PathId,
    given: Given,
    head: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let subject = Subject::Advertiser(id.read(&routes::ADVERTISER_COUNT)?);
    count(&shared, &access, &routes::ADVERTISER_COUNT, subject, &given, (head, uri)).await
}

pub async fn of_all(
    State(shared): State<Shared>,
    access: Access,
    given: Given,
    head: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    count(&shared, &access, &routes::TOTALS, Subject::All, &given, (head, uri)).await
}

pub async fn invalid(
    State(shared): State<Shared>,
    access: Access,
    id: PathId,
    given: Given,
    head: HeaderMap,
) -> Result<Response, Problem> {
    let (ad_id, asked) = (id.read(&routes::INVALID)?, given.read(&routes::INVALID)?);
    let question = question_for(&asked, Subject::Ad(ad_id.clone()), &access, wall_ms())?;
    let answer = shared.reads.answer(&shared.store, Lane::of(&question), head, move |snapshot| {
        let counts = counted(snapshot, &question)?;
        let user_agent = asked.user_agent.map(|(name, _)| name);
        Ok::<_, Problem>(Finished::json(snapshot, &InvalidAnswer::of(&ad_id, &question, &counts, user_agent)))
    });
    answer.await
}

async fn count(
    shared: &Shared,
    access: &Access,
    route: &Route,
    subject: Subject,
    given: &Given,
    (head, uri): (HeaderMap, Uri),
) -> Result<Response, Problem> {
    let asked = given.read(route)?;
    let mut question = question_for(&asked, subject, access, wall_ms())?;
    let identity = identity_of(&asked, &question, uri.path());
    if let Some(text) = &asked.cursor {
        let cursor = Cursor::parse(text).filter(|cursor| cursor.question == identity);
        let cursor = cursor.filter(|cursor| asked.says(question.span, cursor.span));
        let allowed = "next_cursor of an answer to the very same question, its limit and format aside";
        let cursor = cursor.ok_or_else(|| BadParameter::new("cursor", text, allowed))?;
        // It is not signed: its span is bounded like one that is said.
        asked.check_windows(cursor.span).map_err(|_| BadParameter::new("cursor", text, allowed))?;
        (question.span, question.after) = (cursor.span, Some(cursor.after));
    }
    let answer = shared.reads.answer(&shared.store, Lane::of(&question), head, move |snapshot| {
        let counts = counted(snapshot, &question)?;
        let cursor = |after| Cursor { question: identity, span: question.span, after }.to_text();
        let next = counts.more.clone().map(cursor);
        let finished = match asked.format {
            Format::Json => {
                let user_agent = asked.user_agent.map(|(name, _)| name);
                Finished::json(snapshot, &CountAnswer::of(&question, &counts, user_agent, next.as_deref()))
            }
            Format::Csv => {
                let has_rows = question.granularity.is_some() || question.group_by.is_some();
                Finished::csv(snapshot, sheet::of(&counts, question.group_by, has_rows))
            }
        };
        let link = next.map(|next| format!("<{}>; rel=\"next\"", with_cursor(&uri, &next)));
        Ok::<_, Problem>(finished.with_link(link))
    });
    answer.await
}

fn question_for(asked: &Asked, subject: Subject, access: &Access, now_ms: i64) -> Result<Question, Problem> {
    Ok(Question {
        subject,
        span: asked.span(now_ms)?,
        granularity: asked.granularity,
        group_by: asked.group_by,
        filter: asked.filter(access.scope()),
        after: None,
        rows_max: asked.limit,
    })
}

/// What was asked, whatever its span, page and format.
fn identity_of(asked: &Asked, question: &Question, path: &str) -> u64 {
    let granularity = question.granularity.map_or("", |granularity| granularity.name());
    let group_by = question.group_by.map_or("", names::group_by);
    let region = asked.region.as_deref().unwrap_or("");
    let user_agent = asked.user_agent.map_or("", |(name, _)| name);
    question_of(&[path, granularity, group_by, region, user_agent])
}

/// The same URL, for the page after.
fn with_cursor(uri: &Uri, cursor: &str) -> String {
    let query = uri.query().unwrap_or("").split('&');
    let kept: Vec<_> = query.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor=")).collect();
    let cursor = format!("cursor={cursor}");
    format!("{}?{}", uri.path(), [kept, vec![cursor.as_str()]].concat().join("&"))
}

fn counted(snapshot: &Snapshot, question: &Question) -> Result<Counts, Problem> {
    snapshot.count(question).map_err(|error| match error {
        QuestionError::TooWide => too_wide(question),
        QuestionError::TooFine { kept_from_ms } => too_fine(question, kept_from_ms),
        QuestionError::Pruned { kept_from_ms } => pruned(question, kept_from_ms),
        QuestionError::NotYet | QuestionError::Store(_) => error.into(),
    })
}

fn pruned(question: &Question, kept_from_ms: i64) -> Problem {
    let kept = format_time(kept_from_ms);
    let detail = format!(
        "hours are kept from {kept} on, and clicks of before are no longer counted: a sum from an earlier time would be too small"
    );
    let allowed = format!("{kept} or later, with granularity=1d from a day that begins then or later");
    BadParameter { detail, ..BadParameter::new("from", &format_time(question.span.start_ms), allowed) }.into()
}

fn too_fine(question: &Question, kept_from_ms: i64) -> Problem {
    let given = question.granularity.map_or("", |granularity| granularity.name());
    let kept = format_time(kept_from_ms);
    let detail = format!("minutes are kept from {kept} on, and what was clicked before that is in hours");
    BadParameter { detail, ..BadParameter::new("granularity", given, "1h or 1d, or a later `from`") }.into()
}

fn too_wide(question: &Question) -> Problem {
    let (parameter, given) = match (question.granularity, question.group_by) {
        (Some(granularity), _) => ("granularity", granularity.name()),
        (None, Some(by)) => ("group_by", names::group_by(by)),
        (None, None) => return Problem::new(StatusCode::BAD_REQUEST, QuestionError::TooWide.to_string()),
    };
    let allowed = "a coarser one, or the same over a shorter span or fewer groups";
    BadParameter { detail: QuestionError::TooWide.to_string(), ..BadParameter::new(parameter, given, allowed) }.into()
}
