//! Pure. What can be asked of a snapshot, and what is answered. Routes make a [`Question`] of a URL, and text of [`Counts`].

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::Parts;
use crate::sums::Sums;
use crate::window::{Granularity, Marks, Window, WindowState};

/// Whose clicks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Of all ads.
    All,
    Ad(String),
    Campaign(String),
    Advertiser(String),
}

/// A part of user agents, as `filter_user_agent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAgent {
    /// A code of the wire's `device`.
    Device(u32),
    /// A code of the wire's `agent`.
    Agent(u32),
}

/// Rows that somebody may see: those of these campaigns or of these advertisers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub campaigns: BTreeSet<String>,
    pub advertisers: BTreeSet<String>,
}

/// Which of the subject's rows count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub region: Option<String>,
    pub user_agent: Option<UserAgent>,
    /// None: everything may be seen. A token's own, however many ask with it.
    pub scope: Option<Arc<Scope>>,
}

impl Filter {
    pub fn takes(&self, row: &Parts<'_>) -> bool {
        self.region.as_deref().is_none_or(|region| region == row.region)
            && self.user_agent.is_none_or(|agent| match agent {
                UserAgent::Device(code) => code == row.device,
                UserAgent::Agent(code) => code == row.agent,
            })
            && self.scope.as_ref().is_none_or(|scope| scope.takes(row.campaign_id, row.advertiser_id))
    }
}

impl Scope {
    pub fn takes(&self, campaign_id: &str, advertiser_id: &str) -> bool {
        self.campaigns.contains(campaign_id) || self.advertisers.contains(advertiser_id)
    }
}

/// What rows of an answer are told apart by, beside their window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Ad,
    Region,
    Device,
    Agent,
    Class,
}

/// One group of an answer. Codes are those of the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Ad(String),
    Region(String),
    Device(u32),
    Agent(u32),
    Class(u32),
}

impl GroupBy {
    pub fn of(self, row: &Parts<'_>) -> Group {
        match self {
            GroupBy::Ad => Group::Ad(row.ad_id.to_owned()),
            GroupBy::Region => Group::Region(row.region.to_owned()),
            GroupBy::Device => Group::Device(row.device),
            GroupBy::Agent => Group::Agent(row.agent),
            GroupBy::Class => Group::Class(row.class),
        }
    }
}

/// A question about a span of event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub subject: Subject,
    /// Whole panes; where a granularity is asked for, whole windows of it ([`Question::widened`]).
    pub span: Window,
    /// A row for each window in which there is something.
    pub granularity: Option<Granularity>,
    pub group_by: Option<GroupBy>,
    pub filter: Filter,
    /// Rows after this one: where the page before it ended.
    pub after: Option<(i64, Option<Group>)>,
    /// Fewer, where they have so many users that they take more memory than a page may.
    pub rows_max: usize,
}

impl Question {
    /// One sum of all classes, and no rows.
    pub fn of_a_sum(subject: Subject, scope: Option<Arc<Scope>>, span: Window) -> Question {
        let filter = Filter { scope, ..Filter::default() };
        Question { subject, span, granularity: None, group_by: None, filter, after: None, rows_max: 0 }
    }

    /// The span that is answered: as asked, widened to whole panes, or windows of the granularity.
    pub fn widened(from_ms: i64, to_ms: i64, granularity: Option<Granularity>) -> Window {
        let grain_ms = granularity.map_or(crate::key::PANE_MS, Granularity::ms);
        Window { start_ms: crate::window::floor(from_ms, grain_ms), end_ms: crate::window::ceil(to_ms, grain_ms) }
    }
}

/// One row of an answer.
#[derive(Debug)]
pub struct CountRow {
    /// The window, or the whole span where no granularity was asked for.
    pub window: Window,
    pub group: Option<Group>,
    pub sums: Sums,
    pub state: WindowState,
    /// 0: open. Else 1, and one more for each ad, minute and commit that corrected that minute of the ad after it was closed: of the ads of
    /// the subject and the minutes of the window together; of all ads, one for each minute and commit.
    pub version: u64,
}

