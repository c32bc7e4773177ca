//! `prove`: feeds a whole system, has every ad's count verified, and says what that took. This file is the order of things: top
//! rate (beside the null server), an open loop, freshness, through kills; then the counts.

pub mod freshness;
pub mod killer;
pub mod machine;
pub mod measured;
pub mod page;
pub mod plot;
pub mod process;
pub mod proof;
pub mod system;

use crate::client::Client;
use crate::cpu;
use crate::plan::{Plan, Rate, SEED_MAX};
use crate::report::Outcome;
use crate::run::{RunError, run_watched, wall_ms};
use crate::shapes::{NDJSON, Shape};
use crate::verify::{Baseline, Span, VerifyError};
use freshness::Freshness;
use killer::kill_every;
use measured::{Cost, OpenLoop, Sample};
use process::Process;
use proof::Proof;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use system::{Addresses, Edge, EdgeSettings, metric};

/// Between two points of the plots.
const SAMPLE: Duration = Duration::from_millis(250);
/// Counts are asked for up to so long after the start: longer than any proof.
const LONGEST: Duration = Duration::from_secs(86_400);
/// A server that sheds is asked again until the drain is over.
const ATTEMPTS_MAX: u32 = 10_000;

/// What is proved about.
#[derive(Clone, Debug)]
pub enum Subject {
    Start(EdgeSettings),
    There(Addresses),
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub subject: Subject,
    /// CPUs that feed; busy where nobody else needs them.
    pub client_cpus: Vec<usize>,
    pub busy_poll: bool,
    /// `tollgate-bench`, for the null server.
    pub null: Option<PathBuf>,
    pub shapes: Vec<Shape>,
    pub seconds: f64,
    pub rounds: u32,
    /// Clicks a second of the open loop and of freshness; half the top rate where none is given.
    pub rate: Option<f64>,
    pub ads: u32,
    /// Fraction of the requests sent twice, but at top rate.
    pub duplicates: f64,
    /// How full the table of ids is made first.
    pub prefill: f64,
    pub freshness: bool,
    pub kill_every: Option<Duration>,
    pub drain: Duration,
    pub verify_timeout: Duration,
    pub seed: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("{0}")]
    Server(#[from] io::Error),
    #[error("{0}")]
    Usage(String),
}

/// Proves what is asked for; `say` is told how far it is.
pub fn prove(settings: &Settings, say: &mut dyn FnMut(&str)) -> Result<Proof, ProveError> {
    check(settings)?;
    let edge = match &settings.subject {
        Subject::Start(edge) => Some(Edge::start(edge)?),
        Subject::There(_) => None,
    };
    let addresses = match (&edge, &settings.subject) {
        (Some(edge), _) => edge.addresses(),
        (None, Subject::There(addresses)) => addresses.clone(),
        (None, Subject::Start(_)) => unreachable!("it was started just now"),
    };
    let span = Span::new(wall_ms(), LONGEST);
    let ads = settings.ads as usize + 1;
    let mut prover = Prover {
        settings,
        pid: Arc::new(AtomicU32::new(edge.as_ref().map_or(0, Edge::pid))),
        edge,
        admins: addresses.admins.iter().filter_map(|url| Client::new(url)).collect(),
        addresses,
        span,
        began: Instant::now(),
        feeds: 0,
        proof: Proof::new(settings, ads),
        say,
    };
    let mut baseline = Baseline::read(&prover.addresses.queries, prover.addresses.token.as_ref(), ads, span)?;
    let rate_per_s = baseline.rate_per_s().unwrap_or(u64::MAX);
    if settings.freshness && rate_per_s < freshness::ASKS_A_SECOND_MAX {
        let asks = freshness::ASKS_A_SECOND_MAX;
        return Err(ProveError::Usage(format!(
            "--freshness asks {asks} times a second, and the token may only {rate_per_s} times: `tollgate token create --all --rate {asks}/s` \
             makes one that may"
        )));
    }
    prover.measure()?;
    (prover.say)("verifying every ad's count");
    let mut proof = prover.proof;
    proof.differences = baseline.compare(&proof.ledger, settings.verify_timeout)?;
    if let Some(edge) = &mut prover.edge
        && !proof.failures().is_empty()
    {
        edge.keep();
        proof.kept = Some(edge.dir.clone());
    }
    Ok(proof)
}

