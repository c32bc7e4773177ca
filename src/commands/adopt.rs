//! `tollgate adopt`: the operator's way on where the checkpoint in Kafka and a data directory contradict each other. It says what
//! was found and what each way would mean in clicks; with --yes it writes the word into the mirror, which the next start follows
//! once. Takes the directory's lock, and fences nobody.

mod text;

use std::io::Write;
use std::path::Path;

use super::halted;
use super::wal::{CommandError, logs_of};
use crate::config::KafkaConfig;
use crate::cut::{LogId, Totals, parse_log_id};
use crate::exit::Exit;
use crate::export::SinkError;
use crate::export::adoption::{Began, Conflict, Held, Mark, Plan, Seen, Verdict, Way};
use crate::export::kafka::{Client, look as look_into_kafka};
use crate::export::mirror::{self, MirrorFile, Place};
use crate::wal::record::Record;
use crate::wal::recover::{Progress, walk_log};
use crate::wal::replay::{ReplayedFrame, hex, totals_with};
use crate::wal::segments::{DataDir, LogDir, read_identity};

/// What the command line says.
pub struct Asked<'a> {
    pub from: &'a [String],
    pub yes: bool,
    pub now_ms: i64,
}

/// `--from`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    /// What is right, where that is known.
    Unsaid,
    /// A way by its name.
    Word(String),
    Places(Vec<(LogId, u64)>),
}

/// What was found, and the directory as it is.
struct Found {
    seen: Seen,
    mirror: Option<MirrorFile>,
    place: Place,
}

pub fn run(dir: &Path, kafka: &KafkaConfig, asked: &Asked<'_>, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let from = From::read(asked.from).map_err(CommandError::Refused)?;
    let logs = logs_of(dir)?;
    let _lock = DataDir::open(dir)?;
    let Found { seen, mirror, place } = look(dir, &logs, kafka, &from)?;
    text::facts(&seen, &place, mirror.as_ref().map(|mirror| &mirror.place), asked.now_ms, out)?;
    if from == From::Unsaid && seen.followed() {
        writeln!(
            out,
            "\nThis was adopted before, and the next start follows it. Nothing was changed; --from changes it"
        )?;
        return Ok(Exit::Clean);
    }
    let Verdict::Contradicts(plan) = seen.judge() else {
        writeln!(out, "\nNothing is contradictory: start the edge. Nothing was changed")?;
        return Ok(Exit::Clean);
    };
    text::conflict(&seen, &plan, out)?;
    let way = chosen(&seen, &plan, &from)?;
    text::ways(&seen, &plan, way.as_ref(), out)?;
    let Some(way) = way else {
        let text = "which way is right cannot be told from here: choose one with --from".to_owned();
        if asked.yes {
            return Err(CommandError::Refused(text));
        }
        writeln!(out, "\nNothing was changed: {text}, and --yes")?;
        return Ok(Exit::Clean);
    };
    if !asked.yes {
        writeln!(out, "\nNothing was changed. To go on like this, run it again with {} --yes", text::flags(&way))?;
        return Ok(Exit::Clean);
    }
    let mut file = mirror.unwrap_or_else(|| MirrorFile::new(place.clone()));
    file.place = place;
    file.adopt(&seen.word(&way));
    if seen.has_forked(&plan.conflict) {
        for log in &seen.logs {
            let name = new_name()?;
            file.rename(&log.log_id, &name);
            let (log, name) = (hex(&log.log_id), hex(&name));
            writeln!(out, "\nThe other one exported as log {log} too: from here on this one is exported as {name}")?;
        }
    }
    file.write(dir)?;
    writeln!(out, "\nwritten: {}. The next start goes on like this", mirror::path(dir).display())?;
    Ok(Exit::Clean)
}

/// The caller holds the directory's lock.
fn look(dir: &Path, logs: &[LogDir], kafka: &KafkaConfig, from: &From) -> Result<Found, CommandError> {
    let refused = |why: &str| CommandError::Refused(format!("{} {why}", dir.display()));
    let identity = read_identity(dir)?.ok_or_else(|| refused("has no identity.toml: nothing was exported from it"))?;
    if dir.join("store.redb").is_file() {
        return Err(refused("exports to its own store; adopt is for Kafka"));
    }
    let data_dir = parse_log_id(&identity.uuid).ok_or_else(|| {
        let text = format!("{}: the uuid in identity.toml is not 32 hexadecimal digits", dir.display());
        CommandError::Halted(Exit::DataDir, text)
    })?;
    let mirror = MirrorFile::read(dir)?;
    let client = Client::new(kafka).map_err(|error| CommandError::Refused(error.to_string()))?;
    let remembered = mirror.as_ref().map(|mirror| &mirror.place);
    let (place, found) = look_into_kafka(&client, &identity.edge_id, remembered).map_err(unread)?;
    let names = mirror.as_ref().map(MirrorFile::names).unwrap_or_default();
    let found = found.map(|found| names.inside(&found));
    let mut seen = Seen {
        edge_id: identity.edge_id,
        data_dir,
        logs: Vec::new(),
        remembered: mirror.as_ref().and_then(MirrorFile::checkpoint),
        adopted: mirror.as_ref().and_then(MirrorFile::adopted),
        found,
        moved: remembered.is_some_and(|remembered| !same(remembered, &place)),
    };
    for log in logs {
        let held = held(log, &named_lsns(&seen, from, &log.log_id), dir)?;
        seen.logs.push(held);
    }
    Ok(Found { seen, mirror, place })
}

