//! Pure. What a log is called outside of its host: its id, until an operator adopts a directory whose log had a twin that exported. By
//! that id an LSN would then name two records, so from there on this one goes by a new name. On the host, and in its own files, it
//! keeps its id.

use crate::cut::LogId;
use tollgate_wire::{Checkpoint, LogPosition};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// A log, and a name that it was given; the last one counts.
    given: Vec<(LogId, LogId)>,
}

impl Names {
    pub fn new(given: Vec<(LogId, LogId)>) -> Names {
        Names { given }
    }

    pub fn of(&self, log: &LogId) -> LogId {
        self.given.iter().rev().find(|(given, _)| given == log).map_or(*log, |(_, name)| *name)
    }

    /// The log that goes, or once went, by this name. One that was never given is an id.
    pub fn log(&self, name: &[u8]) -> Option<LogId> {
        let given = self.given.iter().find(|(_, given)| given == name).map(|(log, _)| *log);
        given.or_else(|| LogId::try_from(name).ok())
    }

    /// As it is stored outside.
    pub fn outside(&self, checkpoint: &Checkpoint) -> Checkpoint {
        self.renamed(checkpoint, |uuid| Some(self.of(&LogId::try_from(uuid).ok()?)))
    }

    /// As this host knows it.
    pub fn inside(&self, checkpoint: &Checkpoint) -> Checkpoint {
        self.renamed(checkpoint, |uuid| self.log(uuid))
    }

    fn renamed(&self, checkpoint: &Checkpoint, name: impl Fn(&[u8]) -> Option<LogId>) -> Checkpoint {
        let position = |listed: &LogPosition| {
            let log_uuid = name(&listed.log_uuid).map_or_else(|| listed.log_uuid.clone(), |name| name.to_vec());
            LogPosition { log_uuid, ..listed.clone() }
        };
        Checkpoint { logs: checkpoint.logs.iter().map(position).collect(), ..checkpoint.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_by_its_last_name_and_is_known_by_all_of_them() {
        let (log, other, once, now) = ([1; 16], [2; 16], [3; 16], [4; 16]);
        let names = Names::new(vec![(log, once), (log, now)]);
        assert_eq!((names.of(&log), names.of(&other)), (now, other));
        let known = [log, once, now, other].map(|name| names.log(&name));
        assert_eq!(known, [log, log, log, other].map(Some));
        assert_eq!(names.log(b"short"), None);
        let listed = |log: &[u8]| LogPosition { log_uuid: log.to_vec(), lsn: 7, chain: 8, clicks_total: 9 };
        let with =
            |logs: &[&[u8]]| Checkpoint { logs: logs.iter().map(|log| listed(log)).collect(), ..Checkpoint::default() };
        let (inside, outside) = (with(&[&log, &other, b"short"]), with(&[&now, &other, b"short"]));
        assert_eq!((names.outside(&inside), names.inside(&outside)), (outside, inside));
    }
}
