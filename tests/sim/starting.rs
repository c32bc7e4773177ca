//! Drives. From the simulated disk to a serving process, as `start.rs` does it in production, with kills at each stage; but there the segments of
//! all cores are made before a first frame is written.

use memmap2::{Advice, MmapMut};
use std::time::Duration;
use tollgate::click::ClickKey;
use tollgate::config::{Config, FRAME_BUFFERS};
use tollgate::core::Core;
use tollgate::core::home::{Home, Seat};
use tollgate::core::idle::IdleLog;
use tollgate::core::incarnation::{self, Incarnation, LogEnd};
use tollgate::cut::Position;
use tollgate::event::FrameBuffer;
use tollgate::export::{Behind, Exporter};
use tollgate::wal::prepare::prepare_segment;
use tollgate::wal::record::{Record, UUID_TEXT_BYTES};
use tollgate::wal::recover::{RecoveredLog, Tail, recover};
use tollgate::wal::segments::{DataDir, LogDir};
use tollgate::wal::writer::buffer_bytes;
use tollgate::{dedup, export, preagg};

use crate::disk::Left;
use crate::exporting::Exporting;
use crate::faults::Refused;
use crate::mesh::Mesh;
use crate::oracle::Rows;
use crate::server::{CoreHost, Server};
use crate::world::{Happening, MS, World};

impl World {
    pub fn start(&mut self) {
        if self.server.is_some() || self.finished {
            return;
        }
        self.lives = self.clones.next_life();
        if !self.leap_meets_starts {
            self.set_clock_right();
        } else {
            let ahead = self.leap_ms > 0;
            self.trace.cover(if ahead { "start under a clock ahead" } else { "start under a clock behind" });
        }
        self.note("start", &[u64::from(self.lives)]);
        let window_ms = self.rng.pick(&self.options.windows_ms);
        let cores = &self.options.cores;
        let drawn =
            if self.options.restarts > 0 { self.lives as usize % cores.len() } else { self.rng.index(cores.len()) };
        let config = self.options.config(cores[drawn], window_ms);
        // Of the embedded sink, a start sees what is in and what is not.
        if !self.options.remote {
            self.settle_doubt();
        }
        let confirmed = self.remembered();
        self.damage_before_start();
        let data_dir = self.open();
        let now = self.now();
        let mut tables = self.tables(&config);
        self.late_writes_of_idle_logs(config.cores());
        let recovered = self.recover(&confirmed, &mut tables);
        if self.killed_while("recovering killed", 12) || self.stopped_in_start("after the logs are recovered") {
            return;
        }
        let built_ms = recovered.iter().map(|log| log.built_ms).max().unwrap_or(i64::MIN);
        let behind_ms = built_ms.saturating_sub(now.wall_ms);
        if behind_ms > 0 {
            self.trace.cover("start waits for the clock");
            // It looks now and then whether the clock was set right, and is not late for the end of a rest.
            let left_ms = self.resting_until_ns.saturating_sub(self.now_ns) / MS;
            let wait_ms = (behind_ms as u64).min((left_ms / 4).clamp(20_000, 600_000));
            return self.after(wait_ms * MS, Happening::Start);
        }
        for table in &mut tables {
            incarnation::keep_horizon(table, &config, &recovered, now);
            self.holds_what_is_final(table);
            if self.options.crowded {
                self.crowd(table, &config);
            }
        }
        if let Some(server) = self.begin(config, data_dir, confirmed, tables, recovered) {
            self.cores = server.cores.len() as u16;
            self.server = Some(Box::new(server));
            self.late_writes_are_due();
            self.tell_room(self.room, 0);
            self.pump();
        }
    }

    /// Up to where a start knows the logs to be exported, without asking anybody.
    pub fn remembered(&self) -> Vec<Position> {
        let known = if self.options.remote { self.disk.mirrored() } else { self.sink.checkpoint.clone() };
        known.as_ref().map_or(Vec::new(), export::positions)
    }

