//! Pure. What a seed's world is like: sizes, how often each fault comes. Weights are drawn by the seed (swarm), so that
//! worlds without some faults exist too.

use tollgate::config::{Config, DedupConfig, MeshConfig};

use crate::rng::Rng;

const MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Options {
    pub clients: usize,
    /// How long clients send and faults come.
    pub load_ns: u64,
    /// Mean time between two actions of one client.
    pub act_every_ns: u64,
    /// Mean time between two faults; 0: none.
    pub fault_every_ns: u64,
    /// How likely each kind of fault is, in parts of their sum.
    pub weights: Weights,
    /// Rows and users of the core's table of partials.
    pub rows_max: usize,
    pub users_max: usize,
    /// A write of the log takes up to so long.
    pub write_ns_max: u64,
    /// A commit of the sink takes up to so long.
    pub commit_ns_max: u64,
    /// In percent: commits whose outcome stays unknown.
    pub doubt_percent: u64,
    /// In percent: connections whose client reads slowly.
    pub slow_percent: u64,
    /// In percent: pieces of a request that come after a pause of up to seconds.
    pub drip_percent: u64,
    /// A core has so many at a time.
    pub receive_buffers: usize,
    /// In percent: requests with many clicks.
    pub large_percent: u64,
    /// In percent: clicks whose campaign they share with others.
    pub shared_percent: u64,
    /// Records of requests that wait for room in the log; beyond it requests are shed.
    pub staging_bytes_max: u64,
    /// The dedup table is full, or almost, of keys that nobody sends.
    pub crowded: bool,
    /// The log's room runs short: segments go early, and the ids in them.
    pub short_log: bool,
    /// Dedup windows that incarnations draw from.
    pub windows_ms: Vec<i64>,
    pub commit_spacing_us: u64,
    /// How many cores incarnations draw from.
    pub cores: Vec<u16>,
    /// Records of a chunk between two cores, and chunks that a core may have at another: so few that they run out.
    pub chunk_bytes: usize,
    pub chunks_a_way: usize,
    /// A chunk is on its way for up to so long.
    pub parcel_ns_max: u64,
    /// The sink is not in the data directory: a start knows what the mirror says, and asks when it can.
    pub remote: bool,
    /// Another edge writes to the same partitions of Kafka.
    pub neighbour: bool,
    /// The global tier reads what is in Kafka.
    pub global: bool,
    /// The topics of Kafka lose what was in them.
    pub rewinds: bool,
    /// For so many hours almost nobody sends, and faults come as rarely; in half of these worlds, the sink is away.
    pub hours: u64,
    /// The process is stopped and started again so many times, each time with the next number of cores.
    pub restarts: u64,
    /// The data directory is copied, and the copy used.
    pub clones: bool,
}

#[derive(Clone, Debug)]
pub struct Weights {
    pub kill: u64,
    pub stop: u64,
    pub fail_write: u64,
    pub disk_full: u64,
    pub stall: u64,
    pub sink_away: u64,
    pub clock: u64,
    pub resets: u64,
}

