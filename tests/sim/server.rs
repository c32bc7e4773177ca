//! Drives. One incarnation of the server: the product's cores between the simulated disk, network, mesh and exporter. It stands where
//! `worker.rs`, `keeper.rs` and the ring stand in production, and decides as little as they do.

use std::collections::VecDeque;

use tollgate::core::Core;
use tollgate::event::{Action, Actions, ConnectionId, Event, FrameBuffer, LogWrite, Patience, WriteEnd};
use tollgate::exit::Exit;
use tollgate::metrics::{Ledger, Shed, Snapshot};
use tollgate::wal::segments::{DataDir, LogDir};

use crate::disk::Left;
use crate::exporting::Exporting;
use crate::faults::{Ambush, Refused};
use crate::keeper::{Job, Keeper};
use crate::mesh::Mesh;
use crate::options::{SKEW_MS, SLOTS};
use crate::world::{Happening, MS, SECOND, World};

/// The exporter waits for up to 5 s before it tries again a sink that was away; and what the try takes.
const TRIED_AGAIN_NS: u64 = 6 * SECOND;

/// What waits for the core's next turn.
pub enum In {
    Bytes(ConnectionId, Vec<u8>),
    Event(Event<'static>),
}

pub struct Server {
    pub cores: Vec<CoreHost>,
    /// Logs that no core writes to.
    pub idle: Vec<LogDir>,
    pub mesh: Mesh,
    pub exporting: Exporting,
    pub segment_bytes: u64,
    /// Clicks of all logs when it began.
    clicks_at_start: u64,
    /// Held for its lock.
    pub _data_dir: DataDir,
    pub keeper: Keeper,
    pub stopping: bool,
    /// It was asked to when nothing failed any more.
    stops_in_peace: bool,
    patience: Patience,
    /// The wall clock was moved by so much since it started, and stays so.
    pub clock_moved_ms: i64,
}

/// One core, and what a worker's thread and ring are for it.
pub struct CoreHost {
    core: Core,
    pub log: LogDir,
    inbox: Vec<In>,
    turn_at_ns: Option<u64>,
    token: u64,
    /// Nothing was there in the last turn but one: the next one with nothing is the one before sleep.
    idle_due: bool,
    write: Option<(Box<FrameBuffer>, LogWrite)>,
    write_failed: bool,
    /// Its thread does not run until then.
    pub paused_until_ns: u64,
    /// The connection of each slot, and the slot's generation.
    slots: Vec<(Option<usize>, u32)>,
    accepting: bool,
    /// Receive buffers that hold what has come lately, when they are free again, and the connections that found none, oldest first.
    pub buffers_lent: usize,
    pub buffers_back_ns: u64,
    pub starved: VecDeque<usize>,
    /// It said that it will forward nothing more; and it has drained.
    pub done: bool,
    pub stopped: bool,
    seen: Ledger,
    clicks_in_log: u64,
    refused: u64,
    timed_out: u64,
}

impl CoreHost {
    pub fn new(core: Core, log: LogDir) -> CoreHost {
        CoreHost {
            core,
            log,
            inbox: Vec::new(),
            turn_at_ns: None,
            token: 0,
            idle_due: false,
            write: None,
            write_failed: false,
            paused_until_ns: 0,
            slots: vec![(None, 0); SLOTS as usize],
            accepting: true,
            buffers_lent: 0,
            buffers_back_ns: 0,
            starved: VecDeque::new(),
            done: false,
            stopped: false,
            seen: Ledger::default(),
            clicks_in_log: 0,
            refused: 0,
            timed_out: 0,
        }
    }

    pub fn take_slot(&mut self, conn: usize) -> Option<ConnectionId> {
        let slot = self.slots.iter().position(|(tenant, _)| tenant.is_none()).filter(|_| self.accepting)?;
        let (tenant, generation) = &mut self.slots[slot];
        *tenant = Some(conn);
        *generation += 1;
        Some(ConnectionId { slot: slot as u32, generation: *generation })
    }