/// That nobody else has.
fn new_name() -> Result<LogId, CommandError> {
    let mut name = LogId::default();
    let drawn = rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty());
    let refused = |error| CommandError::Refused(format!("the kernel gives no randomness: {error}"));
    drawn.map(|_| name).map_err(refused)
}

fn same(remembered: &Place, place: &Place) -> bool {
    (&remembered.cluster, &remembered.topic_partials, &remembered.topic_checkpoints)
        == (&place.cluster, &place.topic_partials, &place.topic_checkpoints)
}

fn unread(error: SinkError) -> CommandError {
    let (SinkError::Unreachable(text) | SinkError::Broken(text) | SinkError::Foreign(text)) = error;
    CommandError::Halted(
        Exit::Kafka,
        format!("{text}. Nothing was changed: without Kafka's answer nothing can be said"),
    )
}

impl From {
    fn read(words: &[String]) -> Result<From, String> {
        const NAMES: [&str; 3] = ["exported", "found", "start"];
        let place = |word: &String| {
            let (log, lsn) = word.split_once(':')?;
            Some((parse_log_id(log)?, lsn.parse().ok()?))
        };
        match words {
            [] => Ok(From::Unsaid),
            [word] if NAMES.contains(&word.as_str()) => Ok(From::Word(word.clone())),
            words => words.iter().map(place).collect::<Option<Vec<_>>>().map(From::Places).ok_or_else(|| {
                format!("--from {}: it is exported, found, start, or LOG:LSN once for each log", words.join(" --from "))
            }),
        }
    }
}

/// The way that is asked for; without a word, the right one.
fn chosen(seen: &Seen, plan: &Plan, from: &From) -> Result<Option<Way>, CommandError> {
    match from {
        From::Unsaid => Ok(plan.right.map(|right| plan.ways[right].clone())),
        From::Word(word) => {
            let way = plan.ways.iter().find(|way| way.from.as_slice() == std::slice::from_ref(word));
            let why = match (word.as_str(), &plan.conflict) {
                ("exported", _) => "this directory remembers no place that is in its logs",
                ("found", Conflict::Moved) => "nothing was found there that is of these logs",
                _ => "what was found is no place in these logs",
            };
            way.cloned().map(Some).ok_or_else(|| CommandError::Refused(format!("--from {word}: {why}")))
        }
        From::Places(places) => seen.way_at(&plan.conflict, places).map(Some).map_err(CommandError::Refused),
    }
}

/// The LSNs of a log at which it is asked where frames end.
fn named_lsns(seen: &Seen, from: &From, log: &LogId) -> Vec<u64> {
    let checkpoints = seen.found.iter().chain(&seen.remembered).flat_map(|checkpoint| &checkpoint.logs);
    let listed = checkpoints.filter(|listed| *listed.log_uuid == *log).map(|listed| listed.lsn);
    let places = match from {
        From::Unsaid | From::Word(_) => &[][..],
        From::Places(places) => places,
    };
    listed.chain(places.iter().filter(|(id, _)| id == log).map(|(_, lsn)| *lsn)).collect()
}

/// Reads a log through; changes nothing.
fn held(log: &LogDir, lsns: &[u64], dir: &Path) -> Result<Held, CommandError> {
    let (mut base, mut end) = (None, Mark::default());
    let (mut began, mut marks) = (Vec::new(), Vec::new());
    let mut each = |frame: &ReplayedFrame<'_>| {
        let header = &frame.header;
        let own = totals_with(Totals::default(), &frame.records).clicks;
        let before = Mark {
            lsn: header.first_lsn - 1,
            chain: header.previous_chain,
            clicks: header.totals.clicks.saturating_sub(own),
        };
        base.get_or_insert(before);
        for record in &frame.records {
            if let Record::Start(start) = record {
                let (nonce, incarnation, started_ms) = (start.nonce, start.incarnation, start.started_ms);
                began.push(Began { before, nonce, incarnation, started_ms });
            }
        }
        end = Mark { lsn: header.last_lsn(), chain: frame.chain, clicks: header.totals.clicks };
        if lsns.iter().any(|lsn| (before.lsn..=end.lsn).contains(lsn)) {
            marks.extend([before, end]);
        }
    };
    let mut progress = Progress::default();
    let walked = walk_log(log, None, &mut progress, &mut |_| {}, &mut |_, _, frame| each(frame));
    let walked = walked.map_err(|error| halted(error, dir))?;
    Ok(Held {
        log_id: log.log_id,
        base: base.unwrap_or(end),
        end,
        began,
        nonces: walked.nonces.iter().copied().collect(),
        marks,
        repaired: !walked.repairs.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_go_on_is_a_word_or_places() {
        let words = |words: &[&str]| From::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        assert_eq!(words(&[]), Ok(From::Unsaid));
        assert_eq!(words(&["found"]), Ok(From::Word("found".to_owned())));
        let places = Ok(From::Places(vec![([1; 16], 7), ([2; 16], 0)]));
        assert_eq!(words(&[&format!("{one}:7"), &format!("{two}:0")]), places);
        for bad in [&["here"][..], &["found", "start"], &["01:7"], &[&format!("{one}:x")], &[&one]] {
            let error = words(bad).expect_err("refused");
            assert!(error.contains(bad[0]) && error.contains("LOG:LSN"), "{error}");
        }
    }
}
