//! Pure. The parameters of a URL. Each route lists those it knows; `openapi` describes them from the same list.

use std::sync::Arc;

use super::names;
use super::times::{SPAN_DEFAULT_MS, WANTED, format_time, parse_time};
use crate::question::{Filter, GroupBy, Question, RankBy, Scope, TopWindow, UserAgent};
use crate::window::{Granularity, Window};

/// Longest id of an ad, campaign or advertiser that can be asked for, in characters; a click's has at most as many bytes.
pub const ID_CHARACTERS_MAX: usize = 64;
/// Longest region that can be asked for; `--regions` of the edge takes no longer one.
pub const REGION_BYTES_MAX: usize = 16;
/// Rows of a page.
pub const LIMIT_MAX: usize = 10_000;
pub const LIMIT_DEFAULT: usize = 1_000;
/// Windows of a span where a granularity is asked for: 8 days of minutes, 40 of five, 16 months of hours.
pub const WINDOWS_MAX: i64 = 11_520;
pub const K_MAX: usize = 1_000;
pub const K_DEFAULT: usize = 100;
/// Of what was given, so much is said back.
const GIVEN_CHARACTERS_MAX: usize = 100;

/// What stands in a URL.
pub const ENCODED: &str = "percent-encoded UTF-8: % and two hexadecimal digits, and %25 for % itself";

/// A parameter that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    pub parameter: String,
    pub given: String,
    pub allowed: String,
    /// All of it, for a person.
    pub detail: String,
}

impl BadParameter {
    pub fn new(parameter: &str, given: &str, allowed: impl Into<String>) -> BadParameter {
        let (parameter, given, allowed) = (shown(parameter), shown(given), allowed.into());
        let detail = format!("{parameter} cannot be {given:?}; it can be {allowed}");
        BadParameter { parameter, given, allowed, detail }
    }

    fn unknown(parameter: &str, given: &str, known: &[Parameter]) -> BadParameter {
        let names: Vec<_> = known.iter().map(|parameter| parameter.name()).collect();
        let allowed = if names.is_empty() { "no parameter".to_owned() } else { names.join(", ") };
        let parameter = shown(parameter);
        let detail = format!("{parameter:?} is not known here; known are: {allowed}");
        BadParameter { parameter, given: shown(given), allowed, detail }
    }

    fn not_encoded(parameter: &str, given: &str) -> BadParameter {
        BadParameter::new(parameter, given, ENCODED)
    }

    fn twice(parameter: &str, given: &str) -> BadParameter {
        let detail = format!("{parameter} is given twice");
        BadParameter { parameter: shown(parameter), given: shown(given), allowed: "once".to_owned(), detail }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(GIVEN_CHARACTERS_MAX).collect()
}

/// Every parameter that some route knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    From,
    To,
    Granularity,
    FilterRegion,
    FilterUserAgent,
    GroupBy,
    Limit,
    Cursor,
    Format,
    WindowMinutes,
    K,
    By,
}

impl Parameter {
    pub fn name(self) -> &'static str {
        match self {
            Parameter::From => "from",
            Parameter::To => "to",
            Parameter::Granularity => "granularity",
            Parameter::FilterRegion => "filter_region",
            Parameter::FilterUserAgent => "filter_user_agent",
            Parameter::GroupBy => "group_by",
            Parameter::Limit => "limit",
            Parameter::Cursor => "cursor",
            Parameter::Format => "format",
            Parameter::WindowMinutes => "window_minutes",
            Parameter::K => "k",
            Parameter::By => "by",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Csv,
}

/// What was asked for; what was not said is None, or its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub granularity: Option<Granularity>,
    pub region: Option<String>,
    pub user_agent: Option<(&'static str, UserAgent)>,
    pub group_by: Option<GroupBy>,
    pub limit: usize,
    pub cursor: Option<String>,
    pub format: Format,
    pub window: TopWindow,
    pub k: usize,
    pub by: RankBy,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            from_ms: None,
            to_ms: None,
            granularity: None,
            region: None,
            user_agent: None,
            group_by: None,
            limit: LIMIT_DEFAULT,
            cursor: None,
            format: Format::Json,
            window: TopWindow::Minute,
            k: K_DEFAULT,
            by: RankBy::Net,
        }
    }
}