    pub fn free_slot(&mut self, id: ConnectionId) {
        self.slots[id.slot as usize].0 = None;
    }

    fn conn(&self, id: ConnectionId) -> usize {
        let (tenant, generation) = self.slots[id.slot as usize];
        assert_eq!(generation, id.generation, "an action for a connection that is gone");
        tenant.expect("an action for a connection that is gone")
    }
}

impl Server {
    pub fn new(
        cores: Vec<CoreHost>,
        idle: Vec<LogDir>,
        mesh: Mesh,
        exporting: Exporting,
        (segment_bytes, clicks_at_start): (u64, u64),
        data_dir: DataDir,
    ) -> Server {
        Server {
            cores,
            idle,
            mesh,
            exporting,
            segment_bytes,
            clicks_at_start,
            _data_dir: data_dir,
            keeper: Keeper::default(),
            stopping: false,
            stops_in_peace: false,
            patience: Patience::Deadline,
            clock_moved_ms: 0,
        }
    }

    /// Writes of the logs that are under way.
    pub fn writing(&self) -> impl Iterator<Item = (&LogDir, &LogWrite, &[u8])> {
        self.cores.iter().filter_map(|host| {
            let (buffer, write) = host.write.as_ref()?;
            let from = write.buffer_offset as usize;
            Some((&host.log, write, &buffer.memory[from..from + write.length as usize]))
        })
    }

    pub fn what_is_left(&self) -> String {
        let of_core = |core: &CoreHost| {
            format!(
                "core: {} events wait, write in flight {}, done {}, stopped {}, ledger {:?}; ",
                core.inbox.len(),
                core.write.is_some(),
                core.done,
                core.stopped,
                core.seen
            )
        };
        let cores: String = self.cores.iter().map(of_core).collect();
        let chunks = self.mesh.chunks_on_their_way();
        format!(
            "{cores}{} jobs, {chunks} chunks on their way, {}",
            self.keeper.jobs.len(),
            self.exporting.what_is_left()
        )
    }
}

impl World {
    /// A core of the process that is known to live.
    pub fn core(&mut self, core: usize) -> &mut CoreHost {
        &mut self.server.as_mut().expect("it lives").cores[core]
    }

    /// Something for the core: it looks a little later, together with what else has come by then.
    pub fn tell(&mut self, core: usize, what: In) {
        let Some(server) = &mut self.server else { return };
        server.cores[core].inbox.push(what);
        let delay_ns = self.rng.skewed(60_000);
        self.wake(core, delay_ns);
    }

    pub fn wake(&mut self, core: usize, delay_ns: u64) {
        let life = self.lives;
        let Some(server) = &mut self.server else { return };
        let host = &mut server.cores[core];
        let at_ns = (self.now_ns + delay_ns).max(host.paused_until_ns);
        // One that has stopped hears nothing any more.
        if !host.stopped && host.turn_at_ns.is_none_or(|planned| at_ns < planned) {
            host.turn_at_ns = Some(at_ns);
            host.token += 1;
            let token = host.token;
            self.at(at_ns, Happening::Turn { life, core, token });
        }
    }

