//! Drives. A simulated world: one queue of what happens when, one seed for all of it. The server in it is the product's cores
//! and exporter; everything else is made up here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use tollgate::event::Now;

use crate::broker::Broker;
use crate::clients::{Client, Request};
use crate::clones::Clones;
use crate::damage::Faults;
use crate::disk::Disk;
use crate::faults::{Ambush, Fault, Refused};
use crate::global::GlobalTier;
use crate::images::Images;
use crate::kafka::Rewound;
use crate::neighbour::Neighbour;
use crate::network::Conn;
use crate::options::Options;
use crate::oracle::{Exported, Oracle};
use crate::points::Points;
use crate::rng::Rng;
use crate::server::Server;
use crate::sink::Sink;
use crate::trace::Trace;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
const EPOCH_MS: i64 = 1_700_000_000_000;

/// After the faults stop, everything is answered and exported within this time and a dedup window.
const DRAIN_NS: u64 = 60 * SECOND;

/// What happens at a moment. `life` is the incarnation that it concerns: a later one never hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Turn {
        life: u32,
        core: usize,
        token: u64,
    },
    LogWrite {
        life: u32,
        core: usize,
    },
    /// The next parcel from one core to another.
    Parcel {
        life: u32,
        from: usize,
        to: usize,
    },
    /// A core hears that it shall stop.
    Stop {
        life: u32,
        core: usize,
    },
    /// A core's receive buffers are free again.
    BuffersBack {
        life: u32,
        core: usize,
    },
    /// The keeper's next job is done; and it tries again what it could not delete.
    Kept {
        life: u32,
    },
    KeeperLooks {
        life: u32,
    },
    /// And what had no room.
    KeeperTriesAgain {
        life: u32,
        core: usize,
    },
    /// The answer to the exporter's last step.
    Exporter {
        life: u32,
    },
    ExporterWakes {
        life: u32,
        token: u64,
    },
    CutArrives {
        life: u32,
        core: usize,
    },
    ExportedArrives {
        life: u32,
        core: usize,
    },
    /// Kafka's markers and time-outs.
    BrokerTicks,
    /// A word to commit a producer's transaction, of a process that may be gone, arrives at last.
    EndTxnArrives {
        epoch: u32,
    },
    NeighbourActs,
    GlobalTurn,
    /// The topics are not any more what they were.
    Rewind,
    /// The data directory is copied; the copy is used, if it is time; and of two hosts, the other runs.
    Copy,
    UseCopy,
    CopyReaches,
    ChangePlaces,
    /// Hours begin in which little happens.
    Rest,
    ClientActs(usize),
    ClientHurries(usize),
    ToServer(usize),
    ToClient(usize),
    Sent(usize),
    Closed(usize),
    Start,
    /// What a process that is gone was writing gets to the disk at last.
    LateWrites,
    NextFault,
    /// The script stops the process.
    Restart,
    Ends(Fault),
    Kill {
        life: u32,
    },
    Drain,
}