impl Asked {
    /// Reads what stands in the URL: each parameter at most once, none that the route does not know.
    pub fn read(given: &[(String, String)], known: &[Parameter], groups: &[GroupBy]) -> Result<Asked, BadParameter> {
        let mut asked = Asked::default();
        for (at, (name, value)) in given.iter().enumerate() {
            let Some(parameter) = known.iter().find(|parameter| parameter.name() == name) else {
                return Err(BadParameter::unknown(name, value, known));
            };
            if given[..at].iter().any(|(before, _)| before == name) {
                return Err(BadParameter::twice(name, value));
            }
            asked.take(*parameter, value, groups).map_err(|allowed| BadParameter::new(name, value, allowed))?;
        }
        Ok(asked)
    }

    /// Takes one parameter's value in; else says what is allowed.
    fn take(&mut self, parameter: Parameter, value: &str, groups: &[GroupBy]) -> Result<(), String> {
        match parameter {
            Parameter::From => self.from_ms = Some(parse_time(value).ok_or(WANTED)?),
            Parameter::To => self.to_ms = Some(parse_time(value).ok_or(WANTED)?),
            Parameter::Granularity => self.granularity = Some(one_of(value, Granularity::ALL, |one| one.name())?),
            Parameter::FilterRegion => self.region = Some(region(value)?),
            Parameter::FilterUserAgent => self.user_agent = Some(one_of(value, names::user_agents(), |one| one.0)?),
            Parameter::GroupBy => {
                self.group_by = Some(one_of(value, groups.iter().copied(), |one| names::group_by(*one))?)
            }
            Parameter::Limit => self.limit = whole(value, LIMIT_MAX)?,
            Parameter::Cursor => self.cursor = Some(value.to_owned()),
            Parameter::Format => self.format = one_of(value, [Format::Json, Format::Csv], |one| format_name(*one))?,
            Parameter::WindowMinutes => {
                let names = TopWindow::ALL.map(|window| (window.minutes().to_string(), window));
                self.window = one_of(value, names.iter(), |one| &one.0)?.1;
            }
            Parameter::K => self.k = whole(value, K_MAX)?,
            Parameter::By => self.by = one_of(value, [RankBy::Net, RankBy::Gross], |one| rank_name(*one))?,
        }
        Ok(())
    }

    /// The span that was asked for, widened to whole panes, or to windows of the granularity. Nothing said: the hour up to now.
    pub fn span(&self, now_ms: i64) -> Result<Window, BadParameter> {
        let to_ms = self.to_ms.unwrap_or(now_ms);
        let from_ms = self.from_ms.unwrap_or_else(|| to_ms.saturating_sub(SPAN_DEFAULT_MS).max(0));
        if from_ms >= to_ms {
            let (named, given, than) = match (self.from_ms, self.to_ms) {
                (Some(_), None) => ("from", from_ms, "a time before now, where no to is given".to_owned()),
                _ => ("to", to_ms, format!("a time after from, which is {}", format_time(from_ms))),
            };
            return Err(BadParameter::new(named, &format_time(given), than));
        }
        let span = Question::widened(from_ms, to_ms, self.granularity);
        self.check_windows(span)?;
        Ok(span)
    }

    /// Whether the span of a cursor is the one that is said, which `span` is widened to. An end that is left to the clock is that of the
    /// first page.
    pub fn says(&self, span: Window, of_cursor: Window) -> bool {
        match (self.from_ms, self.to_ms) {
            (None, None) => true,
            (Some(_), None) => span.start_ms == of_cursor.start_ms,
            (_, Some(_)) => span == of_cursor,
        }
    }

    /// Whether the span has no more windows than are answered.
    pub fn check_windows(&self, span: Window) -> Result<(), BadParameter> {
        let Some(granularity) = self.granularity else { return Ok(()) };
        let windows = (span.end_ms - span.start_ms) / granularity.ms();
        if windows <= WINDOWS_MAX {
            return Ok(());
        }
        let detail = format!(
            "from {} to {} there are {windows} windows of {}; at most {WINDOWS_MAX} are answered: ask for a coarser granularity or a \
             shorter span",
            format_time(span.start_ms),
            format_time(span.end_ms),
            granularity.name()
        );
        let allowed = format!("one that the span has at most {WINDOWS_MAX} windows of");
        Err(BadParameter { detail, ..BadParameter::new("granularity", granularity.name(), allowed) })
    }