    pub fn turn_is_due(&mut self, core: usize, token: u64) {
        let now = self.now();
        let host = self.core(core);
        if host.stopped || token != host.token {
            return;
        }
        host.turn_at_ns = None;
        if host.paused_until_ns > now.mono_ns {
            return self.wake(core, 0);
        }
        let idle = host.inbox.is_empty() && std::mem::take(&mut host.idle_due);
        let inbox = std::mem::take(&mut host.inbox);
        let mut events: Vec<Event<'_>> = Vec::with_capacity(inbox.len() + 2);
        let mut received = Vec::new();
        let kinds: Vec<_> = inbox
            .into_iter()
            .map(|item| match item {
                In::Bytes(connection, bytes) => {
                    received.push(bytes);
                    Err((connection, received.len() - 1))
                }
                In::Event(event) => Ok(event),
            })
            .collect();
        let count = kinds.len() as u64;
        for kind in kinds {
            events.push(match kind {
                Ok(event) => event,
                Err((connection, at)) => Event::Received { connection, bytes: &received[at] },
            });
        }
        if idle {
            events.push(Event::Idle);
        }
        events.push(Event::Scrape);
        let mut actions = Actions::new();
        host.core.apply(&mut events, now, &mut actions);
        drop(events);
        host.idle_due = !idle;
        let sleep_ns =
            if idle { host.core.next_deadline_ns().saturating_sub(now.mono_ns).clamp(1_000, 1_000 * MS) } else { 0 };
        self.note("turn", &[core as u64, u64::from(idle), count, actions.len() as u64]);
        received.iter().for_each(|bytes| self.trace.bytes(bytes));
        self.perform(core, actions);
        let jitter_ns = self.rng.below(15_000);
        self.wake(core, sleep_ns + jitter_ns);
    }

    fn perform(&mut self, core: usize, actions: Actions) {
        let mut stopped = false;
        for action in actions {
            let host = self.core(core);
            match action {
                Action::Send { connection, buffer } => {
                    let number = host.conn(connection);
                    self.note("send", &[number as u64, buffer.bytes.len() as u64]);
                    self.send_down(number, buffer);
                }
                Action::PauseReceive { connection } => {
                    let number = host.conn(connection);
                    self.pause(number, true);
                }
                Action::ResumeReceive { connection } => {
                    let number = host.conn(connection);
                    self.pause(number, false);
                }
                Action::ShutdownSend { connection } => {
                    let number = host.conn(connection);
                    self.shutdown_down(number);
                }
                Action::Close { connection } => {
                    let number = host.conn(connection);
                    self.close_down(number);
                }
                Action::WriteLog { buffer, write } => self.write_log(core, buffer, write),
                Action::PrepareSegment { segment } => self.give_job(Job::Prepare { core, segment }),
                Action::FreeSegment { segment } => {
                    self.trace.cover("segment freed");
                    self.give_job(Job::Free { core, segment });
                }
                Action::FreeIdleSegment { log, segment } => {
                    self.trace.cover("segment of an idle log freed");
                    self.give_job(Job::FreeIdle { log, segment });
                }
                Action::Forward { to, chunk } => self.forward(core, to, chunk),
                Action::Return { to, chunk } => self.give_back(core, to, chunk),
                Action::Done => self.tell_done(core),
                Action::Export(cut) => self.cut_leaves(core, cut),
                Action::Snapshot(snapshot) => self.look_at(core, &snapshot),
                Action::StopAccepting => host.accepting = false,
                Action::Stopped => stopped = true,
                Action::Halt { exit, why } => {
                    let write_failed = host.write_failed && exit == Exit::LogWriteFailed;
                    let server = self.server.as_ref().expect("its core acts");
                    // It was asked to while faults came, and tries a sink again so long after they ended; or it is one of two, and was paused.
                    let excused = self.now_ns < self.drains_at_ns + TRIED_AGAIN_NS || self.clones.are_two();
                    let gives_up = server.stopping && server.patience == Patience::Deadline;
                    let late = exit == Exit::Store && gives_up && !server.stops_in_peace && excused;
                    assert!(late || write_failed, "core {core} halts, {exit:?}: {why}");
                    self.trace.cover(if late { "stop gave the export up" } else { "halted by a failed write" });
                    return self.kill();
                }
            }
        }
        assert!(!self.core(core).write_failed, "a failed write of the log, and the core goes on");
        if stopped {
            self.stopped(core);
        }
    }

