//! Pure. How a core stops: connections finish what they have wholly received, then the last cut goes out. Each stage has a
//! deadline, so that a stop ends whatever its peers, the disk and the sink do.
//!
//!     Serving ──Stop──▶ Draining ──15 s──▶ Closing       all closed, nothing at another home: ──▶ AwaitingPeers
//!     AwaitingPeers ──the others are so far, all is on disk──▶ LastCut ──exported, and its idle logs──▶ Stopped
//!                                                        19 s: the process ends, and says what is left to do
//!                                                        (`--until-exported`: as long as it takes)

use super::idle::IdleLog;
use super::{Core, DRAIN_MAX_NS, Phase, STOP_MAX_NS};
use crate::event::{Action, Actions, Now, Patience};
use crate::exit::Exit;
use crate::wal::frame::FLAG_STOPPED;

impl Core {
    pub(super) fn stop(&mut self, patience: Patience, now: Now, actions: &mut Actions) {
        if self.phase == Phase::Serving {
            let end_ns = match patience {
                Patience::Deadline => now.mono_ns + STOP_MAX_NS,
                // The disk has its own watch.
                Patience::UntilExported => u64::MAX,
            };
            self.phase = Phase::Draining { until_ns: now.mono_ns + DRAIN_MAX_NS, end_ns };
            actions.push(Action::StopAccepting);
            let (lanes, mut intake) = self.receiving(now);
            lanes.begin_drain_all(&mut intake, actions);
        }
    }

    pub(super) fn progress_stop(&mut self, now: Now, actions: &mut Actions) {
        if let Phase::Draining { until_ns, end_ns } = self.phase
            && now.mono_ns >= until_ns
        {
            self.lanes.close_all(actions);
            self.phase = Phase::Closing { end_ns };
        }
        match self.phase {
            Phase::Serving | Phase::Stopped => {}
            Phase::Draining { end_ns, .. } | Phase::Closing { end_ns } => {
                if self.lanes.all_closed() && self.staging.is_empty() && self.outbound.is_empty() {
                    self.phase = Phase::AwaitingPeers { end_ns };
                    actions.push(Action::Done);
                    self.progress_stop(now, actions);
                } else if now.mono_ns >= end_ns {
                    self.give_up(actions);
                }
            }
            Phase::AwaitingPeers { end_ns } => {
                if self.peers_left == 0 && self.inbound.is_empty() && !self.home.writer.unwritten() {
                    self.phase = Phase::LastCut { end_ns };
                    self.home.cut(now, true);
                    self.home.seal(now, FLAG_STOPPED);
                    self.commit(true, now, actions);
                    self.home.hand_over(actions);
                } else if now.mono_ns >= end_ns {
                    self.give_up(actions);
                }
            }
            Phase::LastCut { end_ns } => {
                let exported = self.home.cuts.settled() && self.idle_logs.iter().all(IdleLog::settled);
                if exported && !self.home.writer.unwritten() {
                    self.phase = Phase::Stopped;
                    actions.push(Action::Stopped);
                } else if now.mono_ns >= end_ns {
                    self.give_up(actions);
                }
            }
        }
    }

    /// Whatever is acknowledged is on disk: ending here is as safe as a kill.
    fn give_up(&mut self, actions: &mut Actions) {
        let last_cut = matches!(self.phase, Phase::LastCut { .. });
        self.phase = Phase::Stopped;
        let (exit, why) = if last_cut && !self.home.writer.unwritten() {
            (
                Exit::Store,
                "the sink did not take the last cut in time; the log holds it. The next start exports it; to take this host out, \
                 `tollgate serve --until-exported` does, and waits for the sink",
            )
        } else {
            (
                Exit::Stuck,
                "the stop was not over in 19 s: the log waits for its disk, and what is not on it has no answer. Look at the disk (dmesg, SMART) and start again",
            )
        };
        actions.push(Action::Halt { exit, why: why.to_owned() });
    }
}
