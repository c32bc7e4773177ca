//! Drives. From the simulated disk to a serving process, as `start.rs` does it in production, with kills at each stage.

use memmap2::{Advice, MmapMut};
use std::time::Duration;
use tollgate::click::ClickKey;
use tollgate::config::{Config, FRAME_BUFFERS};
use tollgate::core::Core;
use tollgate::core::home::Seat;
use tollgate::core::incarnation::{self, Incarnation, LogEnd};
use tollgate::cut::Position;
use tollgate::event::{Event, FrameBuffer};
use tollgate::export::Exporter;
use tollgate::wal::reader::LogReader;
use tollgate::wal::recover::{RecoveredLog, Tail, recover};
use tollgate::wal::segments::{DataDir, LogDir, prepare_segment};
use tollgate::wal::writer::buffer_bytes;
use tollgate::{dedup, export, preagg};

use crate::disk::Left;
use crate::exporting::Exporting;
use crate::server::{In, Server};
use crate::world::{Happening, MS, World};

impl World {
    pub fn start(&mut self) {
        if self.server.is_some() || self.finished {
            return;
        }
        self.lives += 1;
        self.set_clock_right();
        self.note("start", &[u64::from(self.lives)]);
        let window_ms = self.rng.pick(&self.options.windows_ms);
        let config = self.options.config(window_ms);
        // Of the embedded sink, a start sees what is in and what is not.
        if !self.options.remote {
            self.settle_doubt();
        }
        let known = if self.options.remote { &self.mirrored } else { &self.sink.checkpoint };
        let confirmed = known.as_ref().map_or(Vec::new(), export::positions);
        let data_dir = self.open();
        let now = self.now();
        let memory = MmapMut::map_anon(config.dedup.memory_bytes as usize).expect("memory");
        // A wish, as in production: thousands of page faults fewer.
        let _ = memory.advise(Advice::HugePage);
        let mut table = dedup::Table::new(memory, self.rng.bytes16(), &config.dedup, i64::MIN, now.wall_ms);
        let recovered = self.recover(&confirmed, &mut table);
        if self.killed_while("recovering killed", 12) {
            return;
        }
        let behind_ms = recovered.as_ref().map_or(0, |log| log.built_ms.saturating_sub(now.wall_ms));
        if behind_ms > 0 {
            self.trace.cover("start waits for the clock");
            return self.after(behind_ms as u64 * MS, Happening::Start);
        }
        incarnation::keep_horizon(&mut table, &config, recovered.as_slice(), now);
        if self.options.crowded {
            self.crowd(&mut table, &config);
        }
        let (log, end) = match &recovered {
            Some(log) => (log.dir.clone(), LogEnd::of(log)),
            None => {
                let log = data_dir.create_log(0, self.rng.bytes16()).expect("the simulated disk takes it");
                (log.clone(), LogEnd::new(log.log_id))
            }
        };
        let segment = end.start.segment;
        if self.killed_while("first segment cut off", 3) {
            return self.disk.prepare_in_part(&log, segment, config.log.segment_bytes, &mut self.rng);
        }
        prepare_segment(&log.path, segment, config.log.segment_bytes, Duration::ZERO)
            .expect("the simulated disk takes it");
        let mut nonces: Vec<_> = recovered.iter().flat_map(|log| log.nonces.iter().copied()).collect();
        let nonce = self.rng.bytes16();
        let buffers = frame_buffers(&config);
        let (begun, buffer, write) = Incarnation::begin(&config, Seat::ALONE, nonce, table, end, buffers, now);
        let from = write.buffer_offset as usize;
        let bytes = &buffer.memory[from..from + write.length as usize];
        if self.killed_while("first frame cut off", 6) {
            if self.disk.tear(&log, &write, bytes, &mut self.rng) == Left::Part {
                self.trace.cover("first frame torn");
            }
            return;
        }
        self.disk.write(&log, &write, bytes);
        let partials = preagg::Table::new(self.options.rows_max, self.options.users_max, self.rng.next());
        let (home, start) = begun.begun(&config, buffer, partials);
        nonces.push(nonce);
        let exporter = Exporter::new(export::Start {
            edge_id: config.export.edge_id.clone(),
            data_dir: self.data_dir,
            nonce,
            nonces,
            mirror: self.mirror(),
            logs: vec![start],
        });
        let exporting = Exporting::new(exporter, LogReader::new(log.clone()), confirmed, self.rng.next());
        let segment_bytes = config.log.segment_bytes;
        let core = Core::new(config, home, Vec::new(), crate::options::SLOTS, now);
        self.server = Some(Box::new(Server::new(core, exporting, data_dir, log, segment_bytes)));
        self.tell(In::Event(Event::Room { open: self.room, segments_over: 0, frees_seen: u64::MAX }));
        self.pump();
    }

