//! Drives. One incarnation of the server: the product's core between the simulated disk, network and exporter. It stands where
//! `worker.rs`, `keeper.rs` and the ring stand in production, and decides as little as they do.

use std::collections::VecDeque;
use std::time::Duration;

use tollgate::core::Core;
use tollgate::event::{Action, Actions, ConnectionId, Event, FrameBuffer, LogWrite, Patience, WriteEnd};
use tollgate::exit::Exit;
use tollgate::metrics::{Ledger, Shed, Snapshot};
use tollgate::wal::segments::{DataDir, LogDir, prepare_segment};

use crate::disk::Left;
use crate::exporting::Exporting;
use crate::faults::Ambush;
use crate::options::{SKEW_MS, SLOTS};
use crate::world::{Happening, MS, World};

/// What waits for the core's next turn.
pub enum In {
    Bytes(ConnectionId, Vec<u8>),
    Event(Event<'static>),
}

pub enum Job {
    Prepare(u64),
    Free(u64),
}

pub struct Server {
    pub core: Core,
    pub exporting: Exporting,
    pub log: LogDir,
    pub segment_bytes: u64,
    /// Held for its lock.
    pub _data_dir: DataDir,
    inbox: Vec<In>,
    turn_at_ns: Option<u64>,
    token: u64,
    /// Nothing was there in the last turn but one: the next one with nothing is the one before sleep.
    idle_due: bool,
    write: Option<(Box<FrameBuffer>, LogWrite)>,
    write_failed: bool,
    jobs: VecDeque<Job>,
    last_job_ns: u64,
    /// The connection of each slot, and the slot's generation.
    slots: Vec<(Option<usize>, u32)>,
    accepting: bool,
    pub stopping: bool,
    /// The wall clock was moved by so much since it started, and stays so.
    pub clock_moved_ms: i64,
    seen: Ledger,
    refused: u64,
    timed_out: u64,
}

impl Server {
    pub fn new(core: Core, exporting: Exporting, data_dir: DataDir, log: LogDir, segment_bytes: u64) -> Server {
        Server {
            core,
            exporting,
            log,
            segment_bytes,
            _data_dir: data_dir,
            inbox: Vec::new(),
            turn_at_ns: None,
            token: 0,
            idle_due: false,
            write: None,
            write_failed: false,
            jobs: VecDeque::new(),
            last_job_ns: 0,
            slots: vec![(None, 0); SLOTS as usize],
            accepting: true,
            stopping: false,
            clock_moved_ms: 0,
            seen: Ledger::default(),
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

    pub fn what_is_left(&self) -> String {
        format!(
            "server: {} events wait, write in flight {}, {} jobs, ledger {:?}, {}",
            self.inbox.len(),
            self.write.is_some(),
            self.jobs.len(),
            self.seen,
            self.exporting.what_is_left()
        )
    }
}

impl World {
    /// Something for the core: it looks a little later, together with what else has come by then.
    pub fn tell(&mut self, what: In) {
        let Some(server) = &mut self.server else { return };
        server.inbox.push(what);
        let delay_ns = self.rng.skewed(60_000);
        self.wake(delay_ns);
    }

    pub fn wake(&mut self, delay_ns: u64) {
        let at_ns = self.now_ns + delay_ns;
        let life = self.lives;
        let Some(server) = &mut self.server else { return };
        if server.turn_at_ns.is_none_or(|planned| at_ns < planned) {
            server.turn_at_ns = Some(at_ns);
            server.token += 1;
            let token = server.token;
            self.at(at_ns, Happening::Turn { life, token });
        }
    }

    pub fn turn_is_due(&mut self, token: u64) {
        let now = self.now();
        let Some(server) = &mut self.server else { return };
        if token != server.token {
            return;
        }
        server.turn_at_ns = None;
        let idle = server.inbox.is_empty() && std::mem::take(&mut server.idle_due);
        let inbox = std::mem::take(&mut server.inbox);
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
        server.core.apply(&mut events, now, &mut actions);
        drop(events);
        server.idle_due = !idle;
        let sleep_ns =
            if idle { server.core.next_deadline_ns().saturating_sub(now.mono_ns).clamp(1_000, 1_000 * MS) } else { 0 };
        self.note("turn", &[u64::from(idle), count, actions.len() as u64]);
        received.iter().for_each(|bytes| self.trace.bytes(bytes));
        self.perform(actions);
        let jitter_ns = self.rng.below(15_000);
        self.wake(sleep_ns + jitter_ns);
    }

    fn perform(&mut self, actions: Actions) {
        for action in actions {
            let Some(server) = &mut self.server else { return };
            match action {
                Action::Send { connection, buffer } => {
                    let number = server.conn(connection);
                    self.note("send", &[number as u64, buffer.bytes.len() as u64]);
                    self.send_down(number, buffer);
                }
                Action::PauseReceive { connection } => {
                    let number = server.conn(connection);
                    self.pause(number, true);
                }
                Action::ResumeReceive { connection } => {
                    let number = server.conn(connection);
                    self.pause(number, false);
                }
                Action::ShutdownSend { connection } => {
                    let number = server.conn(connection);
                    self.shutdown_down(number);
                }
                Action::Close { connection } => {
                    let number = server.conn(connection);
                    self.close_down(number);
                }
                Action::WriteLog { buffer, write } => self.write_log(buffer, write),
                Action::PrepareSegment { segment } => self.give_job(Job::Prepare(segment)),
                Action::FreeSegment { segment } => {
                    self.trace.cover("segment freed");
                    self.give_job(Job::Free(segment));
                }
                Action::FreeIdleSegment { .. } | Action::Forward { .. } | Action::Return { .. } => {
                    unreachable!("one core, one log")
                }
                Action::Done => {}
                Action::Export(cut) => self.cut_leaves(cut),
                Action::Snapshot(snapshot) => self.look_at(&snapshot),
                Action::StopAccepting => server.accepting = false,
                Action::Stopped => return self.stopped(),
                Action::Halt { exit, why } => {
                    let late = exit == Exit::Store && server.stopping && !self.draining;
                    assert!(late || server.write_failed && exit == Exit::LogWriteFailed, "halt {exit:?}: {why}");
                    self.trace.cover(if late { "stop gave the export up" } else { "halted by a failed write" });
                    return self.kill();
                }
            }
        }
        if let Some(server) = &self.server {
            assert!(!server.write_failed, "a failed write of the log, and the core goes on");
        }
    }

    fn write_log(&mut self, buffer: Box<FrameBuffer>, write: LogWrite) {
        self.note("write", &[write.segment, write.file_offset, u64::from(write.length)]);
        let mut delay_ns = 20_000 + self.rng.skewed(self.options.write_ns_max);
        if !self.draining {
            delay_ns += self.stalled_until_ns.saturating_sub(self.now_ns);
        }
        let life = self.lives;
        let server = self.server.as_mut().expect("it asked");
        let before = server.write.replace((buffer, write));
        assert!(before.is_none(), "one write of the log at a time: recovery relies on it");
        self.after(delay_ns, Happening::LogWrite { life });
        self.spring(Ambush::Write, delay_ns);
    }

    pub fn log_write_ends(&mut self) {
        let Some(server) = &mut self.server else { return };
        let Some((buffer, write)) = server.write.take() else { return };
        let ok = !std::mem::take(&mut self.fail_next_write);
        let from = write.buffer_offset as usize;
        let bytes = &buffer.memory[from..from + write.length as usize];
        self.trace.bytes(bytes);
        if ok {
            self.disk.write(&server.log, &write, bytes);
        } else {
            server.write_failed = true;
            self.disk.tear(&server.log, &write, bytes, &mut self.rng);
        }
        self.note("written", &[write.segment, write.file_offset, u64::from(ok)]);
        let end = if ok { WriteEnd::Synced } else { WriteEnd::Failed { errno: 5 } };
        self.tell(In::Event(Event::LogWritten { buffer, end }));
    }

    fn give_job(&mut self, job: Job) {
        let delay_ns = self.rng.skewed(20 * MS);
        let (life, now_ns) = (self.lives, self.now_ns);
        let server = self.server.as_mut().expect("it asked");
        server.jobs.push_back(job);
        server.last_job_ns = server.last_job_ns.max(now_ns) + delay_ns;
        let at_ns = server.last_job_ns;
        self.at(at_ns, Happening::Kept { life });
        self.spring(Ambush::Job, delay_ns);
    }

    pub fn keeper_done(&mut self) {
        let Some(server) = &mut self.server else { return };
        match server.jobs.pop_front() {
            Some(Job::Prepare(segment)) => {
                prepare_segment(&server.log.path, segment, server.segment_bytes, Duration::ZERO)
                    .expect("the simulated disk takes it");
                self.tell(In::Event(Event::SegmentReady { segment }));
            }
            Some(Job::Free(segment)) => self.disk.remove(&server.log, segment),
            None => {}
        }
    }

    /// The counters after every turn.
    fn look_at(&mut self, snapshot: &Snapshot) {
        let now = self.now();
        let ledger = &snapshot.ledger;
        let (rejected, shed): (u64, u64) = (ledger.rejected.iter().sum(), ledger.shed.iter().sum());
        let sum = ledger.accepted + ledger.duplicate + rejected + shed + ledger.in_flight;
        assert_eq!(ledger.received, sum, "the ledger does not balance: {ledger:?}");
        let (log, dedup) = (&snapshot.log, &snapshot.dedup);
        assert!(log.durable_lsn <= log.end_lsn && snapshot.export.exported_lsn <= log.durable_lsn, "{snapshot:?}");
        let server = self.server.as_mut().expect("it answered");
        let cover = |trace: &mut crate::trace::Trace, met: bool, what| {
            if met {
                trace.cover(what);
            }
        };
        let trace = &mut self.trace;
        let stays = self.leap_ms == 0 && server.clock_moved_ms.abs() > SKEW_MS;
        let believed = stays && server.core.shedding(now).is_none() && ledger.accepted > server.seen.accepted;
        cover(trace, believed, "a clock that stays is believed");
        cover(trace, ledger.duplicate > server.seen.duplicate && log.durable_lsn < log.end_lsn, "duplicate waits");
        cover(trace, dedup.generations_dropped_early > 0, "eviction");
        cover(trace, log.freed_early > 0, "segment freed early");
        cover(trace, ledger.duplicate_other_payload > server.seen.duplicate_other_payload, "other payload");
        cover(trace, ledger.dead_letters_unkept > server.seen.dead_letters_unkept, "dead letters over budget");
        for shed in Shed::ALL {
            cover(trace, ledger.shed[shed as usize] > server.seen.shed[shed as usize], shed.name());
        }
        cover(trace, ledger.in_flight > 0, "clicks wait for room in the log");
        let connections = &snapshot.connections;
        cover(trace, connections.refused > server.refused, "connection turned away");
        cover(trace, connections.timed_out > server.timed_out, "connection timed out");
        (server.refused, server.timed_out) = (connections.refused, connections.timed_out);
        server.seen = ledger.clone();
    }

    /// The process ends at once; what it had under way is decided here.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        self.note("kill", &[u64::from(self.lives)]);
        if let Some((buffer, write)) = server.write.take() {
            let from = write.buffer_offset as usize;
            let bytes = &buffer.memory[from..from + write.length as usize];
            match self.disk.tear(&server.log, &write, bytes, &mut self.rng) {
                Left::Nothing => self.trace.cover("unfinished write lost"),
                Left::Part => self.trace.cover("unfinished write torn"),
                Left::All => self.trace.cover("unfinished write kept"),
            }
        }
        if let Some(Job::Prepare(segment)) = server.jobs.front() {
            self.trace.cover("preparation cut off");
            self.disk.prepare_in_part(&server.log, *segment, server.segment_bytes, &mut self.rng);
        }
        self.exporter_dies(&mut server.exporting);
        self.process_ended();
    }

    fn stopped(&mut self) {
        self.note("stopped", &[u64::from(self.lives)]);
        self.trace.cover("clean stop");
        let server = self.server.take().expect("it said so");
        assert!(server.stopping, "nobody asked for a stop");
        assert!(server.write.is_none(), "a clean stop with a write in flight");
        if self.last_stop {
            self.finished = true;
        }
        drop(server);
        self.process_ended();
    }

    fn process_ended(&mut self) {
        self.cut_off_all();
        let down_ns = self.rng.skewed(2_000 * MS);
        self.after(down_ns, Happening::Start);
    }

    pub fn ask_to_stop(&mut self) {
        if let Some(server) = &mut self.server
            && !server.stopping
        {
            server.stopping = true;
            self.note("stop", &[]);
            self.tell(In::Event(Event::Stop { patience: Patience::Deadline }));
        }
    }
}
