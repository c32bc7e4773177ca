//! Pure. What is answered, as JSON. `openapi` describes these.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::names;
use super::times::{format_mark, format_time};
use crate::question::{AsOf, CountRow, Counts, GroupBy, Question, Subject, Top, TopQuestion};
use crate::sums::{CLASS_VALID, Sums};

/// Longest text of a row: of an ad whose id has as many bytes as an edge takes, each of them escaped.
pub const ROW_TEXT_BYTES_MAX: usize = 512;

/// What every answer stands on: its last fields, see [`super::finished`].
#[derive(Debug, Serialize)]
pub struct Standing {
    /// When the last transaction was committed that is in the answer; None before the first.
    pub as_of: Option<String>,
    /// Up to here the live edges expect no more clicks; what comes later still counts. None before the first export.
    pub watermark: Option<String>,
    /// Windows that end by then are closed.
    pub complete_up_to: Option<String>,
    /// Windows that end by then are final.
    pub final_up_to: Option<String>,
}

impl Standing {
    pub fn of(as_of: &AsOf) -> Standing {
        Standing {
            as_of: as_of.committed_ms.map(format_time),
            watermark: as_of.watermark_ms.map(format_time),
            complete_up_to: format_mark(as_of.marks.closed_before_ms),
            final_up_to: format_mark(as_of.marks.final_before_ms),
        }
    }
}

/// The filters as they were given.
#[derive(Debug, Serialize)]
pub struct FilterAnswer<'a> {
    pub region: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// The counts of an ad, a campaign, an advertiser, or of all.
#[derive(Debug, Serialize)]
pub struct CountAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertiser_id: Option<&'a str>,
    /// The span that was counted: it may be wider than asked for.
    from: String,
    to: String,
    /// The same as `net`.
    click_count: u64,
    filter: FilterAnswer<'a>,
    /// Clicks of all classes.
    gross: u64,
    /// Clicks of the class `valid`.
    net: u64,
    /// Estimate of the distinct users of net clicks; clicks that name no user are not in it.
    users: u64,
    /// Clicks of each class that occurs; they add up to `gross`.
    classes: BTreeMap<String, u64>,
    /// Of the whole span.
    state: &'static str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    granularity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<RowsAnswer<'a>>,
    /// Of the next page, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
}

/// Made a row at a time: a page has thousands.
#[derive(Debug)]
struct RowsAnswer<'a> {
    rows: &'a [CountRow],
    group_by: Option<GroupBy>,
}

impl Serialize for RowsAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows.iter().map(|row| RowAnswer::of(row, self.group_by)))
    }
}

/// One window, or one group of it.
#[derive(Debug, Serialize)]
pub struct RowAnswer {
    window_start: String,
    window_end: String,
    /// `ad_id`, `region`, `device`, `agent` or `class`.
    #[serde(flatten)]
    group: BTreeMap<&'static str, String>,
    gross: u64,
    net: u64,
    users: u64,
    state: &'static str,
    version: u64,
}

impl RowAnswer {
    pub fn of(row: &CountRow, group_by: Option<GroupBy>) -> RowAnswer {
        let group = group_by.map(names::group_field).zip(row.group.as_ref().map(names::group));
        RowAnswer {
            window_start: format_time(row.window.start_ms),
            window_end: format_time(row.window.end_ms),
            group: group.into_iter().collect(),
            gross: row.sums.gross(),
            net: row.sums.net(),
            users: row.sums.users(),
            state: row.state.name(),
            version: row.version,
        }
    }

    /// The names of `cells`; `group`: that of the group's, where there is one.
    pub fn columns(group: Option<&'static str>) -> impl Iterator<Item = &'static str> {
        ["window_start", "window_end"].into_iter().chain(group).chain(["gross", "net", "users", "state", "version"])
    }

    pub fn cells(self) -> impl Iterator<Item = String> {
        let RowAnswer { window_start, window_end, group, gross, net, users, state, version } = self;
        let counts = [gross.to_string(), net.to_string(), users.to_string(), state.to_owned(), version.to_string()];
        [window_start, window_end].into_iter().chain(group.into_values()).chain(counts)
    }
}

impl<'a> CountAnswer<'a> {
    pub fn of(
        question: &'a Question,
        counts: &'a Counts,
        user_agent: Option<&'a str>,
        next_cursor: Option<&'a str>,
    ) -> CountAnswer<'a> {
        let CountRow { window, sums, state, version, .. } = &counts.total;
        let has_rows = question.granularity.is_some() || question.group_by.is_some();
        let rows = || RowsAnswer { rows: &counts.rows, group_by: question.group_by };
        let is_subject = |wanted: fn(&Subject) -> Option<&String>| wanted(&question.subject).map(String::as_str);
        CountAnswer {
            ad_id: is_subject(|subject| if let Subject::Ad(id) = subject { Some(id) } else { None }),
            campaign_id: is_subject(|subject| if let Subject::Campaign(id) = subject { Some(id) } else { None }),
            advertiser_id: is_subject(|subject| if let Subject::Advertiser(id) = subject { Some(id) } else { None }),
            from: format_time(window.start_ms),
            to: format_time(window.end_ms),
            click_count: sums.net(),
            filter: FilterAnswer { region: question.filter.region.as_deref().map(names::region), user_agent },
            gross: sums.gross(),
            net: sums.net(),
            users: sums.users(),
            classes: classes_of(sums),
            state: state.name(),
            version: *version,
            granularity: question.granularity.map(|granularity| granularity.name()),
            group_by: question.group_by.map(names::group_by),
            rows: has_rows.then(rows),
            next_cursor,
        }
    }
}