    fn open(&self) -> DataDir {
        match DataDir::open(self.disk.dir.path()) {
            Ok(data_dir) => data_dir,
            Err(error) => panic!("the data directory: {error}"),
        }
    }

    /// What production's recovery makes of the disk. No crash may make it halt.
    fn recover(&mut self, confirmed: &[Position], table: &mut dedup::Table) -> Option<RecoveredLog> {
        let mut clicks = 0;
        let recovered = recover(self.disk.dir.path(), confirmed, &mut |_| {}, &mut |_: &LogDir, frame| {
            clicks += incarnation::restore(std::slice::from_mut(table), frame);
        });
        let mut logs = match recovered {
            Ok(logs) => logs,
            Err(error) => panic!("recovery halts: {error}"),
        };
        assert!(logs.len() <= 1, "one core, one log");
        let log = logs.pop()?;
        self.note("recovered", &[log.position.lsn, log.base_lsn, clicks, log.start.segment]);
        match log.tail {
            Tail::Clean => self.trace.cover("clean tail"),
            Tail::Torn { .. } => self.trace.cover("torn tail"),
        }
        if log.start.segments.len() > 1 {
            self.trace.cover("several segments recovered");
        }
        Some(log)
    }

    /// Whether the process is killed at this stage of its start; it is started again.
    fn killed_while(&mut self, what: &'static str, percent: u64) -> bool {
        let killed = !self.draining && self.options.weights.kill > 0 && self.rng.percent(percent);
        if killed {
            self.note(what, &[]);
            self.trace.cover(what);
            let down_ns = self.rng.skewed(500 * MS);
            self.after(down_ns, Happening::Start);
        }
        killed
    }

    /// Fills the table with keys that nobody sends, until the oldest generation, which holds few, has to go.
    fn crowd(&mut self, table: &mut dedup::Table, config: &Config) {
        let wall_ms = self.now().wall_ms;
        let generation_ms = config.dedup.window_ms / 16;
        let mut number = 0_u64;
        while table.generations_dropped_early() == 0 {
            let age = if number < 400 { 15 - (number / 100) as i64 } else { (number % 11) as i64 };
            let key = ClickKey { bytes: self.rng.bytes16(), hashed: false };
            let hashed = table.hash(&key);
            let stamp = wall_ms - age * generation_ms;
            table.restore(&hashed, 0, stamp, stamp);
            number += 1;
        }
    }

    /// The clicks that the log counts, read from the disk as a restart would.
    pub fn read_log_once_more(&mut self) -> u64 {
        let confirmed = self.sink.checkpoint.as_ref().map_or(Vec::new(), export::positions);
        let recovered = recover(self.disk.dir.path(), &confirmed, &mut |_| {}, &mut |_, _| {});
        match recovered.map(|mut logs| logs.pop()) {
            Ok(Some(log)) => {
                assert!(log.stopped, "the last frame of a clean stop says so");
                log.start.totals.clicks
            }
            Ok(None) => panic!("the log is gone"),
            Err(error) => panic!("after a clean stop, recovery halts: {error}"),
        }
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
