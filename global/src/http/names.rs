//! Pure. The names of what partials carry as codes. An edge may be newer than this and know more: such a code is shown as a number.

use crate::question::{Group, GroupBy, UserAgent};

/// By code, as `wire/partials.proto` has them.
pub const CLASSES: [&str; 3] = ["valid", "bot_user_agent", "prefetch"];
pub const DEVICES: [&str; 7] = ["unknown", "mobile", "desktop", "tablet", "tv", "bot", "other"];
pub const AGENTS: [&str; 10] =
    ["unknown", "chrome", "safari", "firefox", "edge", "opera", "ie", "webview", "bot", "other"];
/// Of clicks that name no region.
pub const REGION_NONE: &str = "unknown";

pub fn class(code: u32) -> String {
    named(&CLASSES, "class", code)
}

pub fn device(code: u32) -> String {
    named(&DEVICES, "device", code)
}

pub fn agent(code: u32) -> String {
    named(&AGENTS, "agent", code)
}

fn named(names: &[&str], what: &str, code: u32) -> String {
    names.get(code as usize).map_or_else(|| format!("{what}_{code}"), |name| (*name).to_owned())
}

pub fn region(region: &str) -> &str {
    if region.is_empty() { REGION_NONE } else { region }
}

/// As rows of answers name it.
pub fn group(group: &Group) -> String {
    match group {
        Group::Ad(ad_id) => ad_id.clone(),
        Group::Region(of) => region(of).to_owned(),
        Group::Device(code) => device(*code),
        Group::Agent(code) => agent(*code),
        Group::Class(code) => class(*code),
    }
}

/// As it is asked for.
pub fn group_by(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Ad => "ad",
        GroupBy::Region => "region",
        GroupBy::Device => "device",
        GroupBy::Agent => "agent",
        GroupBy::Class => "class",
    }
}

/// The field of rows that names the group.
pub fn group_field(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Ad => "ad_id",
        GroupBy::Region | GroupBy::Device | GroupBy::Agent | GroupBy::Class => group_by(by),
    }
}

/// What `filter_user_agent` can be: devices, and the agents that no device is named like.
pub fn user_agents() -> impl Iterator<Item = (&'static str, UserAgent)> {
    let devices = DEVICES.iter().zip(0..).map(|(name, code)| (*name, UserAgent::Device(code)));
    let agents = AGENTS.iter().zip(0..).filter(|(name, _)| !DEVICES.contains(name));
    devices.chain(agents.map(|(name, code)| (*name, UserAgent::Agent(code))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_is_one_thing() {
        let found = |wanted: &str| user_agents().filter(|(name, _)| *name == wanted).map(|(_, agent)| agent).collect();
        let none: Vec<UserAgent> = Vec::new();
        assert_eq!((found("mobile"), found("chrome")), (vec![UserAgent::Device(1)], vec![UserAgent::Agent(1)]));
        assert_eq!((found("bot"), found("netscape")), (vec![UserAgent::Device(5)], none));
    }

    #[test]
    fn what_is_not_known_is_a_number() {
        assert_eq!((class(2), class(77)), ("prefetch".to_owned(), "class_77".to_owned()));
        assert_eq!((device(9), agent(10)), ("device_9".to_owned(), "agent_10".to_owned()));
        assert_eq!((region(""), region("DE")), ("unknown", "DE"));
    }
}