pub struct World {
    pub seed: u64,
    pub options: Options,
    pub rng: Rng,
    pub trace: Trace,
    pub now_ns: u64,
    pub wall_offset_ms: i64,
    /// Of that, what is a leap that will end; and whether a start goes on under it.
    pub leap_ms: i64,
    pub leap_meets_starts: bool,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    queued: u64,
    pub disk: Disk,
    pub sink: Sink,
    pub sink_away: bool,
    pub sink_away_until_ns: u64,
    /// Where the sink is remote.
    pub broker: Broker,
    pub neighbour: Neighbour,
    /// Where it reads.
    pub global: Option<Box<GlobalTier>>,
    pub rewound: Option<Rewound>,
    /// When it was read last who wrote last, by the producer of then.
    pub reads: BTreeMap<u32, u64>,
    pub clones: Clones,
    /// The exporter ended the process for good, as it should.
    pub halted: bool,
    /// Little happens in between; 0 as long as it does not rest.
    pub resting_from_ns: u64,
    pub resting_until_ns: u64,
    /// Until then faults come.
    pub drains_at_ns: u64,
    pub room: bool,
    /// Writes take so much longer until then.
    pub stalled_until_ns: u64,
    /// What the disk will not do when it is asked next.
    pub refused: Option<Refused>,
    /// It refused a mirror, and the process has not ended over it yet.
    pub mirror_refused: bool,
    pub ambush: Option<Ambush>,
    pub oracle: Oracle,
    pub clients: Vec<Client>,
    pub conns: Vec<Conn>,
    pub requests: Vec<Request>,
    pub server: Option<Box<Server>>,
    pub lives: u32,
    pub draining: bool,
    /// Cores of the last incarnation.
    pub cores: u16,
    /// The last clean stop was asked for.
    pub last_stop: bool,
    pub finished: bool,
    pub data_dir: [u8; 16],
    /// Faults of the disk that starts meet.
    pub damage: Option<Faults>,
    /// What the disk could hold is tried at every write.
    pub images: Option<Box<Images>>,
    /// Where the process may be stopped, if this world is for that.
    pub points: Option<Points>,
}

/// How a world ended that kept every promise.
pub struct Verdict {
    pub hash: u64,
    pub steps: u64,
    pub clicks: u64,
    pub simulated_ns: u64,
    /// Of that, while faults came: under load, and in hours in which almost nobody sends.
    pub fault_loaded_ns: u64,
    pub fault_rest_ns: u64,
    pub covered: BTreeMap<&'static str, u64>,
    pub damage: Option<Faults>,
    pub images: Option<Box<Images>>,
    pub points: Option<Points>,
}

impl World {
    /// `without`: names of what is taken away from what the seed draws.
    pub fn new(seed: u64, without: &[&str], print: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut options = Options::draw(&mut rng);
        options.without(without);
        World::of(seed, rng, options, print)
    }

    pub fn of(seed: u64, mut rng: Rng, options: Options, print: bool) -> World {
        let data_dir = rng.bytes16();
        let drains_at_ns = SECOND + options.load_ns + options.hours * 3_600 * SECOND;
        World {
            seed,
            oracle: Oracle::new(options.remembered_ms(), options.fresh_ms()),
            clients: (0..options.clients).map(|_| Client::default()).collect(),
            options,
            rng,
            trace: Trace::new(print),
            now_ns: SECOND,
            wall_offset_ms: 0,
            leap_ms: 0,
            leap_meets_starts: false,
            queue: BinaryHeap::new(),
            queued: 0,
            disk: Disk::new(),
            sink: Sink::new(),
            sink_away: false,
            sink_away_until_ns: 0,
            broker: Broker::new(2),
            neighbour: Neighbour::default(),
            global: None,
            rewound: None,
            reads: BTreeMap::new(),
            clones: Clones::default(),
            halted: false,
            resting_from_ns: 0,
            resting_until_ns: 0,
            drains_at_ns,
            room: true,
            stalled_until_ns: 0,
            refused: None,
            mirror_refused: false,
            ambush: None,
            conns: Vec::new(),
            requests: Vec::new(),
            server: None,
            lives: 0,
            draining: false,
            cores: 0,
            last_stop: false,
            finished: false,
            data_dir,
            damage: Some(Faults::new(seed)),
            images: None,
            points: None,
        }
    }

    /// The global tier reads what is in Kafka.
    pub fn has_global(&self) -> bool {
        self.options.remote && self.options.global
    }