fn check(settings: &Settings) -> Result<(), ProveError> {
    let usage = |text: String| Err(ProveError::Usage(text));
    if settings.shapes.is_empty() {
        return usage("no shape is given: at least one is fed".to_owned());
    }
    let rounds_min = u32::from(settings.rate.is_none());
    if settings.rounds < rounds_min || !(0.01..=86_400.0).contains(&settings.seconds) {
        let (rounds, seconds) = (settings.rounds, settings.seconds);
        return usage(format!(
            "--rounds {rounds} --seconds {seconds}: at least one round (none only with --rate) of 0.01 to 86400 s"
        ));
    }
    if let Some(rate) = settings.rate
        && !(1.0..=1e9).contains(&rate)
    {
        return usage(format!("--rate {rate} is not from 1 to 1,000,000,000 clicks/s"));
    }
    if !(0.0..=0.95).contains(&settings.prefill) {
        return usage(format!("--prefill {} is no fraction from 0 to 0.95", settings.prefill));
    }
    let Subject::There(addresses) = &settings.subject else { return Ok(()) };
    if addresses.queries.is_empty() {
        return usage("--target wants --query: where the counts are, one for each host or one for all".to_owned());
    }
    if settings.kill_every.is_some() {
        return usage("--kill-every kills the server that prove started, and --target names another's".to_owned());
    }
    if settings.prefill > 0.0 && addresses.admins.is_empty() {
        return usage("--prefill wants --admin: the metrics say how full the table of ids is".to_owned());
    }
    Ok(())
}

struct Prover<'a> {
    settings: &'a Settings,
    addresses: Addresses,
    admins: Vec<Client>,
    edge: Option<Edge>,
    /// Of the edge, also when it was started again; 0: of nobody.
    pid: Arc<AtomicU32>,
    span: Span,
    began: Instant,
    feeds: u64,
    proof: Proof,
    say: &'a mut dyn FnMut(&str),
}

