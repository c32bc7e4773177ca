//! Drives. What goes wrong in a world, and when it ends.

use tollgate::event::Event;

use crate::options::Weights;
use crate::server::In;
use crate::world::{Happening, MS, SECOND, World};

/// Mean time between two faults while almost nobody sends.
const FAULT_AT_REST_NS: u64 = 600 * SECOND;
/// Then each client acts so many times more, within seconds.
const HURRIES: u64 = 6;

/// A fault that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    DiskFull,
    SinkAway,
    /// The wall clock was wrong.
    Clock,
}

/// The process is killed while it next does this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambush {
    Write,
    Job,
    Commit,
}

/// What the disk does not do, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Write,
    Segment,
    FirstFrame,
    Deletion,
    Mirror,
}

impl World {
    /// Whether the disk refuses this now.
    pub fn refuses(&mut self, what: Refused) -> bool {
        let refuses = self.refused == Some(what);
        if refuses {
            self.refused = None;
        }
        refuses
    }

    /// While nobody runs there is nothing to refuse but to a start.
    fn disk_refuses(&mut self) {
        let what = match self.rng.below(10) {
            0..4 => Refused::Write,
            4..6 => Refused::Segment,
            6..8 => Refused::FirstFrame,
            8 => Refused::Deletion,
            _ if self.options.remote => Refused::Mirror,
            _ => Refused::Write,
        };
        if self.server.is_some() || matches!(what, Refused::Segment | Refused::FirstFrame) {
            self.refused = Some(what);
        }
        if what == Refused::FirstFrame || what == Refused::Segment && self.rng.percent(50) {
            self.kill();
        }
    }

    /// Something begins that takes so long: whether the process is killed meanwhile.
    pub fn spring(&mut self, ambush: Ambush, lasts_ns: u64) {
        if self.ambush == Some(ambush) && !self.draining {
            self.ambush = None;
            let (life, delay_ns) = (self.lives, self.rng.below(lasts_ns + 1));
            self.after(delay_ns, Happening::Kill { life });
        }
    }

    pub fn next_fault(&mut self) {
        if self.draining {
            return;
        }
        let every_ns = self.options.fault_every_ns;
        let mut next_ns = self.now_ns + self.rng.below(2 * every_ns);
        if self.rests() {
            next_ns = self.now_ns + self.rng.below(2 * FAULT_AT_REST_NS);
            next_ns = next_ns.min(self.resting_until_ns + self.rng.below(2 * every_ns));
            self.hurry_clients();
        }
        self.at(next_ns, Happening::NextFault);
        let Weights { kill, stop, fail_write, disk_full, stall, sink_away, clock, resets } =
            self.options.weights.clone();
        let mut at = self.rng.below(self.options.weights.sum());
        let mut is = |weight: u64| {
            let hit = at < weight;
            at = if hit { u64::MAX } else { at - weight };
            hit
        };
        match () {
            () if is(kill) => match self.rng.below(10) {
                0..=1 => self.kill(),
                2..=7 => self.ambush = Some(Ambush::Write),
                8 => self.ambush = Some(Ambush::Job),
                _ => self.ambush = Some(Ambush::Commit),
            },
            () if is(stop) => self.ask_to_stop(),
            () if is(fail_write) => self.disk_refuses(),
            () if is(disk_full) => self.fill_disk(),
            () if is(stall) => self.stall(),
            () if is(sink_away) => self.lose_sink(),
            () if is(clock) => self.move_clock(),
            () if is(resets) => self.reset_connections(),
            () => {}
        }
    }

    /// A fault that nobody meets says nothing: while one lasts, clients are busy.
    fn hurry_clients(&mut self) {
        for client in 0..self.clients.len() {
            for _ in 0..HURRIES {
                let delay_ns = self.rng.below(3 * SECOND);
                self.after(delay_ns, Happening::ClientHurries(client));
            }
        }
    }

    /// The disk is slow; or one core gets no CPU, and the others go on.
    fn stall(&mut self) {
        let until_ns = self.now_ns + self.rng.below(3_000 * MS);
        if self.rng.percent(50) {
            self.stalled_until_ns = until_ns;
        } else if let Some(server) = &mut self.server {
            let core = self.rng.index(server.cores.len());
            server.cores[core].paused_until_ns = until_ns;
            self.note("a core is paused", &[core as u64, until_ns]);
            self.trace.cover("a core is paused");
        }
    }

    fn fill_disk(&mut self) {
        // Short before it is full, so that what is freed early is met with clicks that go on.
        if self.options.short_log {
            let segments_over = 1 + self.rng.below(3) as u32;
            self.note("log short", &[u64::from(segments_over)]);
            return self.tell_room(true, segments_over);
        }
        self.set_room(false);
        let lasts = self.rng.below(2_000 * MS);
        self.after(lasts, Happening::Ends(Fault::DiskFull));
    }

    fn set_room(&mut self, open: bool) {
        self.room = open;
        self.note("room", &[u64::from(open)]);
        self.tell_room(open, 0);
    }

