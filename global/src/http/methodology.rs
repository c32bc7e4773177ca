//! How clicks are counted, for who has to rely on it: from the very values in force.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::finished::Finished;
use super::reads::Lane;
use super::request::Given;
use super::times::format_time;
use super::{Access, Problem, Shared, names, routes};
use crate::catalogue::Catalogue;
use crate::history::{CORRECTIONS_MAX, EXPECTED_MS};
use crate::key::PANE_MS;
use crate::question::CorrectionReason;
use crate::store::Options;
use crate::sums::USERS_ERROR;
use crate::tables::StoreError;
use crate::window::{Grain, Granularity, WindowState};

pub async fn methodology(
    State(shared): State<Shared>,
    _: Access,
    given: Given,
    head: HeaderMap,
) -> Result<Response, Problem> {
    given.read(&routes::METHODOLOGY)?;
    let options = shared.store.options().clone();
    let answer = shared.reads.answer(&shared.store, Lane::Short, head, move |snapshot| {
        let mut answer = text(&options);
        answer["catalogue"] = catalogue(snapshot.catalogue());
        Ok::<_, StoreError>(Finished::json(snapshot, &answer))
    });
    answer.await
}

fn text(options: &Options) -> Value {
    let windows: Vec<_> = Granularity::ALL.iter().map(|granularity| granularity.name()).collect();
    let kept: Vec<_> = Grain::ALL
        .iter()
        .map(|grain| json!({ "grain": grain.name(), "grain_ms": grain.ms(), "kept_ms": options.retention.of(*grain) }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "counting": "Each click has an id; an edge remembers ids exactly, so that a click that is sent again is counted once. A click is \
                     on disk before it is acknowledged, and what is acknowledged is counted exactly once, through crashes of edge, \
                     Kafka and this tier. It counts at its event time: when the user clicked, as the click says.",
        "gross": "All clicks, whatever their class.",
        "net": "Clicks of the class valid; click_count is the same.",
        "classes": classes(),
        "windows": {
            "granularities": windows,
            "pane_ms": PANE_MS,
            "begin": "At multiples of their length since 1970-01-01T00:00:00Z.",
            "spans": "from and to are widened to whole panes, with a granularity to whole windows; where panes or minutes are no longer \
                      kept, to minutes or hours. The answer's from and to say to what.",
        },
        "states": states(),
        "corrections": corrections(),
        "edges": {
            "idle_after_ms": options.idle_after_ms,
            "silence": "An edge that sends nothing for longer holds no window open; no window is final while it may still send clicks of it.",
        },
        "users": {
            "estimate": "Distinct users of net clicks, by a sketch (HyperLogLog) of a hash of the user's id; merged over edges and windows, \
                         it is as exact as over one. Clicks that name no user are not in it.",
            "standard_error": USERS_ERROR,
        },
        "retention": kept,
    })
}

fn catalogue(catalogue: &Catalogue) -> Value {
    let version = catalogue.version();
    json!({
        "about": "Campaign and advertiser of a click are those that the catalogue gives its ad; where it says nothing, those that the click \
                  names. The catalogue in force holds for all of the past. Counts of an ad, and of all, do not depend on it.",
        "loaded": version.is_some().then(|| format_time(catalogue.loaded_ms())),
        "version": version,
    })
}

fn classes() -> Value {
    let about = [
        "No rule marked it.",
        "Its user agent names a crawler, a library or another client that is no person.",
        "The browser said that it only fetched ahead (Sec-Purpose or Purpose: prefetch).",
    ];
    let classes = names::CLASSES.iter().zip(about).zip(0..);
    classes
        .map(|((class, about), code)| json!({ "class": class, "code": code, "counts_as_net": code == 0, "about": about }))
        .collect()
}

fn states() -> Value {
    let about = |state| match state {
        WindowState::Open => "Clicks are expected to come.",
        WindowState::Closed => {
            "The watermark, the smallest of the live edges', has passed its end. What comes all the same is counted, as a new version."
        }
        WindowState::Final => "Every edge's horizon has passed its end: no edge takes a click of it any more.",
    };
    let states = [WindowState::Open, WindowState::Closed, WindowState::Final];
    states.iter().map(|state| json!({ "state": state.name(), "about": about(*state) })).collect()
}

fn corrections() -> Value {
    let about = |reason| match reason {
        CorrectionReason::Late => "It came within the time in which corrections are expected.",
        CorrectionReason::VeryLate => "It came after that.",
        CorrectionReason::SilentEdge => {
            "It came from an edge that had been silent for so long that nothing waited for it."
        }
        CorrectionReason::AfterFinal => {
            "The window was final: an edge came back that was retired, or topics were put back."
        }
    };
    let reasons = [
        CorrectionReason::Late,
        CorrectionReason::VeryLate,
        CorrectionReason::SilentEdge,
        CorrectionReason::AfterFinal,
    ];
    let reasons: Vec<_> =
        reasons.iter().map(|reason| json!({ "reason": reason.name(), "about": about(*reason) })).collect();
    json!({
        "version": "Of an ad in a minute: 0 while it is open, 1 when it is closed, one more for each commit that corrected it. Of more ads or \
                        minutes together the corrections are added up; a row of a group has the version of its window. It orders answers to \
                        one question under one version of the ad catalogue, and does not fall when minutes are pruned.",
        "expected_ms": EXPECTED_MS,
        "kept_of_a_minute": CORRECTIONS_MAX,
        "reasons": reasons,
    })
}