    /// The memory of ids: one secret for all cores, from which a key's home follows.
    fn tables(&mut self, config: &Config) -> Vec<dedup::Table> {
        let (secret, now) = (self.rng.bytes16(), self.now());
        let table = |_| {
            let memory = MmapMut::map_anon(config.dedup_bytes_a_core() as usize).expect("memory");
            // A wish, as in production: thousands of page faults fewer.
            let _ = memory.advise(Advice::HugePage);
            dedup::Table::new(memory, secret, &config.dedup, i64::MIN, now.wall_ms)
        };
        (0..config.cores()).map(table).collect()
    }

    /// Each core's log and its first frame, then all that serves. `None`: killed on the way.
    fn begin(
        &mut self,
        config: Config,
        data_dir: DataDir,
        confirmed: Vec<Position>,
        tables: Vec<dedup::Table>,
        recovered: Vec<RecoveredLog>,
    ) -> Option<Server> {
        self.cover_logs(config.cores(), &recovered);
        let mut nonces: Vec<_> = recovered.iter().flat_map(|log| log.nonces.iter().copied()).collect();
        let nonce = self.rng.bytes16();
        let (of_cores, idle) = incarnation::share_logs(config.cores(), recovered);
        let mut logs = Vec::new();
        for (core, found) in (0..).zip(of_cores) {
            logs.push(match found {
                Some(log) => (LogEnd::of(&log), log.dir),
                None => {
                    if self.stopped_in_start("before a log's directory is made") {
                        return None;
                    }
                    let log = data_dir.create_log(core, self.rng.bytes16()).expect("the simulated disk takes it");
                    if self.killed_while("a new log's directory is empty", 6)
                        || self.stopped_in_start("after a log's directory is made")
                    {
                        return None;
                    }
                    (LogEnd::new(log.log_id), log)
                }
            });
        }
        let (mut homes, mut dirs, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for ((own, (end, log)), table) in (0..).zip(logs).zip(tables) {
            if own > 0 && self.killed_while("killed between two first frames", 4) {
                return None;
            }
            let seat = Seat { own, cores: config.cores() };
            let (home, start) = self.begin_log(&config, seat, nonce, table, end, &log)?;
            homes.push(home);
            starts.push(start);
            dirs.push(log);
        }
        starts.extend(idle.iter().map(|log| incarnation::idle_log(log, Behind::default())));
        nonces.push(nonce);
        let clicks = starts.iter().map(|start| start.totals.clicks).sum();
        let exporter = Exporter::new(export::Start {
            edge_id: config.export.edge_id.clone(),
            data_dir: self.data_dir,
            nonce,
            nonces,
            mirror: self.mirror(),
            logs: starts,
        });
        let idle_dirs: Vec<LogDir> = idle.iter().map(|log| log.dir.clone()).collect();
        let all: Vec<LogDir> = dirs.iter().chain(&idle_dirs).cloned().collect();
        let exporting = Exporting::new(exporter, &all, config.cores(), confirmed, self.rng.next());
        let mesh = Mesh::new(config.cores(), config.chunk_credits());
        let idle_log = |log: RecoveredLog| IdleLog::new(log.start.segments, log.base_lsn, log.start.totals.clicks);
        // The first core clears the idle logs away.
        let mut idle_logs: Vec<IdleLog> = idle.into_iter().map(idle_log).collect();
        let mut cores = Vec::new();
        for (home, log) in homes.into_iter().zip(dirs) {
            let core =
                Core::new(config.clone(), home, std::mem::take(&mut idle_logs), crate::options::SLOTS, self.now());
            cores.push(CoreHost::new(core, log));
        }
        Some(Server::new(cores, idle_dirs, mesh, exporting, (config.log.segment_bytes, clicks), data_dir))
    }

    /// A log goes on: its next segment, and the first frame in it.
    fn begin_log(
        &mut self,
        config: &Config,
        seat: Seat,
        nonce: [u8; 16],
        table: dedup::Table,
        end: LogEnd,
        log: &LogDir,
    ) -> Option<(Home, export::LogStart)> {
        let segment = end.start.segment;
        if self.killed_while("first segment cut off", 3) {
            self.disk.prepare_in_part(log, segment, config.log.segment_bytes, &mut self.rng);
            return None;
        }
        if self.refuses(Refused::Segment) {
            self.trace.cover("a start ends at a segment that cannot be made");
            self.disk.prepare_in_part(log, segment, config.log.segment_bytes, &mut self.rng);
            self.start_again();
            return None;
        }
        if self.stopped_in_preparation(log, segment, config.log.segment_bytes) {
            self.start_again();
            return None;
        }
        prepare_segment(&log.path, segment, config.log.segment_bytes, Duration::ZERO)
            .expect("the simulated disk takes it");
        let buffers = frame_buffers(config);
        let (begun, buffer, write) = Incarnation::begin(config, seat, nonce, table, end, buffers, self.now());
        let from = write.buffer_offset as usize;
        let bytes = &buffer.memory[from..from + write.length as usize];
        self.try_power_cuts(log, &write, bytes);
        if self.killed_while("first frame cut off", 6) {
            if self.disk.tear(log, &write, bytes, &mut self.rng) == Left::Part {
                self.trace.cover("first frame torn");
            }
            return None;
        }
        if self.refuses(Refused::FirstFrame) {
            self.trace.cover("a start ends at a first frame that cannot be written");
            self.disk.tear(log, &write, bytes, &mut self.rng);
            self.start_again();
            return None;
        }
        if self.stopped_in_write(log, &write, bytes) {
            self.start_again();
            return None;
        }
        self.disk.write(log, &write, bytes);
        let partials = preagg::Table::new(self.options.rows_max, self.options.users_max, self.rng.next());
        Some(begun.begun(config, buffer, partials))
    }

    fn cover_logs(&mut self, cores: u16, recovered: &[RecoveredLog]) {
        let (was, is) = (u32::from(self.cores), u32::from(cores));
        let mut cover = |met: bool, what| {
            if met {
                self.trace.cover(what);
            }
        };
        cover(was > 0 && was != is, "another number of cores");
        cover(recovered.iter().any(|log| (is..was).contains(&log.dir.core)), "a log becomes idle");
        cover(was > 0 && recovered.iter().any(|log| (was..is).contains(&log.dir.core)), "an idle log is gone on with");
    }

    fn open(&self) -> DataDir {
        match DataDir::open(self.disk.dir.path()) {
            Ok(data_dir) => data_dir,
            Err(error) => panic!("the data directory: {error}"),
        }
    }

    /// What production's recovery makes of the disk. No crash may make it halt.
    fn recover(&mut self, confirmed: &[Position], tables: &mut [dedup::Table]) -> Vec<RecoveredLog> {
        let mut clicks = 0;
        let recovered = recover(self.disk.dir.path(), confirmed, &mut |_| {}, &mut |_: &LogDir, frame| {
            clicks += incarnation::restore(tables, frame);
        });
        let logs = match recovered {
            Ok(logs) => logs,
            Err(error) => panic!("recovery halts: {error}"),
        };
        for log in &logs {
            self.note("recovered", &[log.dir.core.into(), log.position.lsn, log.base_lsn, clicks, log.start.segment]);
            match log.tail {
                Tail::Clean => self.trace.cover("clean tail"),
                Tail::Torn { .. } => self.trace.cover("torn tail"),
            }
            if log.start.segments.len() > 1 {
                self.trace.cover("several segments recovered");
            }
        }
        logs
    }

    /// Whether the process is killed at this stage of its start; it is started again.
    fn killed_while(&mut self, what: &'static str, percent: u64) -> bool {
        let killed = !self.draining && self.options.weights.kill > 0 && self.rng.percent(percent);
        if killed {
            self.note(what, &[]);
            self.trace.cover(what);
            self.start_again();
        }
        killed
    }

    /// As [`World::killed_while`], where a point says so.
    fn stopped_in_start(&mut self, point: &'static str) -> bool {
        let stopped = self.stops_at(point);
        if stopped {
            self.start_again();
        }
        stopped
    }

    /// The process ended before it served anybody.
    fn start_again(&mut self) {
        let down_ns = self.rng.skewed(500 * MS);
        self.after(down_ns, Happening::Start);
    }

    /// Fills the table with keys that nobody sends: until the oldest generation, which holds few, has to go; or until none may go, all being
    /// younger than the least window.
    fn crowd(&mut self, table: &mut dedup::Table, config: &Config) {
        let wall_ms = self.now().wall_ms;
        let generation_ms = config.dedup.window_ms / 16;
        let full = self.rng.percent(50);
        for number in 0.. {
            let age = match number {
                _ if full => number % 3,
                0..400 => 15 - number / 100,
                _ => number % 11,
            };
            let hashed = table.hash(&ClickKey { bytes: self.rng.bytes16(), hashed: false });
            let stamp = wall_ms - age * generation_ms;
            let filled = if full {
                // Too old: the horizon is ahead of a clock that was set back.
                matches!(table.remember(&hashed, 0, stamp, stamp), dedup::Verdict::Full | dedup::Verdict::TooOld)
            } else {
                let held = table.restore(&hashed, 0, stamp, stamp);
                // Or nothing of now is held, for the same reason.
                table.generations_dropped_early() > 0 || age == 0 && !held
            };
            if filled {
                return;
            }
        }
    }

    /// What is exported, and what waits in the logs of a process that halted.
    pub fn exported_and_logged(&mut self) -> Rows {
        let mut rows = self.sink.rows.clone();
        let recovered = recover(self.disk.dir.path(), &[], &mut |_| {}, &mut |log: &LogDir, frame| {
            let exported = self.sink.logs.get(&log.log_id[..]).map_or(0, |(lsn, _)| *lsn);
            for (lsn, record) in (frame.header.first_lsn..).zip(&frame.records) {
                if let Record::Click(click) = record
                    && lsn > exported
                {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let mut uuid = [0; UUID_TEXT_BYTES];
                    let click = click.to_click(&mut uuid);
                    let pane_ms = click.event_time.0.div_euclid(10_000) * 10_000;
                    *rows.entry((text(click.campaign_id), text(click.ad_id), pane_ms)).or_default() += 1;
                }
            }
        });
        if let Err(error) = recovered {
            panic!("after a halt, recovery halts: {error}");
        }
        rows
    }

    /// What was exported as over does not begin again. Of two histories, only one can know.
    fn holds_what_is_final(&self, table: &dedup::Table) {
        let (kept, exported) = (table.horizon_ms(), self.sink.horizon_ms);
        assert!(self.clones.used || kept >= exported, "a start with horizon {kept}, and {exported} is exported");
    }

    /// The clicks that the logs count, read from the disk as a restart would.
    pub fn read_logs_once_more(&mut self) -> u64 {
        let confirmed = self.sink.checkpoint.as_ref().map_or(Vec::new(), export::positions);
        let recovered = recover(self.disk.dir.path(), &confirmed, &mut |_| {}, &mut |_, _| {});
        let logs = match recovered {
            Ok(logs) => logs,
            Err(error) => panic!("after a clean stop, recovery halts: {error}"),
        };
        let of_cores = logs.iter().filter(|log| log.dir.core < self.cores.into());
        assert_eq!(of_cores.clone().count(), usize::from(self.cores), "each core has one log");
        assert!(of_cores.clone().all(|log| log.stopped), "the last frame of a clean stop says so");
        logs.iter().map(|log| log.start.totals.clicks).sum()
    }
}

#[expect(clippy::vec_box, reason = "as the writer holds them")]
fn frame_buffers(config: &Config) -> Vec<Box<FrameBuffer>> {
    let buffer = |id| {
        let memory = MmapMut::map_anon(buffer_bytes(config.log.frame_bytes)).expect("memory");
        Box::new(FrameBuffer { memory, id: id as u32 })
    };
    (0..FRAME_BUFFERS).map(buffer).collect()
}