    /// Which rows count, of what the scope lets be seen.
    pub fn filter(&self, scope: Option<Arc<Scope>>) -> Filter {
        let region = self.region.as_deref().map(|region| if region == names::REGION_NONE { "" } else { region });
        Filter { region: region.map(str::to_owned), user_agent: self.user_agent.map(|(_, agent)| agent), scope }
    }
}

/// The parameters of a URL's query, in their order.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, BadParameter> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = |text: &str| decoded(&text.replace('+', " "));
        let known = read(name).ok_or_else(|| BadParameter::not_encoded(name, name))?;
        let value = read(value).ok_or_else(|| BadParameter::not_encoded(&known, value))?;
        Ok((known, value))
    });
    pairs.collect()
}

/// What is percent-encoded in a text. None: a % that begins nothing, or what is no UTF-8; nobody means the letters as they stand.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(if byte == b'%' { (digit()? << 4 | digit()?) as u8 } else { byte });
    }
    String::from_utf8(bytes).ok()
}

/// The id of a path, if it may be asked for.
pub fn check_id(name: &str, id: &str) -> Result<(), BadParameter> {
    let characters = id.chars().count();
    if (1..=ID_CHARACTERS_MAX).contains(&characters) {
        return Ok(());
    }
    let allowed = format!("1 to {ID_CHARACTERS_MAX} characters; it has {characters}");
    Err(BadParameter::new(name, id, allowed))
}

fn one_of<T>(value: &str, all: impl IntoIterator<Item = T>, name: impl Fn(&T) -> &str) -> Result<T, String> {
    let mut names = Vec::new();
    for one in all {
        if name(&one) == value {
            return Ok(one);
        }
        names.push(name(&one).to_owned());
    }
    Err(format!("one of {}", names.join(", ")))
}

fn whole(value: &str, max: usize) -> Result<usize, String> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { value.parse().ok() } else { None };
    number.filter(|number| (1..=max).contains(number)).ok_or_else(|| format!("a whole number from 1 to {max}"))
}

fn region(value: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=REGION_BYTES_MAX).contains(&value.len()) && value.bytes().all(good) {
        return Ok(value.to_owned());
    }
    Err(format!(
        "1 to {REGION_BYTES_MAX} letters, digits, dashes and underscores, such as DE, a name of --regions, other, or {} for clicks \
         that name none",
        names::REGION_NONE
    ))
}

pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Csv => "csv",
    }
}

