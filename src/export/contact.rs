//! Pure. What the exporter makes of a checkpoint that it read: at the first contact whether it is one that this host's logs can
//! have led to, after a doubt whether a transaction is in, and each hour whether it is still there.

use crate::cut::Position;
use crate::event::Now;
use crate::export::exporter::{CHECK_NS, Exporter, State};
use crate::export::ranges::{Adopted, Mirror};
use crate::export::{Found, Halt, SinkError, compare};
use tollgate_wire::Checkpoint;

/// The hourly look is taken again so soon after one that found the sink away.
const CHECK_AGAIN_NS: u64 = 60_000_000_000;

impl Exporter {
    pub(super) fn checkpoint_read(
        &mut self,
        read: Result<Option<Checkpoint>, SinkError>,
        now: Now,
    ) -> Result<(), Halt> {
        let checking = self.state == State::Checking;
        assert!(checking || self.state == State::Reading, "a checkpoint nobody asked for");
        let found = match read {
            Ok(found) => found,
            Err(SinkError::Broken(why)) => return Err(Halt::Sink(why)),
            Err(SinkError::Foreign(why)) => return Err(Halt::ForeignSink(why)),
            Err(SinkError::Unreachable(_)) if checking => {
                self.check_at_ns = now.mono_ns.saturating_add(CHECK_AGAIN_NS);
                self.state = State::Ready;
                return Ok(());
            }
            Err(SinkError::Unreachable(_)) => {
                self.retry_later(now);
                return Ok(());
            }
        };
        match &self.known {
            Some(known) if checking && *known == found => {
                self.check_at_ns = now.mono_ns.saturating_add(CHECK_NS);
                self.state = State::Ready;
                Ok(())
            }
            Some(known) => self.settle(*known == found, found, now),
            None => self.compare(found),
        }
    }

    pub(super) fn remembered(&mut self, result: Result<(), String>) -> Result<(), Halt> {
        assert!(self.remembering, "nothing was to be remembered");
        (self.remembering, self.unremembered) = (false, false);
        result.map_err(Halt::Mirror)
    }

    /// First contact of this incarnation, twice, without and with a fence: whether the checkpoint is one that our logs can have
    /// led to.
    fn compare(&mut self, found: Option<Checkpoint>) -> Result<(), Halt> {
        if self.adopted(found.as_ref()).is_some() {
            return self.agreed(found);
        }
        if let Some(checkpoint) = &found {
            compare::owner(&self.start, checkpoint)?;
        }
        // An older one than is remembered may be what is seen while a commit settles: the look behind the fence decides.
        let seq = found.as_ref().map_or(0, |checkpoint| checkpoint.txn_seq);
        if !self.peeked && seq < self.start.mirror.txn_seq() {
            return self.agreed(found);
        }
        compare::mirror(&self.start, found.as_ref())?;
        compare::listed_logs(&self.start, found.as_ref())?;
        match found {
            Some(checkpoint) if !compare::positions(&checkpoint).is_empty() => {
                self.state = State::Compared(Box::new(checkpoint));
                Ok(())
            }
            found => self.agreed(found),
        }
    }

    /// The operator's word, if it is about this checkpoint.
    fn adopted(&self, found: Option<&Checkpoint>) -> Option<&Adopted> {
        let Mirror::Kept { adopted: Some(adopted), .. } = &self.start.mirror else { return None };
        (found.map(|checkpoint| checkpoint.txn_seq) == adopted.found).then_some(adopted)
    }

    pub(super) fn looked_up(&mut self, found: Result<Vec<Found>, String>) -> Result<(), Halt> {
        let State::LookingUp(checkpoint) = &self.state else { panic!("a look-up nobody asked for") };
        let checkpoint = Checkpoint::clone(checkpoint);
        let found = found.map_err(Halt::Log)?;
        compare::chains(&checkpoint, &found)?;
        self.agreed(Some(checkpoint))
    }

    /// The checkpoint and the logs agree: nobody may write under it but us, and what lies behind it is to be exported.
    fn agreed(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), Halt> {
        if !self.peeked {
            self.peeked = true;
            self.state = State::Unknown { retry_ns: 0 };
            return Ok(());
        }
        let adopted = self.adopted(checkpoint.as_ref()).map(|adopted| adopted.logs.clone());
        let listed_logs = match (&adopted, &checkpoint) {
            (Some(logs), _) => &logs[..],
            (None, Some(checkpoint)) => &checkpoint.logs[..],
            (None, None) => &[],
        };
        for log in self.logs.values_mut() {
            let listed = listed_logs.iter().find(|listed| listed.log_uuid == log.id());
            let (lsn, chain, clicks) =
                listed.map_or((0, 0, 0), |listed| (listed.lsn, listed.chain, listed.clicks_total));
            log.resume(Position { log_id: log.id(), lsn, chain }, clicks)?;
        }
        // What an operator gave their word for is remembered once a transaction of ours has followed it.
        self.unremembered = adopted.is_none() && self.keeps_mirror();
        self.known = Some(checkpoint);
        self.state = State::Ready;
        Ok(())
    }

    /// What to do about a halt, with the sink that there is.
    pub fn way_out(&self, halt: &Halt) -> String {
        halt.way_out(self.keeps_mirror())
    }

    pub(super) fn keeps_mirror(&self) -> bool {
        matches!(self.start.mirror, Mirror::Kept { .. })
    }

    /// After a doubt: all of the transaction is in, or nothing of it, or somebody else writes here.
    fn settle(&mut self, unchanged: bool, found: Option<Checkpoint>, now: Now) -> Result<(), Halt> {
        let committed = self.sent.as_ref().is_some_and(|sent| found.as_ref() == Some(&sent.checkpoint));
        if committed {
            self.finish(now);
        } else if unchanged {
            self.sent = None;
            self.logs.values_mut().for_each(|log| log.sent = 0);
            self.bounds.doubted();
            self.state = State::Ready;
        } else {
            let seq = |checkpoint: &Checkpoint| checkpoint.txn_seq;
            let ours = self.known.iter().flatten().map(seq).next().unwrap_or(0);
            return Err(match found.as_ref().map(seq) {
                None => Halt::Vanished { ours },
                Some(found) if found < ours => Halt::Rewound { found, ours },
                Some(found) => Halt::Rival { found, ours },
            });
        }
        Ok(())
    }
}
