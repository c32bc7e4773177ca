//! Pure. Every path of the query API and what it knows: the handlers read by it, `openapi` describes it.

use super::parameters::Parameter;
use crate::question::GroupBy;

/// What stands in a route's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    Ad,
    Campaign,
    Advertiser,
}

impl Id {
    pub fn name(self) -> &'static str {
        match self {
            Id::Ad => "ad_id",
            Id::Campaign => "campaign_id",
            Id::Advertiser => "advertiser_id",
        }
    }
}

/// What a route answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Count,
    Top,
    Invalid,
    History,
    Edges,
    Methodology,
    Live,
    OpenApi,
}

#[derive(Debug)]
pub struct Route {
    pub path: &'static str,
    pub about: &'static str,
    pub id: Option<Id>,
    pub parameters: &'static [Parameter],
    pub groups: &'static [GroupBy],
    pub answer: Answer,
}

use Parameter::{
    By, Cursor, FilterRegion, FilterUserAgent, Format, From, Granularity, GroupBy as GroupedBy, K, Limit, To,
    WindowMinutes,
};

const COUNT: &[Parameter] = &[From, To, Granularity, FilterRegion, FilterUserAgent, GroupedBy, Limit, Cursor, Format];
const OF_AN_AD: &[GroupBy] = &[GroupBy::Region, GroupBy::Device, GroupBy::Agent, GroupBy::Class];
const OF_ADS: &[GroupBy] = &[GroupBy::Ad, GroupBy::Region, GroupBy::Device, GroupBy::Agent, GroupBy::Class];

pub const AD_COUNT: Route = Route {
    path: "/v1/ads/{ad_id}/aggregated_count",
    about: "The clicks of one ad. An ad that is not known has zeros.",
    id: Some(Id::Ad),
    parameters: COUNT,
    groups: OF_AN_AD,
    answer: Answer::Count,
};
pub const CAMPAIGN_COUNT: Route = Route {
    path: "/v1/campaigns/{campaign_id}/aggregated_count",
    about: "The clicks of one campaign, of all its ads.",
    id: Some(Id::Campaign),
    parameters: COUNT,
    groups: OF_ADS,
    answer: Answer::Count,
};
pub const ADVERTISER_COUNT: Route = Route {
    path: "/v1/advertisers/{advertiser_id}/aggregated_count",
    about: "The clicks of one advertiser, of all its ads.",
    id: Some(Id::Advertiser),
    parameters: COUNT,
    groups: OF_ADS,
    answer: Answer::Count,
};
pub const TOTALS: Route = Route {
    path: "/v1/totals",
    about: "The clicks of all ads.",
    id: None,
    parameters: COUNT,
    groups: OF_ADS,
    answer: Answer::Count,
};
pub const INVALID: Route = Route {
    path: "/v1/ads/{ad_id}/invalid",
    about: "What of an ad's clicks counts as invalid, by the rule that marked it.",
    id: Some(Id::Ad),
    parameters: &[From, To, FilterRegion, FilterUserAgent],
    groups: &[],
    answer: Answer::Invalid,
};
pub const HISTORY: Route = Route {
    path: "/v1/ads/{ad_id}/history",
    about: "What came to minutes of an ad after they were closed: each correction with its version, time and reason.",
    id: Some(Id::Ad),
    parameters: &[From, To, Limit, Cursor],
    groups: &[],
    answer: Answer::History,
};
pub const TOP: Route = Route {
    path: "/v1/ads/top_k",
    about: "The ads with the most clicks in the window that was closed last; it slides by 10 s.",
    id: None,
    parameters: &[WindowMinutes, K, FilterRegion, By],
    groups: &[],
    answer: Answer::Top,
};
pub const EDGES: Route = Route {
    path: "/v1/edges",
    about: "Every edge that ever sent something: how far it is, whether it is silent, what did not go as it should.",
    id: None,
    parameters: &[],
    groups: &[],
    answer: Answer::Edges,
};
pub const METHODOLOGY: Route = Route {
    path: "/v1/methodology",
    about: "How clicks are counted: what gross and net are, when windows are closed and final, how exact users are, what is kept.",
    id: None,
    parameters: &[],
    groups: &[],
    answer: Answer::Methodology,
};
pub const LIVE: Route = Route {
    path: "/v1/live",
    about: "Server-sent events: one named `state` at once and then about once a second, a comment where there is nothing to say.",
    id: None,
    parameters: &[],
    groups: &[],
    answer: Answer::Live,
};
pub const OPENAPI: Route = Route {
    path: "/openapi.json",
    about: "This document.",
    id: None,
    parameters: &[],
    groups: &[],
    answer: Answer::OpenApi,
};

pub const ALL: [&Route; 11] = [
    &AD_COUNT,
    &TOP,
    &CAMPAIGN_COUNT,
    &ADVERTISER_COUNT,
    &TOTALS,
    &INVALID,
    &HISTORY,
    &EDGES,
    &METHODOLOGY,
    &LIVE,
    &OPENAPI,
];