    /// Runs the world to its end. Panics where a promise is broken.
    pub fn run(mut self) -> Verdict {
        self.after(0, Happening::Start);
        for client in 0..self.clients.len() {
            self.after(MS, Happening::ClientActs(client));
        }
        if self.options.remote && self.options.neighbour {
            self.after(MS, Happening::NeighbourActs);
        }
        if self.options.fault_every_ns > 0 {
            let first = self.rng.below(2 * self.options.fault_every_ns);
            self.after(first, Happening::NextFault);
        }
        for part in 1..=self.options.restarts {
            let at_ns = self.options.load_ns * part / (self.options.restarts + 1);
            self.after(at_ns, Happening::Restart);
        }
        if self.has_global() {
            self.global = Some(Box::new(GlobalTier::new()));
            self.after(MS, Happening::GlobalTurn);
        }
        if self.options.remote && self.options.rewinds {
            let at_ns = self.rng.below(self.options.load_ns);
            self.after(at_ns, Happening::Rewind);
        }
        if self.has_clones() {
            self.plan_clones();
        }
        if self.options.hours > 0 {
            let at_ns = self.rng.below(self.options.load_ns);
            self.after(at_ns, Happening::Rest);
        }
        self.after(self.drains_at_ns - self.now_ns, Happening::Drain);
        let window_ns = self.options.windows_ms.iter().max().copied().unwrap_or(0) as u64 * MS;
        let deadline_ns = self.drains_at_ns + window_ns + DRAIN_NS;
        while !self.finished {
            let Some(Reverse((at_ns, _, happening))) = self.queue.pop() else { panic!("nothing happens any more") };
            self.now_ns = self.now_ns.max(at_ns);
            assert!(self.now_ns < deadline_ns, "not drained in time: {}", self.what_is_left());
            self.happen(happening);
        }
        // A world may end early.
        let faults_ns = self.now_ns.min(self.drains_at_ns) - SECOND;
        let faults_ns = if self.options.fault_every_ns > 0 { faults_ns } else { 0 };
        let rested_ns = faults_ns.min(self.now_ns.min(self.resting_until_ns).saturating_sub(self.resting_from_ns));
        self.judge();
        Verdict {
            hash: self.trace.hash(),
            steps: self.trace.steps,
            clicks: self.sink.clicks,
            simulated_ns: self.now_ns,
            fault_loaded_ns: faults_ns.saturating_sub(rested_ns),
            fault_rest_ns: rested_ns,
            covered: self.trace.covered,
            damage: self.damage,
            images: self.images,
            points: self.points,
        }
    }

    pub fn now(&self) -> Now {
        let wall_ms = self.true_ms() + self.wall_offset_ms;
        Now { wall_ms, mono_ns: self.now_ns }
    }

    /// What a clock says that is right.
    pub fn true_ms(&self) -> i64 {
        EPOCH_MS + (self.now_ns / MS) as i64
    }

    pub fn after(&mut self, ns: u64, happening: Happening) {
        self.at(self.now_ns + ns, happening);
    }

    pub fn at(&mut self, at_ns: u64, happening: Happening) {
        self.queued += 1;
        self.queue.push(Reverse((at_ns, self.queued, happening)));
    }

    pub fn note(&mut self, what: &'static str, values: &[u64]) {
        self.trace.note(self.now_ns, what, values);
    }

    /// Ends the world where a promise is broken.
    pub fn held<T>(&self, result: Result<T, String>) -> T {
        match result {
            Ok(value) => value,
            Err(why) => panic!("{why}"),
        }
    }

    fn lives_on(&self, life: u32) -> bool {
        self.server.is_some() && self.lives == life
    }