impl Prover<'_> {
    fn measure(&mut self) -> Result<(), ProveError> {
        let (settings, shapes) = (self.settings, self.settings.shapes.clone());
        self.prefill()?;
        for round in 0..settings.rounds {
            for (at, shape) in shapes.iter().enumerate() {
                (self.say)(&format!("round {} of {}: {} at top rate", round + 1, settings.rounds, shape.name));
                let plan = Plan { duplicates: 0.0, ..self.plan(*shape) };
                let (outcome, cost) = self.feed(&format!("{}, top rate", shape.name), &plan)?;
                self.proof.shapes[at].add_round(&outcome, cost);
                if let Some(null) = &settings.null {
                    let cost = self.null(null, &plan)?;
                    self.proof.shapes[at].add_null(cost);
                }
            }
        }
        for (at, shape) in shapes.iter().enumerate() {
            let rate = self.open_loop_rate(at);
            (self.say)(&format!("{} in an open loop, {rate:.0} clicks/s", shape.name));
            let plan = Plan { rate: Rate::ClicksPerSecond(rate), ..self.plan(*shape) };
            let outcome = self.feed(&format!("{}, open loop", shape.name), &plan)?.0;
            self.proof.shapes[at].open_loop = Some(OpenLoop::new(&outcome));
        }
        if settings.freshness {
            let rate = self.open_loop_rate(0);
            (self.say)(&format!("freshness beside {}, {rate:.0} clicks/s", shapes[0].name));
            self.freshness(shapes[0], rate)?;
        }
        if let Some(every) = settings.kill_every {
            for shape in &shapes {
                (self.say)(&format!("{} through kills, one each {every:?}", shape.name));
                self.through_kills(*shape, every)?;
            }
        }
        Ok(())
    }

    fn open_loop_rate(&self, shape: usize) -> f64 {
        self.settings.rate.unwrap_or_else(|| (self.proof.shapes[shape].clicks_per_s / 2.0).max(1.0))
    }

    /// Of this shape, with ids of its own.
    fn plan(&mut self, shape: Shape) -> Plan {
        self.feeds += 1;
        let settings = self.settings;
        let hosts = self.addresses.clicks.len();
        Plan {
            targets: self.addresses.clicks.clone(),
            connections: shape.connections.max(hosts * settings.client_cpus.len().max(1)),
            pipeline: shape.pipeline,
            batch: shape.batch,
            duration: Duration::from_secs_f64(settings.seconds),
            ads: settings.ads,
            duplicates: settings.duplicates,
            seed: settings.seed.wrapping_add(self.feeds) & SEED_MAX,
            cpus: settings.client_cpus.clone(),
            busy_poll: settings.busy_poll,
            drain: settings.drain,
            attempts_max: ATTEMPTS_MAX,
            ..Plan::default()
        }
    }

    /// Sends a plan, samples meanwhile, and takes what was acknowledged into the proof.
    fn feed(&mut self, phase: &str, plan: &Plan) -> Result<(Outcome, Cost), ProveError> {
        let Prover { began, pid, admins, proof, .. } = self;
        let busy = || (cpu::of_process_ns(pid.load(Ordering::Relaxed)).unwrap_or(0), cpu::of_machine_ns().unwrap_or(0));
        let (at_s, before) = (began.elapsed().as_secs_f64(), busy());
        let (mut last, mut last_pid) = (before, pid.load(Ordering::Relaxed));
        let outcome = run_watched(plan, SAMPLE, |progress| {
            let (now, now_pid) = (busy(), pid.load(Ordering::Relaxed));
            if now_pid != last_pid {
                // Another process: what it did before it was ready belongs to no point.
                last.0 = now.0;
            }
            let cpus = |now: u64, last: u64| now.saturating_sub(last) as f64 / 1e9 / progress.span_s;
            proof.timeline.push(Sample {
                phase: phase.to_owned(),
                at_s: at_s + progress.at_s,
                clicks_per_s: progress.clicks_per_s(),
                server_cpus: cpus(now.0, last.0),
                machine_cpus: cpus(now.1, last.1),
                remembered_s: metric(admins, "tollgate_dedup_window_seconds").into_iter().min_by(f64::total_cmp),
            });
            (last, last_pid) = (now, now_pid);
        })?;
        let after = busy();
        let cost = Cost::new(
            &outcome,
            (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1)),
            self.pid.load(Ordering::Relaxed) != 0,
        );
        self.proof.totals.add(&outcome.totals);
        self.proof.ledger.add(&outcome.ledger);
        // While it is killed, the edge is in other hands.
        let killed = self.edge.is_none() && self.settings.kill_every.is_some();
        if !killed {
            self.proof.unanswered += outcome.ledger.unknown().saturating_sub(outcome.totals.too_old);
        }
        if let Some(edge) = &mut self.edge
            && let Some(how) = edge.ended()?
        {
            self.proof.ended = Some(how);
        }
        self.proof.table_full =
            metric(&mut self.admins, "tollgate_dedup_load_ratio").into_iter().max_by(f64::total_cmp);
        Ok((outcome, cost))
    }

    /// The same load on a server that does nothing but answer.
    fn null(&mut self, bench: &std::path::Path, plan: &Plan) -> Result<Cost, ProveError> {
        let mut command = Command::new(bench);
        command.args(["null-uring", "--listen", "127.0.0.1:0"]);
        if let Subject::Start(EdgeSettings { cpus, .. }) = &self.settings.subject
            && let Some(cpu) = cpus.first()
        {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let log = std::env::temp_dir().join(format!("tollgate-null-{}.log", std::process::id()));
        let server = Process::start(command, &log)?;
        let targets = vec![server.address("listen")?];
        let busy = || (cpu::of_process_ns(server.pid()).unwrap_or(0), cpu::of_machine_ns().unwrap_or(0));
        let before = busy();
        let outcome = run_watched(&Plan { targets, ..plan.clone() }, SAMPLE, |_| {})?;
        let after = busy();
        // Empty where nothing went wrong.
        let _ = std::fs::remove_file(&log);
        Ok(Cost::new(&outcome, (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1)), true))
    }

    /// In a feed of its own: asking all the time would be in the way of the latencies.
    fn freshness(&mut self, shape: Shape, rate: f64) -> Result<(), ProveError> {
        let plan = Plan { rate: Rate::ClicksPerSecond(rate), ..self.plan(shape) };
        let (addresses, ad, span) = (self.addresses.clone(), self.settings.ads as usize, self.span);
        let stop = AtomicBool::new(false);
        let (fed, fresh) = std::thread::scope(|scope| {
            let markers = scope.spawn(|| freshness::watch(&addresses, ad, plan.seed, span, &stop));
            let fed = self.feed(&format!("{}, freshness", shape.name), &plan);
            stop.store(true, Ordering::Relaxed);
            (fed, markers.join().expect("the thread of markers does not panic"))
        });
        let fresh = fresh?;
        self.count_markers(ad as u32, &fresh);
        self.proof.freshness = fresh.histogram;
        self.proof.unseen = fresh.unseen;
        fed.map(drop)
    }

    fn count_markers(&mut self, ad: u32, fresh: &Freshness) {
        for _ in 0..fresh.acknowledged + fresh.unknown {
            self.proof.ledger.send(ad);
        }
        for _ in 0..fresh.unknown {
            self.proof.ledger.give_up(ad);
        }
    }

    fn through_kills(&mut self, shape: Shape, every: Duration) -> Result<(), ProveError> {
        let plan = self.plan(shape);
        let edge = self.edge.take().expect("checked: kills want an edge of prove's own");
        let (began, pid) = (self.began, self.pid.clone());
        let (sender, stop) = mpsc::channel();
        let (fed, killed) = std::thread::scope(|scope| {
            let killer = scope.spawn(move || kill_every(edge, every, began, &pid, stop));
            let fed = self.feed(&format!("{}, kills", shape.name), &plan);
            drop(sender);
            (fed, killer.join().expect("the killing thread does not panic"))
        });
        let (edge, kills) = killed?;
        self.edge = Some(edge);
        self.proof.kills.extend(kills);
        fed.map(drop)
    }

    /// Feeds until the table of ids is as full as asked, so that it works under the conditions of every day.
    fn prefill(&mut self) -> Result<(), ProveError> {
        loop {
            let full = metric(&mut self.admins, "tollgate_dedup_load_ratio").into_iter().min_by(f64::total_cmp);
            match full {
                _ if self.settings.prefill <= 0.0 => return Ok(()),
                Some(full) if full >= self.settings.prefill => return Ok(()),
                Some(full) => (self.say)(&format!("prefill: the table of ids is {full:.3} full")),
                None => return Err(ProveError::Usage("no admin port says how full the table of ids is".to_owned())),
            }
            let plan = Plan { duration: Duration::from_secs(1), duplicates: 0.0, ..self.plan(NDJSON) };
            let outcome = self.feed("prefill", &plan)?.0;
            if outcome.totals.acknowledged() == 0 {
                return Err(ProveError::Usage(
                    "nothing is acknowledged any more before the table of ids is so full".to_owned(),
                ));
            }
        }
    }
}