pub fn rank_name(by: RankBy) -> &'static str {
    match by {
        RankBy::Net => "net",
        RankBy::Gross => "gross",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PANE_MS;
    use crate::window::{DAY_MS, HOUR_MS, MINUTE_MS};

    const NOW_MS: i64 = 1_712_912_405_678;
    const COUNT: &[Parameter] = crate::http::routes::TOTALS.parameters;
    const GROUPS: &[GroupBy] = crate::http::routes::TOTALS.groups;

    /// Parameters as they stand in a URL.
    type Given = &'static [(&'static str, &'static str)];

    fn read(given: Given) -> Result<Asked, BadParameter> {
        let owned: Vec<_> = given.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Asked::read(&owned, COUNT, GROUPS)
    }

    fn span(given: Given) -> Result<(i64, i64), BadParameter> {
        read(given)?.span(NOW_MS).map(|span| (span.start_ms, span.end_ms))
    }

    /// Each pair gives this span, widened to panes, with a granularity to its windows.
    #[test]
    fn spans() {
        let cases: &[(Given, i64, i64)] = &[
            (&[], 1_712_908_800_000, 1_712_912_410_000),
            (&[("from", "1712908800")], 1_712_908_800_000, 1_712_912_410_000),
            (&[("to", "1712908800")], 1_712_905_200_000, 1_712_908_800_000),
            (&[("from", "1712908800"), ("to", "1712908801")], 1_712_908_800_000, 1_712_908_810_000),
            (&[("to", "1712908809999"), ("from", "1712908809998")], 1_712_908_800_000, 1_712_908_810_000),
            (&[("from", "1712908800000"), ("to", "1712908810001")], 1_712_908_800_000, 1_712_908_820_000),
            (&[("from", "0"), ("to", "1")], 0, PANE_MS),
            (&[("to", "5")], 0, PANE_MS),
            (&[("from", "61"), ("to", "62"), ("granularity", "1m")], MINUTE_MS, 2 * MINUTE_MS),
            (&[("from", "299"), ("to", "301"), ("granularity", "5m")], 0, 10 * MINUTE_MS),
            (&[("from", "3600"), ("to", "3601"), ("granularity", "1h")], HOUR_MS, 2 * HOUR_MS),
            (&[("from", "86399"), ("to", "86400"), ("granularity", "1d")], 0, DAY_MS),
            (&[("from", "60"), ("to", "691260"), ("granularity", "1m")], MINUTE_MS, 11_521 * MINUTE_MS),
        ];
        for &(given, from_ms, to_ms) in cases {
            assert_eq!(span(given), Ok((from_ms, to_ms)), "{given:?}");
        }
    }

    #[test]
    fn refused_spans() {
        let cases: &[(Given, &str, &str)] = &[
            (&[("from", "10"), ("to", "10")], "to", "after from, which is 1970-01-01T00:00:10Z"),
            (&[("to", "0")], "to", "after from"),
            (&[("from", "1712912405678")], "from", "before now"),
            (&[("from", "60"), ("to", "691261"), ("granularity", "1m")], "granularity", "at most 11520"),
            (&[("from", "0"), ("granularity", "1h")], "granularity", "at most 11520"),
        ];
        for &(given, parameter, allowed) in cases {
            let refused = span(given).expect_err(&format!("{given:?}"));
            assert_eq!(refused.parameter, parameter, "{given:?}");
            assert!(refused.allowed.contains(allowed), "{given:?}: {refused:?}");
        }
    }

    #[test]
    fn what_is_said_is_read() {
        let asked = read(&[
            ("granularity", "1h"),
            ("filter_region", "US-CA"),
            ("filter_user_agent", "ie"),
            ("group_by", "ad"),
            ("limit", "10000"),
            ("cursor", "ab"),
            ("format", "csv"),
        ]);
        let expected = Asked {
            granularity: Some(Granularity::Hour),
            region: Some("US-CA".to_owned()),
            user_agent: Some(("ie", UserAgent::Agent(6))),
            group_by: Some(GroupBy::Ad),
            limit: LIMIT_MAX,
            cursor: Some("ab".to_owned()),
            format: Format::Csv,
            ..Asked::default()
        };
        assert_eq!(asked, Ok(expected));
        let none = read(&[("filter_region", "unknown")]).map(|asked| asked.filter(None).region);
        assert_eq!(none, Ok(Some(String::new())), "clicks that name no region");
        let shown = read(&[(
            "granularity",
            "no such thing, and longer than anybody would want to see it come back to them in an answer, ever again",
        )]);
        assert_eq!(shown.map_err(|bad| bad.given.len()), Err(GIVEN_CHARACTERS_MAX));
    }

    #[test]
    fn what_is_no_encoding_is_not_taken_as_it_stands() {
        for (text, expected) in [
            ("", Some("")),
            ("a%25zz", Some("a%zz")),
            ("%C3%bc\u{fc}", Some("\u{fc}\u{fc}")),
            ("%00+%2B", Some("\0++")),
            ("%zz", None),
            ("%", None),
            ("a%2", None),
            ("%+5", None),
            ("%2\u{fc}", None),
            ("%ff", None),
            ("%c3x", None),
        ] {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
        let read = pairs("a=1&&b=x+y%26&c&=&d=e=f").expect("encoded");
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("a", "1"), ("b", "x y&"), ("c", ""), ("", ""), ("d", "e=f")]);
    }

    #[test]
    fn an_id_is_1_to_64_characters() {
        for (id, fits) in [("", false), ("a", true), (&"é".repeat(64), true), (&"a".repeat(65), false)] {
            assert_eq!(check_id("ad_id", id).is_ok(), fits, "{id:?}");
        }
    }
}