fn classes_of(sums: &Sums) -> BTreeMap<String, u64> {
    sums.clicks_by_class().iter().map(|(&class, &clicks)| (names::class(class), clicks)).collect()
}

/// What of an ad's clicks counts as invalid, and why.
#[derive(Debug, Serialize)]
pub struct InvalidAnswer<'a> {
    ad_id: &'a str,
    from: String,
    to: String,
    filter: FilterAnswer<'a>,
    gross: u64,
    net: u64,
    /// `gross` less `net`.
    invalid: u64,
    /// Of `invalid`, by class; the classes of this version also where there are none.
    classes: BTreeMap<String, u64>,
    state: &'static str,
    version: u64,
}

impl<'a> InvalidAnswer<'a> {
    pub fn of(
        ad_id: &'a str,
        question: &'a Question,
        counts: &Counts,
        user_agent: Option<&'a str>,
    ) -> InvalidAnswer<'a> {
        let CountRow { window, sums, state, version, .. } = &counts.total;
        let mut classes: BTreeMap<String, u64> =
            names::CLASSES.iter().skip(1).map(|class| ((*class).to_owned(), 0)).collect();
        let invalid = sums.clicks_by_class().iter().filter(|(class, _)| **class != CLASS_VALID);
        classes.extend(invalid.map(|(&class, &clicks)| (names::class(class), clicks)));
        InvalidAnswer {
            ad_id,
            from: format_time(window.start_ms),
            to: format_time(window.end_ms),
            filter: FilterAnswer { region: question.filter.region.as_deref().map(names::region), user_agent },
            gross: sums.gross(),
            net: sums.net(),
            invalid: sums.gross() - sums.net(),
            classes,
            state: state.name(),
            version: *version,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct TopAnswer<'a> {
    window_start: Option<String>,
    window_end: Option<String>,
    by: &'static str,
    filter: TopFilter<'a>,
    top_ads: Vec<TopAdAnswer<'a>>,
}

/// The ranking knows no user agents.
#[derive(Debug, Serialize)]
struct TopFilter<'a> {
    region: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct TopAdAnswer<'a> {
    ad_id: &'a str,
    /// The same as `net`, also where ads are ranked by gross.
    click_count: u64,
    gross: u64,
    net: u64,
}

impl<'a> TopAnswer<'a> {
    pub fn of(question: &'a TopQuestion, top: &'a Top) -> TopAnswer<'a> {
        TopAnswer {
            window_start: format_mark(top.window.start_ms),
            window_end: format_mark(top.window.end_ms),
            by: super::parameters::rank_name(question.by),
            filter: TopFilter { region: question.region.as_deref().map(names::region) },
            top_ads: top_ads(top),
        }
    }
}

pub fn top_ads(top: &Top) -> Vec<TopAdAnswer<'_>> {
    let ads = top.ads.iter();
    ads.map(|ad| TopAdAnswer { ad_id: &ad.ad_id, click_count: ad.net, gross: ad.gross, net: ad.net }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Group;
    use crate::window::{MINUTE_MS, Window, WindowState};

    #[test]
    fn a_row_is_no_longer_than_is_reckoned_with() {
        let mut sums = Sums::default();
        sums.add(CLASS_VALID, u64::MAX, &[]).expect("no users");
        let window = Window { start_ms: 0, end_ms: MINUTE_MS };
        let group = Some(Group::Ad("\"".repeat(64)));
        let row = CountRow { window, group, sums, state: WindowState::Closed, version: u64::MAX };
        let row = RowAnswer { users: u64::MAX, ..RowAnswer::of(&row, Some(GroupBy::Ad)) };
        let json = serde_json::to_string(&row).expect("plain data").len();
        assert!((ROW_TEXT_BYTES_MAX / 2..ROW_TEXT_BYTES_MAX).contains(&json), "{json}");
        assert!(row.cells().map(|cell| 2 * cell.len() + 3).sum::<usize>() < ROW_TEXT_BYTES_MAX);
    }
}
