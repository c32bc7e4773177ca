//! Drives. The exporter's thread: takes cuts from the worker, does what the protocol says, tells the worker what is exported.
//! It runs nice, and sleeps until a cut or the protocol's next deadline wakes it.

use crate::config::SINK_SILENCE_MS_MAX;
use crate::cut::{Cut, LogId, Position};
use crate::event::{Exported, Now};
use crate::exit::Exit;
use crate::export::rebuild::Rebuilder;
use crate::export::sink::Sink;
use crate::export::{Exporter, Found, Rebuilt, SinkError, Step, Told};
use crate::inbox::{Inbound, Inbox};
use crate::metrics::ExportMetrics;
use crate::wal::replay::ReplayedFrame;
use crate::worker::{now, thread_cpu_ns};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lowers the thread below the workers where they share a CPU.
const NICE: i32 = 10;

/// A worker that ended is noticed this soon.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// Reads back the frames of a log after one LSN up to another and gives each in order, until told to stop.
pub type ReadFrames =
    dyn FnMut(LogId, u64, u64, &mut dyn FnMut(&ReplayedFrame<'_>) -> ControlFlow<()>) -> Result<(), String> + Send;

/// What the exporter has done, for the admin side and for the core that spaces its cuts by what they cost.
#[derive(Debug)]
pub struct Meter {
    pub transactions: AtomicU64,
    pub partials: AtomicU64,
    /// Commits whose outcome had to be read.
    pub doubts: AtomicU64,
    /// The last try found that it does not answer.
    pub sink_away: AtomicBool,
    /// Since when the sink owes an answer, by the monotonic clock; `NOT_ASKED` where it owes none. A call may last for long, and
    /// a doubt is no answer.
    pub asked_ns: AtomicU64,
    /// Monotonic time of the sink's last answer and of the last commit; 0, the start, before the first.
    pub answered_ns: AtomicU64,
    pub committed_ns: AtomicU64,
    /// Clicks handed over or found at the start, and not yet exported.
    pub clicks_behind: AtomicU64,
    /// Clicks of the log that are known to be exported.
    pub clicks_exported: AtomicU64,
    /// When the oldest of those behind was taken; `NOBODY_WAITS` where there are none.
    pub oldest_ms: AtomicI64,
    /// CPU of this thread.
    pub cpu_ns: AtomicU64,
}

const NOBODY_WAITS: i64 = i64::MAX;
const NOT_ASKED: u64 = u64::MAX;

impl Default for Meter {
    fn default() -> Meter {
        let zero = || AtomicU64::new(0);
        Meter {
            transactions: zero(),
            partials: zero(),
            doubts: zero(),
            sink_away: AtomicBool::new(false),
            asked_ns: AtomicU64::new(NOT_ASKED),
            answered_ns: zero(),
            committed_ns: zero(),
            clicks_behind: zero(),
            clicks_exported: zero(),
            oldest_ms: AtomicI64::new(NOBODY_WAITS),
            cpu_ns: zero(),
        }
    }
}

impl Meter {
    /// It is asked something; or still, where it has not answered what it was asked before.
    fn ask(&self, now: Now) {
        self.asked_ns.fetch_min(now.mono_ns, Ordering::Relaxed);
    }

    /// A sign of it, before the answer: it owes one from now on.
    fn hear(&self, now: Now) {
        self.asked_ns.store(now.mono_ns, Ordering::Relaxed);
        self.answered_ns.store(now.mono_ns, Ordering::Relaxed);
    }

    fn answer(&self, now: Now) {
        self.hear(now);
        self.asked_ns.store(NOT_ASKED, Ordering::Relaxed);
    }

    /// It has answered once, neither did the last try find that it does not, nor has it been silent for long.
    pub fn sink_answers(&self, now: Now) -> bool {
        let silent_ns = now.mono_ns.saturating_sub(self.asked_ns.load(Ordering::Relaxed));
        self.answered_ns.load(Ordering::Relaxed) > 0
            && !self.sink_away.load(Ordering::Relaxed)
            && silent_ns <= SINK_SILENCE_MS_MAX * 1_000_000
    }

    /// Adds to what the core shows of the export.
    pub fn show(&self, now: Now, export: &mut ExportMetrics) {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        export.transactions = counted(&self.transactions);
        export.partials = counted(&self.partials);
        export.doubts = counted(&self.doubts);
        export.cpu_ns = counted(&self.cpu_ns);
        export.sink_answers = self.sink_answers(now);
        let since_answer_ns = now.mono_ns.saturating_sub(counted(&self.answered_ns));
        export.sink_away_ns = if export.sink_answers { 0 } else { since_answer_ns };
        export.commit_age_ns = now.mono_ns.saturating_sub(counted(&self.committed_ns));
        export.clicks_behind = export.clicks_in_log.saturating_sub(counted(&self.clicks_exported));
        let oldest_ms = Some(self.oldest_ms.load(Ordering::Relaxed)).filter(|ms| *ms != NOBODY_WAITS);
        // Of several cores one may have an older one on the way than this thread has taken.
        export.oldest_ms = oldest_ms.into_iter().chain(export.oldest_ms).min().filter(|_| export.clicks_behind > 0);
    }
}

/// Everything that the thread owns.
pub struct ExportThread {
    pub exporter: Exporter,
    pub sink: Box<dyn Sink>,
    /// The checkpoint's positions that recovery met in the logs.
    pub confirmed: Vec<Position>,
    pub rebuilder: Rebuilder,
    pub read_frames: Box<ReadFrames>,
    pub meter: Arc<Meter>,
    /// The start of the process's monotonic clock.
    pub started: Instant,
}

impl ExportThread {
    /// Until every core's last cut is exported, the workers are gone, or nothing more can be exported. `cuts`: of the cores, in order.
    pub fn run(mut self, mut cuts: Vec<rtrb::Consumer<Box<Cut>>>, cores: &Cores) -> Exit {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::warn!("the exporter's thread keeps its priority: {error}");
        }
        self.exporter.give_way_by(std::thread::yield_now);
        self.publish();
        loop {
            // Looked at before the queues: what was pushed before the workers ended is still taken.
            let workers_ended = cuts.iter().all(rtrb::Consumer::is_abandoned);
            for cuts in &mut cuts {
                while let Ok(cut) = cuts.pop() {
                    self.tell(Told::Cut(cut));
                }
            }
            match self.exporter.next(now(self.started)) {
                Step::ReadCheckpoint { look } => {
                    self.meter.ask(now(self.started));
                    let read = self.sink.checkpoint(look);
                    self.note_sink(read.as_ref().err());
                    self.tell(Told::Checkpoint(read));
                }
                Step::LookUp(positions) => {
                    let found = positions.iter().map(|position| self.look_up(position)).collect();
                    self.tell(Told::LookedUp(found));
                }
                Step::Rebuild { log, from_lsn, to_lsn, from_clicks, room } => {
                    self.rebuilder.begin(from_lsn, from_clicks, room);
                    let rebuilt = self.rebuild(log, from_lsn, to_lsn);
                    self.tell(Told::Rebuilt(rebuilt));
                }
                Step::Commit(transaction) => {
                    let (meter, started) = (&self.meter, self.started);
                    meter.ask(now(started));
                    let heard = || meter.hear(now(started));
                    let outcome = self.sink.commit(&transaction, &mut *self.read_frames, &heard);
                    self.count(transaction.partials.len() as u64, outcome);
                    self.tell(Told::Committed(outcome));
                }
                Step::Remember(checkpoint) => {
                    let remembered = self.sink.remember(&checkpoint);
                    self.tell(Told::Remembered(remembered));
                }
                Step::Exported(log, exported) => cores.tell(log, exported),
                Step::Wait { until_ns } => {
                    if workers_ended {
                        return Exit::Clean;
                    }
                    let sleep = Duration::from_nanos(until_ns.saturating_sub(now(self.started).mono_ns));
                    std::thread::park_timeout(sleep.min(SLEEP_MAX));
                }
                Step::Stopped => return Exit::Clean,
                Step::Halt(halt) => {
                    let way = self.exporter.way_out(&halt);
                    tracing::error!(code = halt.exit().code(), "nothing more is exported: {halt}. {way}");
                    return halt.exit();
                }
            }
        }
    }

    fn tell(&mut self, told: Told) {
        self.exporter.apply(told, now(self.started));
        self.publish();
    }

    fn publish(&self) {
        let (exporter, meter) = (&self.exporter, &self.meter);
        meter.clicks_behind.store(exporter.clicks_behind(), Ordering::Relaxed);
        meter.clicks_exported.store(exporter.clicks_exported(), Ordering::Relaxed);
        meter.oldest_ms.store(exporter.oldest_ms().unwrap_or(NOBODY_WAITS), Ordering::Relaxed);
    }

    /// Recovery met the positions that were known then; others are looked for in the log.
    fn look_up(&mut self, position: &Position) -> Result<Found, String> {
        if self.confirmed.contains(position) {
            return Ok(Found::Same);
        }
        let mut found = Found::Other;
        (self.read_frames)(position.log_id, position.lsn.saturating_sub(1), position.lsn, &mut |frame| {
            if frame.header.last_lsn() == position.lsn && frame.chain == position.chain {
                found = Found::Same;
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Tells of a sink that is away once, and once that it is back.
    fn note_sink(&mut self, error: Option<&SinkError>) {
        let away = error.is_some();
        if !away {
            self.meter.answer(now(self.started));
        }
        if self.meter.sink_away.swap(away, Ordering::Relaxed) == away {
            return;
        }
        match error {
            Some(SinkError::Unreachable(why)) => {
                tracing::warn!("counts wait in the log, and are tried again: {why}");
            }
            // The halt says it.
            Some(SinkError::Broken(_) | SinkError::Foreign(_)) => {}
            None => tracing::info!("counts leave again"),
        }
    }

    fn rebuild(&mut self, log: LogId, from_lsn: u64, to_lsn: u64) -> Result<Rebuilt, String> {
        let rebuilder = &mut self.rebuilder;
        (self.read_frames)(log, from_lsn, to_lsn, &mut |frame| rebuilder.frame(frame))?;
        rebuilder.finish().ok_or_else(|| format!("no frame of log {log:02x?} lies between LSN {from_lsn} and {to_lsn}"))
    }

    fn count(&self, partials: u64, outcome: crate::export::Outcome) {
        let meter = &self.meter;
        match outcome {
            crate::export::Outcome::Committed => {
                meter.transactions.fetch_add(1, Ordering::Relaxed);
                meter.partials.fetch_add(partials, Ordering::Relaxed);
                let now = now(self.started);
                meter.committed_ns.store(now.mono_ns, Ordering::Relaxed);
                meter.answer(now);
            }
            crate::export::Outcome::Unknown => {
                meter.doubts.fetch_add(1, Ordering::Relaxed);
            }
        }
        meter.cpu_ns.store(thread_cpu_ns(), Ordering::Relaxed);
    }
}

/// Who is told what is exported.
pub struct Cores {
    /// Of each core, in order, its log and its inbox.
    pub logs: Vec<(LogId, Inbox)>,
    /// Logs that no core writes to: the first core clears them away.
    pub idle: Vec<LogId>,
}

impl Cores {
    /// A worker that has ended needs to know nothing more: its log holds what it needs at the next start.
    fn tell(&self, log: LogId, exported: Box<Exported>) {
        if let Some((_, inbox)) = self.logs.iter().find(|(own, _)| *own == log) {
            inbox.send(Inbound::Exported(exported));
        } else if let Some(idle) = self.idle.iter().position(|idle| *idle == log) {
            self.logs[0].1.send(Inbound::IdleExported { log: idle as u32, lsn: exported.lsn });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Now {
        Now { wall_ms: 0, mono_ns: seconds * SECOND }
    }

    #[test]
    fn each_log_s_owner_is_told_and_which_of_those_that_no_core_writes_to() {
        let (owners, inboxes): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (sender, inbox) = std::sync::mpsc::channel();
                let (wake, _) = crate::wake::Wake::pair().expect("an eventfd");
                (Inbox::new(sender, Arc::new(wake)), inbox)
            })
            .unzip();
        let logs = owners.into_iter().zip(1..).map(|(owner, log)| ([log; 16], owner)).collect();
        let cores = Cores { logs, idle: vec![[3; 16], [4; 16]] };
        for log in 1..=4 {
            cores.tell([log; 16], Box::new(Exported { lsn: log.into(), table: None, cuts: 0 }));
        }
        let told = |owner: usize| inboxes[owner].try_iter().collect::<Vec<_>>();
        let first = told(0);
        assert!(matches!(
            &first[..],
            [Inbound::Exported(own), Inbound::IdleExported { log: 0, lsn: 3 }, Inbound::IdleExported { log: 1, lsn: 4 }] if own.lsn == 1
        ));
        assert!(matches!(&told(1)[..], [Inbound::Exported(own)] if own.lsn == 2));
    }

    #[test]
    fn the_oldest_click_is_that_of_whoever_holds_it() {
        let meter = Meter::default();
        for (exporter, cores, shown) in
            [(None, None, None), (None, Some(7), Some(7)), (Some(5), Some(7), Some(5)), (Some(8), Some(7), Some(7))]
        {
            meter.oldest_ms.store(exporter.unwrap_or(NOBODY_WAITS), Ordering::Relaxed);
            let mut export = ExportMetrics { oldest_ms: cores, clicks_in_log: 1, ..ExportMetrics::default() };
            meter.show(at(1), &mut export);
            assert_eq!(export.oldest_ms, shown, "{exporter:?} in its hands, {cores:?} on the way");
            meter.clicks_exported.store(1, Ordering::Relaxed);
            meter.show(at(1), &mut export);
            assert_eq!(export.oldest_ms, None, "nobody waits");
            meter.clicks_exported.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_sink_that_is_silent_for_long_does_not_answer_until_it_gives_a_sign() {
        let (meter, mut shown) = (Meter::default(), ExportMetrics::default());
        let mut show = |seconds: u64| {
            meter.show(at(seconds), &mut shown);
            (shown.sink_answers, shown.sink_away_ns / SECOND)
        };
        assert_eq!(show(99), (false, 99), "nobody asked it yet");
        meter.ask(at(100));
        assert_eq!(show(100), (false, 100), "it has not answered yet");
        meter.answer(at(101));
        assert_eq!(show(200), (true, 0), "it owes nothing");
        meter.ask(at(200));
        assert_eq!((show(205), show(206)), ((true, 0), (false, 105)));
        meter.hear(at(207));
        assert_eq!((show(212), show(213)), ((true, 0), (false, 6)));
        meter.ask(at(215));
        assert_eq!(show(216), (false, 9), "asked again after a doubt, it has answered nothing");
        meter.answer(at(217));
        assert_eq!(show(300), (true, 0));
        meter.sink_away.store(true, Ordering::Relaxed);
        assert_eq!(show(301), (false, 84), "a try that failed needs no time");
    }
}