    fn happen(&mut self, happening: Happening) {
        if self.waits_for_its_host(happening) {
            return;
        }
        match happening {
            Happening::Turn { life, core, token } if self.lives_on(life) => self.turn_is_due(core, token),
            Happening::LogWrite { life, core } if self.lives_on(life) => self.log_write_ends(core),
            Happening::Parcel { life, from, to } if self.lives_on(life) => self.parcel_arrives(from, to),
            Happening::Stop { life, core } if self.lives_on(life) => self.stop_arrives(core),
            Happening::BuffersBack { life, core } if self.lives_on(life) => self.buffers_are_back(core),
            Happening::Kept { life } if self.lives_on(life) => self.keeper_done(),
            Happening::KeeperLooks { life } if self.lives_on(life) => self.keeper_looks(),
            Happening::KeeperTriesAgain { life, core } if self.lives_on(life) => self.keeper_tries_again(core),
            Happening::Exporter { life } if self.lives_on(life) => self.exporter_answered(),
            Happening::ExporterWakes { life, token } if self.lives_on(life) => self.exporter_wakes(token),
            Happening::CutArrives { life, core } if self.lives_on(life) => self.cut_arrives(core),
            Happening::ExportedArrives { life, core } if self.lives_on(life) => self.exported_arrives(core),
            Happening::Kill { life } if self.lives_on(life) && !self.draining => self.kill(),
            Happening::Kill { .. }
            | Happening::Turn { .. }
            | Happening::LogWrite { .. }
            | Happening::Parcel { .. }
            | Happening::Stop { .. }
            | Happening::BuffersBack { .. }
            | Happening::Kept { .. }
            | Happening::KeeperLooks { .. }
            | Happening::KeeperTriesAgain { .. }
            | Happening::Exporter { .. }
            | Happening::ExporterWakes { .. }
            | Happening::CutArrives { .. }
            | Happening::ExportedArrives { .. } => {}
            Happening::BrokerTicks => self.broker_ticks(),
            Happening::EndTxnArrives { epoch } => self.end_txn_arrives(epoch),
            Happening::NeighbourActs => self.neighbour_acts(),
            Happening::GlobalTurn => self.global_turn(),
            Happening::Rewind => self.rewind_topics(),
            Happening::Copy => self.copy_directory(),
            Happening::UseCopy => self.use_copy(),
            Happening::CopyReaches => self.copy_reaches(),
            Happening::ChangePlaces => self.places_change(),
            Happening::Rest => self.rest(),
            Happening::ClientActs(client) => self.client_acts(client),
            Happening::ClientHurries(client) => self.client_hurries(client),
            Happening::ToServer(conn) => self.reaches_server(conn),
            Happening::ToClient(conn) => self.reaches_client(conn),
            Happening::Sent(conn) => self.send_ends(conn),
            Happening::Closed(conn) => self.close_ends(conn),
            Happening::Start => self.start(),
            Happening::LateWrites => self.late_writes_land(),
            Happening::NextFault => self.next_fault(),
            Happening::Restart => self.ask_to_stop(),
            Happening::Ends(fault) => self.fault_ends(fault),
            Happening::Drain => self.drain(),
        }
    }

    fn what_is_left(&self) -> String {
        let open = (0..self.oracle.ids.len()).filter(|id| !self.oracle.settled(*id)).count();
        let outstanding: usize = self.conns.iter().map(|conn| conn.outstanding.len()).sum();
        let server = self.server.as_ref().map_or("no server".to_owned(), |server| server.what_is_left());
        format!("{open} ids without a final answer, {outstanding} requests outstanding; {server}")
    }

    /// Everything is drained and the process has stopped: the sink, the log and what clients know must agree.
    fn judge(&mut self) {
        self.judge_global();
        self.topic_holds_what_was_decided();
        if self.halted && self.clones.used {
            // What the other history lacks cannot be told from here.
            return self.held(self.oracle.judge(&self.sink.rows, Exported::InPart));
        }
        if self.halted {
            let rows = self.exported_and_logged();
            return self.held(self.oracle.judge(&rows, Exported::All));
        }
        let missed = matches!(self.rewound, Some(Rewound::Ours { .. }));
        assert!(!missed, "a topic has lost what was exported last, and nobody halts");
        let logged = self.read_logs_once_more();
        let (exported, stopped) = (self.sink.clicks, self.sink.stopped);
        assert_eq!(exported, logged, "clicks exported, and clicks in the logs' totals, after a clean stop");
        assert!(stopped, "the last transaction of a clean stop says so");
        self.held(self.oracle.judge(&self.sink.rows, Exported::All));
        self.note("judged", &[exported, self.sink.commits]);
    }
}
