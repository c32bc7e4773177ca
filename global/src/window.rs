//! Pure. Windows of event time: how long they are, what is stored of them, and how settled they are.

use crate::key::PANE_MS;

const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Event time in [start, end).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
}

impl Window {
    /// The window of this length that a moment lies in; windows begin at multiples of their length since 1970, in UTC.
    pub fn of(time_ms: i64, length_ms: i64) -> Window {
        let start_ms = floor(time_ms, length_ms);
        Window { start_ms, end_ms: start_ms.saturating_add(length_ms) }
    }
}

/// The last multiple of `length_ms` that is not after `time_ms`.
pub fn floor(time_ms: i64, length_ms: i64) -> i64 {
    time_ms.div_euclid(length_ms).saturating_mul(length_ms)
}

/// The first multiple of `length_ms` that is not before `time_ms`.
pub fn ceil(time_ms: i64, length_ms: i64) -> i64 {
    floor(time_ms.saturating_add(length_ms - 1), length_ms)
}

/// The tumbling windows that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granularity {
    Minute,
    FiveMinutes,
    Hour,
    Day,
}

impl Granularity {
    pub const ALL: [Granularity; 4] =
        [Granularity::Minute, Granularity::FiveMinutes, Granularity::Hour, Granularity::Day];

    /// As it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Granularity::Minute => "1m",
            Granularity::FiveMinutes => "5m",
            Granularity::Hour => "1h",
            Granularity::Day => "1d",
        }
    }

    pub fn parse(text: &str) -> Option<Granularity> {
        Granularity::ALL.into_iter().find(|granularity| granularity.name() == text)
    }

    pub fn ms(self) -> i64 {
        match self {
            Granularity::Minute => MINUTE_MS,
            Granularity::FiveMinutes => 5 * MINUTE_MS,
            Granularity::Hour => HOUR_MS,
            Granularity::Day => DAY_MS,
        }
    }
}

/// What rows are kept of: panes for a while, minutes longer, hours for years. All else is summed from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    Pane,
    Minute,
    Hour,
}

impl Grain {
    pub const ALL: [Grain; 3] = [Grain::Pane, Grain::Minute, Grain::Hour];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Grain::Pane => "pane",
            Grain::Minute => "minute",
            Grain::Hour => "hour",
        }
    }

    pub fn ms(self) -> i64 {
        match self {
            Grain::Pane => PANE_MS,
            Grain::Minute => MINUTE_MS,
            Grain::Hour => HOUR_MS,
        }
    }

    /// Rows lie by bucket, then ad, then time: a bucket is dropped from the front of its table, and one ad's rows of a bucket are
    /// side by side.
    pub fn bucket_ms(self) -> i64 {
        match self {
            Grain::Pane => HOUR_MS,
            Grain::Minute => DAY_MS,
            Grain::Hour => 32 * DAY_MS,
        }
    }
}

/// How settled a window is. Counts are exact in every state: what can still happen to them differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowState {
    /// Clicks are expected to come.
    Open,
    /// The watermark has passed its end: no more are expected, and what comes all the same is a new version.
    Closed,
    /// Every edge's horizon has passed its end: no edge can take a click of it any more.
    Final,
}

impl WindowState {
    pub fn name(self) -> &'static str {
        match self {
            WindowState::Open => "open",
            WindowState::Closed => "closed",
            WindowState::Final => "final",
        }
    }
}

/// Up to where event time is settled. Neither ever falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Panes that begin before this are closed. A multiple of [`PANE_MS`], or [`i64::MIN`].
    pub closed_before_ms: i64,
    /// Panes that begin before this are final; at most `closed_before_ms`.
    pub final_before_ms: i64,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { closed_before_ms: i64::MIN, final_before_ms: i64::MIN }
    }
}

impl Marks {
    /// A span that ends within a minute is as settled as that minute: corrections are kept by the minute, so of a part of one it could
    /// not be said that it changed.
    pub fn state(&self, window: Window) -> WindowState {
        let end_ms = ceil(window.end_ms, MINUTE_MS);
        if end_ms <= self.final_before_ms {
            WindowState::Final
        } else if end_ms <= self.closed_before_ms {
            WindowState::Closed
        } else {
            WindowState::Open
        }
    }

    /// Raised to what the edges claim now.
    #[must_use]
    pub fn raised(self, closed_by_ms: Option<i64>, final_by_ms: Option<i64>) -> Marks {
        let up_to = |mark: i64, claim: Option<i64>| claim.map_or(mark, |at| mark.max(floor(at, PANE_MS)));
        let closed_before_ms = up_to(self.closed_before_ms, closed_by_ms);
        let final_before_ms = up_to(self.final_before_ms, final_by_ms).min(closed_before_ms);
        Marks { closed_before_ms, final_before_ms }
    }
}

/// How long rows are kept, from the end of their window to the newest mark of closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub panes_ms: i64,
    /// Also of the history of corrections.
    pub minutes_ms: i64,
    pub hours_ms: i64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { panes_ms: 2 * DAY_MS, minutes_ms: 90 * DAY_MS, hours_ms: 731 * DAY_MS }
    }
}

impl Retention {
    pub fn of(&self, grain: Grain) -> i64 {
        match grain {
            Grain::Pane => self.panes_ms,
            Grain::Minute => self.minutes_ms,
            Grain::Hour => self.hours_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_at_multiples_of_their_length() {
        assert_eq!(Window::of(61_000, MINUTE_MS), Window { start_ms: 60_000, end_ms: 120_000 });
        assert_eq!(Window::of(-1, MINUTE_MS), Window { start_ms: -60_000, end_ms: 0 });
        assert_eq!((ceil(60_000, MINUTE_MS), ceil(60_001, MINUTE_MS)), (60_000, 120_000));
        for granularity in Granularity::ALL {
            assert_eq!(Granularity::parse(granularity.name()), Some(granularity));
        }
        assert_eq!(Granularity::parse("2m"), None);
        for grain in Grain::ALL {
            assert_eq!(grain.bucket_ms() % grain.ms(), 0);
        }
    }

    #[test]
    fn states_come_in_order_and_marks_never_fall() {
        let window = Window::of(0, MINUTE_MS);
        let marks = Marks::default();
        assert_eq!(marks.state(window), WindowState::Open);
        let marks = marks.raised(Some(59_999), None);
        assert_eq!((marks.closed_before_ms, marks.state(window)), (50_000, WindowState::Open));
        let marks = marks.raised(Some(60_000), Some(70_000));
        assert_eq!((marks.final_before_ms, marks.state(window)), (60_000, WindowState::Final), "final is closed too");
        let part = |end_ms| Window { start_ms: 0, end_ms };
        assert_eq!(marks.raised(Some(110_000), Some(110_000)).state(part(70_000)), WindowState::Open, "its minute is");
        assert_eq!(marks.raised(Some(120_000), Some(70_000)).state(part(70_000)), WindowState::Closed);
        assert_eq!(marks.state(part(20_000)), WindowState::Final);
        assert_eq!(marks.raised(Some(0), Some(0)), marks);
        assert_eq!(marks.raised(None, None), marks);
    }
}