/// Its name, and what it takes away.
pub type Simpler = (&'static str, fn(&mut Options));

/// What can be taken away from a world, the most telling first.
pub const SIMPLER: [Simpler; 28] = [
    ("faults", |options| options.fault_every_ns = 0),
    ("hours", |options| options.hours = 0),
    ("cores", |options| options.cores = vec![1]),
    ("remote", |options| options.remote = false),
    ("global", |options| options.global = false),
    ("neighbour", |options| options.neighbour = false),
    ("rewinds", |options| options.rewinds = false),
    ("clones", |options| options.clones = false),
    ("doubt", |options| options.doubt_percent = 0),
    ("kill", |options| options.weights.kill = 0),
    ("stop", |options| options.weights.stop = 0),
    ("fail_write", |options| options.weights.fail_write = 0),
    ("disk_full", |options| options.weights.disk_full = 0),
    ("stall", |options| options.weights.stall = 0),
    ("sink_away", |options| options.weights.sink_away = 0),
    ("clock", |options| options.weights.clock = 0),
    ("resets", |options| options.weights.resets = 0),
    ("staging", |options| options.staging_bytes_max = STAGING_BYTES_ENOUGH),
    ("crowded", |options| options.crowded = false),
    ("short_log", |options| options.short_log = false),
    ("windows", |options| options.windows_ms.truncate(1)),
    ("drip", |options| options.drip_percent = 0),
    ("slow", |options| options.slow_percent = 0),
    ("buffers", |options| options.receive_buffers = usize::MAX),
    ("shared", |options| options.shared_percent = 0),
    ("clients", |options| options.clients = 1),
    ("half", |options| options.load_ns /= 2),
    // With the one before, a quarter.
    ("half_again", |options| options.load_ns /= 2),
];

impl Weights {
    pub fn sum(&self) -> u64 {
        let Weights { kill, stop, fail_write, disk_full, stall, sink_away, clock, resets } = self;
        kill + stop + fail_write + disk_full + stall + sink_away + clock + resets
    }
}

impl Options {
    pub fn draw(rng: &mut Rng) -> Options {
        let mut weight = |most| if rng.percent(75) { rng.between(1, most) } else { 0 };
        let weights = Weights {
            kill: weight(12),
            stop: weight(3),
            fail_write: weight(3),
            disk_full: weight(3),
            stall: weight(6),
            sink_away: weight(4),
            clock: weight(4),
            resets: weight(6),
        };
        let window_ms = rng.pick(&[8_000, 12_000, 20_000]);
        let windows_ms = if rng.percent(50) { vec![window_ms] } else { vec![window_ms, window_ms * 2, window_ms / 2] };
        let mut options = Options {
            clients: rng.between(2, 6) as usize,
            load_ns: rng.between(5_000, 20_000) * MS,
            act_every_ns: rng.pick(&[30, 80, 200]) * MS,
            fault_every_ns: rng.pick(&[0, 700, 2_000, 2_000, 5_000, 5_000]) * MS,
            weights,
            rows_max: rng.pick(&[48, 200, 4_000]),
            users_max: rng.pick(&[64, 4_000]),
            write_ns_max: rng.pick(&[300_000, 10 * MS, 80 * MS]),
            commit_ns_max: rng.pick(&[MS, 20 * MS, 800 * MS]),
            doubt_percent: rng.pick(&[0, 0, 10, 40]),
            slow_percent: rng.pick(&[0, 5, 30]),
            drip_percent: rng.pick(&[1, 3, 25]),
            receive_buffers: usize::MAX,
            large_percent: rng.pick(&[10, 20, 70]),
            shared_percent: rng.pick(&[0, 0, 5, 50]),
            staging_bytes_max: rng.pick(&[6 << 10, STAGING_BYTES_ENOUGH, STAGING_BYTES_ENOUGH]),
            crowded: rng.percent(4),
            short_log: rng.percent(6),
            windows_ms,
            commit_spacing_us: rng.pick(&[0, 200, 2_000]),
            cores: draw_cores(rng),
            chunk_bytes: rng.pick(&[64, 400, 4_000]),
            chunks_a_way: rng.pick(&[1, 1, 2, 8]),
            parcel_ns_max: rng.pick(&[20_000, 2 * MS, 50 * MS]),
            remote: rng.percent(50),
            neighbour: rng.percent(60),
            global: rng.percent(60),
            rewinds: rng.percent(12),
            hours: if rng.percent(5) { rng.between(1, 24) } else { 0 },
            restarts: 0,
            clones: rng.percent(24),
        };
        if options.drip_percent == 25 && options.slow_percent == 30 {
            options.receive_buffers = 2;
        }
        // Whoever goes without one of these shall not get clones for it.
        options.clones &= options.remote && !options.rewinds;
        options
    }

    /// Takes away what these names of [`SIMPLER`] say.
    pub fn without(&mut self, names: &[&str]) {
        for name in names {
            let known = SIMPLER.iter().find(|(simpler, _)| simpler == name);
            let known =
                known.unwrap_or_else(|| panic!("nothing is called `{name}`, but {:?}", SIMPLER.map(|all| all.0)));
            known.1(self);
        }
    }

    /// Nothing goes wrong by itself; small segments' worth of clicks, restarts with other numbers of cores, so that each kind of point at
    /// which a process may be stopped comes often.
    pub fn quiet(remote: bool) -> Options {
        let weights =
            Weights { kill: 0, stop: 0, fail_write: 0, disk_full: 0, stall: 0, sink_away: 0, clock: 0, resets: 0 };
        Options {
            clients: 3,
            load_ns: 16_000 * MS,
            act_every_ns: 120 * MS,
            fault_every_ns: 0,
            weights,
            rows_max: 200,
            users_max: 4_000,
            write_ns_max: 10 * MS,
            commit_ns_max: 20 * MS,
            doubt_percent: 0,
            slow_percent: 0,
            drip_percent: 1,
            receive_buffers: usize::MAX,
            large_percent: 40,
            shared_percent: 5,
            staging_bytes_max: STAGING_BYTES_ENOUGH,
            crowded: false,
            short_log: false,
            windows_ms: vec![8_000],
            commit_spacing_us: 2_000,
            cores: vec![3, 3, 2, 1, 1],
            chunk_bytes: 4_000,
            chunks_a_way: 2,
            parcel_ns_max: 2 * MS,
            remote,
            neighbour: false,
            global: true,
            rewinds: false,
            hours: 0,
            restarts: 4,
            clones: false,
        }
    }

    /// The wall clock never leaps.
    pub fn clock_is_right(&self) -> bool {
        self.fault_every_ns == 0 || self.weights.clock == 0
    }

    /// Keys are remembered for at least so long after their click was accepted; 0 where memory or log may cut it short.
    pub fn remembered_ms(&self) -> i64 {
        let least = self.windows_ms.iter().min().copied().unwrap_or(0);
        if self.crowded || self.short_log { 0 } else { least - least / 16 }
    }

    /// No click that is younger is too old, where the clock is right.
    pub fn fresh_ms(&self) -> i64 {
        if self.clock_is_right() { self.remembered_ms() } else { 0 }
    }

    /// The smallest limits that hold together, so that every full pool is reached.
    pub fn config(&self, cores: u16, window_ms: i64) -> Config {
        let mesh = MeshConfig {
            chunk_bytes: self.chunk_bytes,
            chunks: self.chunks_a_way,
            chunks_a_way_min: self.chunks_a_way,
            chunks_a_way_max: self.chunks_a_way,
        };
        let mut config = Config { cpus: (0..usize::from(cores)).collect(), mesh, ..Config::default() };
        config.http.connections_max = (SLOTS - 2).max(4 * u32::from(cores));
        config.http.head_bytes_max = 2 << 10;
        config.http.body_bytes_max = 6 << 10;
        config.http.batch_clicks_max = BATCH_MAX;
        config.http.pipeline_max = 6;
        config.http.reply_bytes_max = 4 << 10;
        config.http.assembly_bytes_max = 28 << 10;
        // Room for two of the largest is there in any case.
        config.http.parked_bytes_max = 0;
        config.http.staging_bytes_max = self.staging_bytes_max;
        config.http.head_timeout_ms = 2_000;
        config.http.body_timeout_ms = 3_000;
        config.http.idle_timeout_ms = 10_000;
        config.http.send_timeout_ms = 2_000;
        config.http.linger_timeout_ms = 500;
        config.click.clock_skew_ms = SKEW_MS;
        config.log.frame_bytes = 8 << 10;
        config.log.segment_bytes = 64 << 10;
        config.log.commit_spacing_us = self.commit_spacing_us;
        config.log.dead_letter_bytes_max = 48 << 10;
        config.dedup =
            DedupConfig { window_ms, window_min_ms: window_ms / 4, memory_bytes: u64::from(cores) * (8 << 20) };
        config.export.watermark_delay_ms = 1_000;
        config
    }
}

/// One core, some, or another number at every start: logs become idle, and are gone on with.
fn draw_cores(rng: &mut Rng) -> Vec<u16> {
    let most = rng.between(2, u64::from(CORES_MAX)) as u16;
    match rng.below(10) {
        0..=2 => vec![1],
        3..=4 => vec![most],
        _ => (1..=most).collect(),
    }
}

/// More than clients ever have on their way.
const STAGING_BYTES_ENOUGH: u64 = 12 << 20;
/// How far the clocks may part.
pub const SKEW_MS: i64 = 2_000;
pub const CORES_MAX: u16 = 4;
/// Connections of a core's driver's table.
pub const SLOTS: u32 = 10;
/// Clicks in one request.
pub const BATCH_MAX: u32 = 48;