    fn write_log(&mut self, core: usize, buffer: Box<FrameBuffer>, write: LogWrite) {
        self.note("write", &[core as u64, write.segment, write.file_offset, u64::from(write.length)]);
        let mut delay_ns = 20_000 + self.rng.skewed(self.options.write_ns_max);
        if !self.draining {
            delay_ns += self.stalled_until_ns.saturating_sub(self.now_ns);
        }
        if self.images.is_some() {
            let (log, from) = (self.core(core).log.clone(), write.buffer_offset as usize);
            self.try_power_cuts(&log, &write, &buffer.memory[from..from + write.length as usize]);
        }
        let life = self.lives;
        let before = self.core(core).write.replace((buffer, write));
        assert!(before.is_none(), "one write of the log at a time: recovery relies on it");
        self.after(delay_ns, Happening::LogWrite { life, core });
        self.spring(Ambush::Write, delay_ns);
    }

    pub fn log_write_ends(&mut self, core: usize) {
        let Some((buffer, write)) = self.core(core).write.take() else { return };
        let ok = !self.refuses(Refused::Write);
        let from = write.buffer_offset as usize;
        let bytes = &buffer.memory[from..from + write.length as usize];
        self.trace.bytes(bytes);
        let log = self.core(core).log.clone();
        if self.stopped_in_write(&log, &write, bytes) {
            return self.kill();
        }
        if ok {
            self.disk.write(&log, &write, bytes);
        } else {
            self.core(core).write_failed = true;
            self.disk.fail(&log, &write, bytes, &mut self.rng);
        }
        if ok && self.images.is_some() {
            self.try_faults(&log);
        }
        self.note("written", &[core as u64, write.segment, write.file_offset, u64::from(ok)]);
        let end = match ok {
            true => WriteEnd::Synced,
            false if self.rng.percent(30) => WriteEnd::Short { written: 512, length: write.length },
            false => WriteEnd::Failed { errno: 5 },
        };
        self.tell(core, In::Event(Event::LogWritten { buffer, end }));
    }

    /// The counters after every turn.
    fn look_at(&mut self, core: usize, snapshot: &Snapshot) {
        let now = self.now();
        let ledger = &snapshot.ledger;
        let (rejected, shed): (u64, u64) = (ledger.rejected.iter().sum(), ledger.shed.iter().sum());
        let sum = ledger.accepted + ledger.duplicate + rejected + shed + ledger.in_flight;
        assert_eq!(ledger.received, sum, "the ledger does not balance: {ledger:?}");
        let (log, dedup) = (&snapshot.log, &snapshot.dedup);
        assert!(log.durable_lsn <= log.end_lsn && snapshot.export.exported_lsn <= log.durable_lsn, "{snapshot:?}");
        let server = self.server.as_mut().expect("it answered");
        let run_out = server.mesh.run_out(core, ledger.in_flight);
        let (clock_moved_ms, host) = (server.clock_moved_ms, &mut server.cores[core]);
        let cover = |trace: &mut crate::trace::Trace, met: bool, what| {
            if met {
                trace.cover(what);
            }
        };
        let trace = &mut self.trace;
        let stays = self.leap_ms == 0 && clock_moved_ms.abs() > SKEW_MS;
        let believed = stays && host.core.shedding(now).is_none() && ledger.accepted > host.seen.accepted;
        cover(trace, believed, "a clock that stays is believed");
        cover(trace, ledger.duplicate > host.seen.duplicate && log.durable_lsn < log.end_lsn, "duplicate waits");
        cover(trace, dedup.generations_dropped_early > 0, "eviction");
        cover(trace, log.freed_early > 0, "segment freed early");
        cover(trace, ledger.duplicate_other_payload > host.seen.duplicate_other_payload, "other payload");
        cover(trace, ledger.dead_letters_unkept > host.seen.dead_letters_unkept, "dead letters over budget");
        for shed in Shed::ALL {
            cover(trace, ledger.shed[shed as usize] > host.seen.shed[shed as usize], shed.name());
        }
        cover(trace, ledger.in_flight > 0, "clicks wait for room in the log");
        let connections = &snapshot.connections;
        cover(trace, connections.refused > host.refused, "connection turned away");
        cover(trace, connections.timed_out > host.timed_out, "connection timed out");
        (host.refused, host.timed_out) = (connections.refused, connections.timed_out);
        cover(trace, run_out, "chunks run out");
        host.seen = ledger.clone();
        host.clicks_in_log = snapshot.export.clicks_in_log;
        self.compare_cores();
    }