    /// There is none while a next segment lacks it.
    pub fn tell_room(&mut self, open: bool, segments_over: u32) {
        let open = open && !self.server.as_ref().is_some_and(|server| server.keeper.lacks_room());
        for core in 0..self.server.as_ref().map_or(0, |server| server.cores.len()) {
            self.tell(core, In::Event(Event::Room { open, segments_over, frees_seen: u64::MAX }));
        }
    }

    fn lose_sink(&mut self) {
        self.note("sink away", &[]);
        let lasts = self.rng.below(6_000 * MS);
        self.keep_sink_away(lasts);
    }

    /// Hours in which almost nobody sends; and, every other time, nothing can be exported.
    pub fn rest(&mut self) {
        let hours_ns = self.options.hours * 3_600 * SECOND;
        (self.resting_from_ns, self.resting_until_ns) = (self.now_ns, self.now_ns + hours_ns);
        let away = self.rng.percent(50);
        self.note("rest", &[u64::from(away)]);
        self.trace.cover(if away { "hours without a sink" } else { "quiet hours" });
        if away {
            self.keep_sink_away(hours_ns);
        }
    }

    fn keep_sink_away(&mut self, lasts_ns: u64) {
        self.sink_away = true;
        self.sink_away_until_ns = self.sink_away_until_ns.max(self.now_ns + lasts_ns);
        self.after(lasts_ns, Happening::Ends(Fault::SinkAway));
    }

    pub fn rests(&self) -> bool {
        self.now_ns < self.resting_until_ns
    }

    fn move_clock(&mut self) {
        let ahead = self.rng.percent(50);
        let far_ms = match self.rng.below(4) {
            0 => self.rng.below(900),
            1 => self.rng.below(8_000),
            2 => self.rng.below(3_600_000),
            // Up to five days.
            _ => {
                let within_a_day = self.rng.below(86_400_000);
                within_a_day * (1 + within_a_day % 5)
            }
        } as i64;
        let by_ms = if ahead { far_ms } else { -far_ms };
        self.note("clock", &[by_ms as u64]);
        self.set_clock_right();
        if far_ms >= 8_000 && self.rests() && self.rng.percent(40) {
            return self.start_under_a_wrong_clock(by_ms);
        }
        self.wall_offset_ms += by_ms;
        if far_ms < 8_000 && self.rng.percent(30) {
            // It stays so; a process that was running sheds until it is started again, or believes it.
            if self.rng.percent(50) {
                self.trace.cover("restart under another clock");
                self.kill();
            } else if let Some(server) = &mut self.server {
                server.clock_moved_ms += by_ms;
            }
            return;
        }
        self.leap_ms = by_ms;
        let lasts = self.rng.below(2_500 * MS);
        self.after(lasts, Happening::Ends(Fault::Clock));
    }

    /// A process that begins under a wrong clock believes it, or waits. Set right, one that was ahead has to catch up with what was written
    /// under it: that, too, is over before the rest is.
    fn start_under_a_wrong_clock(&mut self, by_ms: i64) {
        let third_ms = (self.resting_until_ns - self.now_ns) / (3 * MS);
        self.leap_ms = by_ms.min(third_ms as i64);
        self.leap_meets_starts = true;
        self.wall_offset_ms += self.leap_ms;
        let lasts = self.rng.below(third_ms) * MS;
        self.after(lasts, Happening::Ends(Fault::Clock));
        self.kill();
    }

    /// Ends a leap.
    pub fn set_clock_right(&mut self) {
        self.wall_offset_ms -= std::mem::take(&mut self.leap_ms);
        self.leap_meets_starts = false;
    }

    fn reset_connections(&mut self) {
        for client in 0..self.clients.len() {
            for number in self.clients[client].conns.clone() {
                if self.rng.percent(60) {
                    self.leave(number, true);
                }
            }
        }
    }

    pub fn fault_ends(&mut self, fault: Fault) {
        match fault {
            Fault::DiskFull if !self.draining => self.set_room(true),
            Fault::SinkAway => self.sink_away = self.now_ns < self.sink_away_until_ns && !self.draining,
            Fault::Clock => self.set_clock_right(),
            Fault::DiskFull => {}
        }
    }

    /// No more faults, no new clicks: what is open must come to its end.
    pub fn drain(&mut self) {
        self.note("drain", &[]);
        self.draining = true;
        self.sink_away = false;
        self.refused = None;
        if let Some(server) = &mut self.server {
            server.cores.iter_mut().for_each(|core| core.paused_until_ns = 0);
        }
        self.set_room(true);
        self.set_clock_right();
    }

    /// Everything has its answer: the process is stopped for good.
    pub fn stop_when_answered(&mut self) {
        let serves = self.server.as_ref().is_some_and(|server| !server.stopping);
        if self.draining && serves && !self.clones.are_two() && self.all_answered() {
            self.last_stop = true;
            self.ask_to_stop();
        }
    }
}
