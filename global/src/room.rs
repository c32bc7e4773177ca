//! How large the store is, how fast it grows, and when its disk is full: said long before.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Growth is measured over this; samples are kept apart by a sixtieth of it.
const OVER: Duration = Duration::from_secs(3_600);
/// Below so much of the disk, or so many hours, somebody is told.
const FREE_RATIO_MIN: f64 = 0.1;
const HOURS_MIN: f64 = 48.0;
/// Growth over a shorter time means nothing.
const LEAST: Duration = Duration::from_secs(600);
/// A smaller store has hardly begun: what fills the disk is something else.
const STORE_BYTES_LEAST: u64 = 16 << 20;

/// What the owner of a store can do about its size: of an edge's own, and of `tollgate global`'s.
const WAY_OUT: &str = "a larger disk, or a shorter --keep-panes, --keep-minutes";

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Room {
    pub store_bytes: u64,
    pub free_bytes: u64,
    pub disk_bytes: u64,
    /// At the growth of the last hour; None where it does not grow, or is not known yet.
    pub hours_to_full: Option<f64>,
}

impl Room {
    /// What is short, for a person, and what can be done.
    pub fn short(&self) -> Option<String> {
        // Somebody else fills that disk.
        if self.store_bytes < STORE_BYTES_LEAST {
            return None;
        }
        let free = self.free_bytes as f64 / (self.disk_bytes.max(1)) as f64;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let (store, left) = (gib(self.store_bytes), gib(self.free_bytes));
        match self.hours_to_full {
            Some(hours) if hours < HOURS_MIN => Some(format!(
                "the store has {store:.1} GiB, its disk {left:.1} GiB free: full in {hours:.0} h at the growth of the last hour; \
                 {WAY_OUT}"
            )),
            _ if free < FREE_RATIO_MIN && self.disk_bytes > 0 => Some(format!(
                "the store has {store:.1} GiB, its disk {left:.1} GiB free, {:.0} %; {WAY_OUT}",
                free * 100.0
            )),
            _ => None,
        }
    }
}

/// Looks at the store's file and its disk now and then.
pub struct RoomWatch {
    path: PathBuf,
    samples: VecDeque<(Instant, u64)>,
}

impl RoomWatch {
    pub fn new(path: &Path) -> RoomWatch {
        RoomWatch { path: path.to_owned(), samples: VecDeque::new() }
    }

    pub fn look(&mut self, now: Instant) -> Room {
        let store_bytes = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let disk = rustix::fs::statvfs(&self.path).ok();
        let free_bytes = disk.as_ref().map_or(0, |disk| disk.f_bavail * disk.f_frsize);
        let disk_bytes = disk.as_ref().map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) > OVER;
        while self.samples.len() > 1 && self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) > OVER / 60) {
            self.samples.push_back((now, store_bytes));
        }
        let hours_to_full = self.samples.front().and_then(|(at, bytes)| {
            let (over, grown) = (now.duration_since(*at), store_bytes.saturating_sub(*bytes));
            let a_second = grown as f64 / over.as_secs_f64();
            (over >= LEAST && grown > 0).then(|| free_bytes as f64 / a_second / 3_600.0)
        });
        Room { store_bytes, free_bytes, disk_bytes, hours_to_full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_nearly_full_is_told_of_before() {
        let room = Room { store_bytes: 1 << 30, free_bytes: 50 << 30, disk_bytes: 100 << 30, hours_to_full: None };
        let short = |room: Room| room.short();
        assert_eq!(short(room), None);
        assert_eq!(short(Room { hours_to_full: Some(49.0), ..room }), None);
        let soon = short(Room { hours_to_full: Some(12.0), ..room }).expect("short");
        assert!(soon.contains("full in 12 h") && soon.ends_with("--keep-minutes"), "{soon}");
        let low = Room { free_bytes: 5 << 30, ..room };
        let said = short(low).expect("short");
        assert!(said.contains("5 %") && said.ends_with("--keep-minutes"), "{said}");
        // A disk that others fill is not the store's to complain of.
        assert_eq!(short(Room { store_bytes: 2 << 20, ..low }), None);
    }

    #[test]
    fn growth_is_measured_over_time() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("store");
        std::fs::write(&path, [0; 1000]).expect("written");
        let (mut watch, start) = (RoomWatch::new(&path), Instant::now());
        assert_eq!(watch.look(start).hours_to_full, None);
        std::fs::write(&path, [0; 4600]).expect("written");
        assert_eq!(watch.look(start + Duration::from_secs(300)).hours_to_full, None, "too short to tell");
        let room = watch.look(start + OVER);
        assert_eq!(room.store_bytes, 4600);
        let hours = room.hours_to_full.expect("it grew by a byte a second");
        assert!((hours * 3_600.0 / room.free_bytes as f64 - 1.0).abs() < 1e-6, "{hours}");
        assert_eq!(watch.look(start + 3 * OVER).hours_to_full, None, "it stands still");
    }
}