/// An answer, of one moment.
#[derive(Debug)]
pub struct Counts {
    pub total: CountRow,
    /// Where a granularity or a group was asked for, in the order of (window, group).
    pub rows: Vec<CountRow>,
    /// Rows are left: ask again with this as `after`.
    pub more: Option<(i64, Option<Group>)>,
    pub as_of: AsOf,
}

/// What an answer stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The commit that is seen; one more at each.
    pub generation: i64,
    /// When the last transaction was committed; None before the first.
    pub committed_ms: Option<i64>,
    /// The smallest of the live edges'; None where nothing is claimed.
    pub watermark_ms: Option<i64>,
    /// `closed_before_ms`: complete up to here. `final_before_ms`: final up to here.
    pub marks: Marks,
}

/// What ads are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankBy {
    Net,
    Gross,
}

/// The sliding windows that are ranked; each ends at a border of panes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopWindow {
    Minute,
    FiveMinutes,
    Hour,
}

impl TopWindow {
    pub const ALL: [TopWindow; 3] = [TopWindow::Minute, TopWindow::FiveMinutes, TopWindow::Hour];

    pub fn minutes(self) -> i64 {
        match self {
            TopWindow::Minute => 1,
            TopWindow::FiveMinutes => 5,
            TopWindow::Hour => 60,
        }
    }

    pub fn of_minutes(minutes: i64) -> Option<TopWindow> {
        TopWindow::ALL.into_iter().find(|window| window.minutes() == minutes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopQuestion {
    pub window: TopWindow,
    pub k: usize,
    pub by: RankBy,
    /// Region and scope; the ranking does not know user agents.
    pub region: Option<String>,
    pub scope: Option<Arc<Scope>>,
}

impl TopQuestion {
    /// What an ad with so many clicks is ranked by.
    pub fn rank(&self, gross: u64, net: u64) -> u64 {
        match self.by {
            RankBy::Gross => gross,
            RankBy::Net => net,
        }
    }

    /// Whether clicks of these are ranked.
    pub fn takes(&self, campaign_id: &str, advertiser_id: &str, region: &str) -> bool {
        self.region.as_deref().is_none_or(|wanted| wanted == region)
            && self.scope.as_ref().is_none_or(|scope| scope.takes(campaign_id, advertiser_id))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopAd {
    pub ad_id: String,
    pub gross: u64,
    pub net: u64,
}

/// The ads with the most clicks of the last closed window of that length; equal ones by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    pub window: Window,
    pub ads: Vec<TopAd>,
    pub as_of: AsOf,
}

/// Why clicks came after their window was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorrectionReason {
    /// Within the 2 min after closing in which corrections are expected.
    Late,
    /// After that.
    VeryLate,
    /// From an edge that had been silent for so long that nothing waited for it.
    SilentEdge,
    /// After the window was final: an edge came back that was retired, or topics were put back.
    AfterFinal,
}

impl CorrectionReason {
    pub fn name(self) -> &'static str {
        match self {
            CorrectionReason::Late => "late",
            CorrectionReason::VeryLate => "very_late",
            CorrectionReason::SilentEdge => "silent_edge",
            CorrectionReason::AfterFinal => "after_final",
        }
    }
}

/// What one version of a minute added to the one before it. Where a minute has more than
/// [`crate::history::CORRECTIONS_MAX`], the oldest are kept as sums: then `versions` is more than one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    pub minute: Window,
    /// The version that it made, counting from 2; the first is what stood there when the minute was closed.
    pub version: u64,
    /// So many versions in one, of which `version` is the last.
    pub versions: u64,
    /// When it was committed; of several, the last.
    pub at_ms: i64,
    pub reason: CorrectionReason,
    pub gross_added: u64,
    pub net_added: u64,
}