    /// Of all cores together: a click that is answered as accepted is in some home's log.
    fn compare_cores(&self) {
        let Some(server) = &self.server else { return };
        let sum = |number: fn(&CoreHost) -> u64| server.cores.iter().map(number).sum::<u64>();
        // Of a core that has had no turn yet nothing is known.
        if server.cores.iter().all(|core| core.clicks_in_log > 0 || core.seen.received > 0) {
            let (accepted, logged) = (sum(|core| core.seen.accepted), sum(|core| core.clicks_in_log));
            let room = server.clicks_at_start + accepted;
            assert!(room <= logged, "{accepted} clicks are accepted, and {logged} in the logs");
            let over = server.cores.iter().all(|core| core.stopped);
            assert!(!over || room == logged, "{accepted} clicks are accepted, and {logged} in the logs");
        }
    }

    /// The process ends at once; what it had under way is decided here.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        self.note("kill", &[u64::from(self.lives)]);
        let mut unfinished = 0;
        for host in &mut server.cores {
            let Some((buffer, write)) = host.write.take() else { continue };
            let from = write.buffer_offset as usize;
            let bytes = &buffer.memory[from..from + write.length as usize];
            self.may_land_late(&host.log, &write, bytes);
            match self.disk.tear(&host.log, &write, bytes, &mut self.rng) {
                Left::Nothing => self.trace.cover("unfinished write lost"),
                Left::Part => self.trace.cover("unfinished write torn"),
                Left::All => self.trace.cover("unfinished write kept"),
            }
            unfinished += 1;
        }
        if unfinished > 1 {
            self.trace.cover("several writes cut off");
        }
        if server.mesh.chunks_on_their_way() > 0 {
            self.trace.cover("killed with chunks on their way");
        }
        self.keeper_dies(&server);
        self.exporter_dies(&mut server.exporting);
        self.process_ended();
    }

    /// One core has drained; with the last one the process ends.
    fn stopped(&mut self, core: usize) {
        self.note("stopped", &[u64::from(self.lives), core as u64]);
        let server = self.server.as_mut().expect("it said so");
        assert!(server.stopping, "nobody asked for a stop");
        let host = &mut server.cores[core];
        assert!(host.write.is_none(), "a clean stop with a write in flight");
        host.stopped = true;
        if server.cores.iter().any(|core| !core.stopped) {
            return;
        }
        self.compare_cores();
        // Whoever takes the host out now loses nothing, whatever idle logs it had.
        assert!(self.sink.stopped, "a clean stop, and something is left to export");
        self.trace.cover("clean stop");
        self.finished = self.last_stop;
        self.server = None;
        self.process_ended();
    }

    fn process_ended(&mut self) {
        self.cut_off_all();
        self.disk.forget();
        let down_ns = self.rng.skewed(2_000 * MS);
        self.after(down_ns, Happening::Start);
    }

    /// Each core hears of it when its thread gets to it.
    pub fn ask_to_stop(&mut self) {
        if let Some(server) = &mut self.server
            && !server.stopping
        {
            (server.stopping, server.stops_in_peace) = (true, self.draining);
            if self.rng.percent(25) {
                server.patience = Patience::UntilExported;
            }
            let (life, cores) = (self.lives, server.cores.len());
            self.note("stop", &[]);
            for core in 0..cores {
                let delay_ns = self.rng.skewed(20 * MS);
                self.after(delay_ns, Happening::Stop { life, core });
            }
        }
    }

    pub fn stop_arrives(&mut self, core: usize) {
        let Some(server) = &self.server else { return };
        if server.mesh.chunks_on_their_way() > 0 {
            self.trace.cover("stop with chunks on their way");
        }
        if server.patience == Patience::UntilExported && self.sink_away {
            self.trace.cover("a stop waits for a sink that is away");
        }
        self.tell(core, In::Event(Event::Stop { patience: server.patience }));
    }
}
