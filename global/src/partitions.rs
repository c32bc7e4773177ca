//! Pure. The partitions of the topic, as far as they were read, and what that says: how far windows may close, whose silence means something.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hearing::{Heard, Hearing};

/// How long a partition that has more may give nothing before the client is made anew: one was seen that asked for ever with an epoch
/// that no broker knew, after its broker had been killed.
pub const STANDSTILL: Duration = Duration::from_secs(30);
/// A partition that is at its end is heard for so long though no look has time to ask it: two looks.
const TRUSTED_MS: i64 = 10_000;

/// One partition, as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Partition {
    pub next_offset: i64,
    /// Everything that is committed of it was read.
    pub at_end: bool,
    /// The highest that an edge in it claimed.
    pub watermark_ms: Option<i64>,
    pub heard: Heard,
    high: Option<i64>,
    /// Where the client said last that it ends. It says so once, also where the partition has no leader for a while after that.
    ended_at: Option<i64>,
    /// How far it was when it was looked at, and since when it is no further though there is more.
    looked_at: i64,
    stands_since: Option<Instant>,
    /// Where it ended when it was asked, and when that was: once it is read to there, so is all that was committed until then. A partition
    /// that somebody always writes to may never say that it ends.
    asked: Option<(i64, i64)>,
    /// No look had time to ask since then.
    not_asked_since_ms: Option<i64>,
    /// It could be written to, and was read, since it was heard, as far as anybody asked.
    is_followed: bool,
    /// All that was committed when somebody asked was read once.
    was_read: bool,
    /// From here on the client gives what was read before, up to what is to be read next.
    again_from: Option<i64>,
}

impl Partition {
    pub fn new(next_offset: i64, watermark_ms: Option<i64>, now_ms: i64) -> Partition {
        Partition { next_offset, watermark_ms, heard: Heard::deaf_since(now_ms), ..Partition::default() }
    }

    /// Up to where it has records, as far as anybody ever said: a new leader may not know yet.
    pub fn high(&mut self, said: Option<i64>) -> Option<i64> {
        self.high = self.high.max(said);
        said.and(self.high)
    }

    /// Everything that is committed of it was read; what comes next will have this offset or a later one.
    pub fn ends(&mut self, next_offset: Option<i64>) {
        self.next_offset = self.next_offset.max(next_offset.unwrap_or(0));
        (self.at_end, self.ended_at) = (true, Some(self.next_offset));
        self.again_from = self.again_from.map(|from| next_offset.unwrap_or(from));
    }

    /// What stands at this offset was to be read next.
    pub fn takes(&mut self, offset: i64) {
        (self.next_offset, self.at_end, self.again_from) = (offset + 1, false, None);
    }

    /// It is read from before what is to be read next.
    pub fn is_read_again(&mut self, from: i64) {
        self.again_from = Some(from);
    }

    /// It gave something, of what was read before: it does not stand still.
    pub fn gives(&mut self, offset: i64) {
        self.stands_since = None;
        self.again_from = self.again_from.and(Some(offset + 1));
    }

    /// What a look that began at `at_ms` was told of where it ends; None: nobody answered.
    fn asks(&mut self, end: Option<i64>, at_ms: i64) {
        self.not_asked_since_ms = None;
        match end {
            None => (self.asked, self.is_followed) = (None, false),
            Some(end) => _ = self.asked.get_or_insert((end, at_ms)),
        }
    }

    /// Whether it was heard up to now, or to when. `is_committed`: the store knows of all that was read.
    fn listens(&mut self, now_ms: i64, idle_after_ms: i64, is_committed: bool) {
        let read = self.asked.filter(|(end, _)| self.next_offset >= *end);
        // A broker that went away meanwhile says nothing, as one where nothing is written.
        let trusted_to_ms = self.not_asked_since_ms.map_or(now_ms, |since_ms| now_ms.min(since_ms + TRUSTED_MS));
        let to_ms = if self.at_end { Some(trusted_to_ms) } else { read.map(|(_, at_ms)| at_ms) };
        let Some(to_ms) = to_ms.filter(|_| is_committed) else {
            return self.heard.is_deaf(now_ms);
        };
        let is_further = self.heard.to_ms.is_none_or(|heard_to_ms| to_ms > heard_to_ms);
        if self.is_followed {
            self.heard.was_heard_to(to_ms);
        }
        self.heard.hears(to_ms, idle_after_ms);
        if !self.at_end || to_ms < now_ms {
            self.heard.is_deaf(to_ms);
        }
        self.is_followed |= is_further;
        (self.asked, self.was_read) = (None, true);
    }

    /// Nothing is heard of it after `at_ms`; and what is asked after that is of after that.
    fn is_deaf(&mut self, at_ms: i64) {
        self.heard.is_deaf(at_ms);
        (self.asked, self.is_followed) = (None, false);
    }

    /// What a look found: it ends at `end`, or could not be asked. True: it has stood still for too long.
    fn looks(&mut self, end: Option<i64>, now: Instant) -> bool {
        let has_more = end.is_none_or(|end| end > self.next_offset);
        // A client may be given nothing of what is there.
        self.at_end = !has_more && (self.at_end || self.ended_at == Some(self.next_offset));
        let stands = has_more && self.next_offset == self.looked_at;
        self.looked_at = self.next_offset;
        self.stands_since = stands.then(|| self.stands_since.unwrap_or(now));
        self.stands_since.is_some_and(|since| now.duration_since(since) >= STANDSTILL)
    }
}

/// Partitions that are to give nothing for now, or to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Pause(Vec<i32>),
    Resume(Vec<i32>),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Partitions {
    pub all: BTreeMap<i32, Partition>,
    /// There are more, and nobody could say yet where to begin in them.
    pub some_unknown: bool,
    /// Something was read that is not committed yet.
    pub some_uncommitted: bool,
    /// Of edges whose last transaction stands in none of them.
    others: Heard,
    /// All others wait for what this one has begun: together they held too much.
    pub reads_alone: Option<i32>,
    /// Of those that were let go.
    before: BTreeMap<i32, Heard>,
}

impl Partitions {
    pub fn new(now_ms: i64) -> Partitions {
        Partitions { others: Heard::deaf_since(now_ms), ..Partitions::default() }
    }

    /// One is read from here on.
    pub fn begin(&mut self, partition: i32, next_offset: i64, watermark_ms: Option<i64>, now_ms: i64) {
        let mut state = Partition::new(next_offset, watermark_ms, now_ms);
        state.heard = self.before.remove(&partition).unwrap_or(state.heard);
        self.all.insert(partition, state);
    }

    /// The topic lacks what the client was to read next, in a partition that it does not name. True: where it was to read again what was
    /// read before, that is gone; `first` is what a partition still has. One that does not answer may be the one: it is begun again
    /// when it answers, and not before. What is gone stays so, and is not read again.
    pub fn lack_what_was_read(&self, mut first: impl FnMut(i32) -> Option<i64>) -> bool {
        let again = |state: &Partition| state.again_from.filter(|from| *from < state.next_offset);
        let mut again = self.all.iter().filter_map(|(&partition, state)| Some((partition, again(state)?)));
        again.any(|(partition, from)| first(partition).is_none_or(|first| first > from))
    }

    /// None is read until it is begun again.
    pub fn let_go(&mut self) {
        let kept = std::mem::take(&mut self.all).into_iter().map(|(partition, state)| (partition, state.heard));
        self.before.extend(kept);
        self.reads_alone = None;
    }

    /// Transactions that are not read to their end hold what they have in memory, `held` bytes by partition. Where that is over `max`
    /// together, one partition after the other is read until it has ended what it began.
    pub fn hold_back(&mut self, held: &BTreeMap<i32, usize>, max: usize) -> Option<Hold> {
        let total: usize = held.values().sum();
        let others = |alone: i32| self.all.keys().copied().filter(|of| *of != alone).collect();
        let is_read = |partition: &i32| self.all.get(partition).is_none_or(|state| state.at_end);
        match self.reads_alone {
            None if total > max => {
                // One that is at its end waits for an edge that has not ended its transaction there.
                let (&alone, _) =
                    held.iter().filter(|(of, bytes)| **bytes > 0 && !is_read(of)).max_by_key(|(_, bytes)| **bytes)?;
                let hold = Hold::Pause(others(alone));
                self.reads_alone = Some(alone);
                Some(hold)
            }
            Some(alone) if total <= max / 2 || held.get(&alone) == Some(&0) || is_read(&alone) => {
                let hold = Hold::Resume(others(alone));
                self.reads_alone = None;
                // They gave nothing because they were not to.
                self.all.values_mut().for_each(|state| state.stands_since = None);
                Some(hold)
            }
            None | Some(_) => None,
        }
    }

    /// What a look found of one. True: it is to be read by a new client. Not one that is held back: it gives nothing, as it should, while
    /// the one that all wait for is looked at.
    pub fn looks(&mut self, partition: i32, end: Option<i64>, now: Instant) -> bool {
        let is_read = self.reads_alone.is_none_or(|alone| alone == partition);
        self.all.get_mut(&partition).is_some_and(|state| state.looks(end, now)) && is_read
    }

    /// What a look that began at `at_ms` was told of where each ends. None: there was no time to ask; what was said before still holds.
    pub fn ask(&mut self, end: impl Fn(i32) -> Option<Option<i64>>, at_ms: i64) {
        for (&partition, state) in &mut self.all {
            match end(partition) {
                Some(end) => state.asks(end, at_ms),
                None => _ = state.not_asked_since_ms.get_or_insert(at_ms),
            }
        }
    }

    /// Each of them was, to where it ended when somebody asked.
    pub fn were_read(&self) -> bool {
        !self.some_unknown && self.all.values().all(|state| state.was_read)
    }

    pub fn are_read(&self) -> bool {
        !self.some_unknown && self.all.values().all(|state| state.at_end)
    }

    /// Windows close no further than what every partition that is behind has said; while Kafka is away, all are.
    pub fn closing_cap(&self, away: bool) -> Option<i64> {
        if self.all.is_empty() || self.some_unknown {
            return Some(i64::MIN);
        }
        let holds = |state: &&Partition| away || !state.at_end;
        self.all.values().filter(holds).map(|state| state.watermark_ms.unwrap_or(i64::MIN)).min()
    }

    /// Nobody looked since then: what came meanwhile is to be read first.
    pub fn were_deaf(&mut self, since_ms: i64) {
        self.others.is_deaf(since_ms);
        self.before.values_mut().for_each(|heard| heard.is_deaf(since_ms));
        for state in self.all.values_mut() {
            state.is_deaf(since_ms);
            state.at_end = false;
        }
    }

    /// From when to when edges could be heard. `away_since_ms`: Kafka does not answer since then.
    pub fn hearing(&mut self, away_since_ms: Option<i64>, now_ms: i64, idle_after_ms: i64) -> Hearing {
        let listen = |heard: &mut Heard, is_heard: bool| {
            if is_heard && away_since_ms.is_none() {
                heard.hears(now_ms, idle_after_ms);
            } else {
                heard.is_deaf(away_since_ms.unwrap_or(now_ms));
            }
        };
        listen(&mut self.others, !self.all.is_empty() && !self.some_unknown);
        for state in self.all.values_mut() {
            match away_since_ms {
                Some(since_ms) => state.is_deaf(since_ms),
                None => state.listens(now_ms, idle_after_ms, !self.some_uncommitted),
            }
        }
        self.before.values_mut().for_each(|heard| listen(heard, false));
        let read = self.all.iter().map(|(&partition, state)| (partition, state.heard));
        let partitions = self.before.iter().map(|(&partition, &heard)| (partition, heard)).chain(read).collect();
        Hearing { partitions: Arc::new(partitions), others: self.others, listened_ms: None }
    }
}

/// Who is asked where its partition ends. One that does not answer takes what time there is, so each look begins with those that were
/// not asked in the one before it.
#[derive(Debug, Default)]
pub struct Asking {
    next: usize,
    /// Who was asked and did not answer since one did.
    silent: BTreeSet<usize>,
}

impl Asking {
    /// Asks each partition in its turn, as long as `left` says that there is time; one without a leader cannot be asked. None: it did
    /// not answer. Those that there was no time for are missing, and the first of them begins the next look; so is one that the end of the
    /// time cut off, when it had had less than most of it.
    pub fn ask<T>(
        &mut self,
        led: &[bool],
        mut left: impl FnMut() -> Duration,
        mut ask: impl FnMut(i32, Duration) -> Option<T>,
    ) -> BTreeMap<i32, Option<T>> {
        let (most, mut answers, mut not_asked) = (left() * 4 / 5, BTreeMap::new(), None);
        for at in (0..led.len()).map(|nth| (self.next + nth) % led.len()) {
            if !led[at] {
                answers.insert(at as i32, None);
                continue;
            }
            let time = left();
            if not_asked.is_some() || time.is_zero() {
                not_asked.get_or_insert(at);
                continue;
            }
            let answer = ask(at as i32, time);
            if answer.is_some() {
                self.silent.clear();
            } else if time >= most || !left().is_zero() {
                self.silent.insert(at);
            } else {
                not_asked = Some(at);
                continue;
            }
            answers.insert(at as i32, answer);
        }
        self.next = not_asked.unwrap_or(self.next);
        answers
    }

    /// All that have a leader were asked since the last answer.
    pub fn nobody_answers(&self, led: &[bool]) -> bool {
        (0..).zip(led).all(|(at, led)| !led || self.silent.contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an edge has not said yet may be in a partition that is behind, or that nobody answers for.
    #[test]
    fn windows_close_no_further_than_what_partitions_that_are_behind_have_said() {
        let mut partitions = Partitions::new(0);
        assert_eq!(partitions.closing_cap(false), Some(i64::MIN), "nothing is known of any");
        let read = |watermark_ms| Partition { at_end: true, watermark_ms, ..Partition::default() };
        partitions.all = BTreeMap::from([(0, read(Some(5))), (1, read(Some(9)))]);
        assert_eq!((partitions.closing_cap(false), partitions.are_read()), (None, true));
        assert_eq!(partitions.closing_cap(true), Some(5), "nobody's silence is believed");
        partitions.all.get_mut(&1).expect("it is there").at_end = false;
        assert_eq!((partitions.closing_cap(false), partitions.are_read()), (Some(9), false));
        // One that was added, and of which nothing is read.
        partitions.all.insert(2, Partition::default());
        assert_eq!(partitions.closing_cap(false), Some(i64::MIN));
        partitions.all = BTreeMap::from([(0, read(Some(5)))]);
        partitions.some_unknown = true;
        assert_eq!((partitions.closing_cap(false), partitions.are_read()), (Some(i64::MIN), false));
    }

    /// Metadata may be answered, and fetches not.
    #[test]
    fn a_partition_that_has_more_and_gives_nothing_is_behind_and_its_edges_are_not_heard() {
        let (now, mut partitions) = (Instant::now(), Partitions::new(1_000));
        partitions.all.insert(0, Partition { at_end: true, watermark_ms: Some(7), ..Partition::new(5, None, 1_000) });
        let to_ms = |partitions: &mut Partitions, now_ms| partitions.hearing(None, now_ms, 30_000).of(Some(0)).to_ms;
        partitions.all.get_mut(&0).expect("it is there").looks(Some(5), now);
        assert_eq!((to_ms(&mut partitions, 2_000), partitions.closing_cap(false)), (None, None));
        partitions.all.get_mut(&0).expect("it is there").looks(Some(6), now);
        assert_eq!((to_ms(&mut partitions, 9_000), partitions.closing_cap(false)), (Some(9_000), Some(7)));
        assert_eq!(to_ms(&mut partitions, 99_000), Some(9_000));
        let state = partitions.all.get_mut(&0).expect("it is there");
        (state.next_offset, state.at_end) = (6, true);
        assert_eq!((to_ms(&mut partitions, 100_000), partitions.closing_cap(false)), (None, None));
        partitions.all.get_mut(&0).expect("it is there").looks(None, now);
        assert_eq!(
            (to_ms(&mut partitions, 101_000), partitions.closing_cap(false)),
            (Some(101_000), Some(7)),
            "no leader"
        );
        let state = partitions.all.get_mut(&0).expect("it is there");
        state.looks(Some(6), now);
        assert!(!state.at_end, "nobody has said that it ends there");
        state.ends(Some(6));
        for (end, at_end) in [(None, false), (Some(6), true), (Some(7), false), (Some(6), true)] {
            state.looks(end, now);
            assert_eq!(state.at_end, at_end, "as it was, with a leader again: {end:?}");
        }
    }

    /// What was counted may be deleted while it is read again; what is to be read next may not.
    #[test]
    fn a_topic_may_lack_what_was_read_and_nothing_else() {
        let mut partitions = Partitions::new(0);
        (0..3).for_each(|partition| partitions.begin(partition, 9, None, 0));
        let lack = |partitions: &Partitions, first: i64| {
            let mut asked = Vec::new();
            let lack = partitions.lack_what_was_read(|partition| {
                asked.push(partition);
                Some(first)
            });
            (lack, asked)
        };
        assert_eq!(lack(&partitions, 99), (false, vec![]), "each is read from what is to be read next");
        let state = |partitions: &mut Partitions| *partitions.all.get_mut(&1).expect("it is there");
        partitions.all.get_mut(&1).expect("it is there").is_read_again(5);
        let begun = state(&mut partitions);
        assert_eq!(lack(&partitions, 5), (false, vec![1]), "it has that: another one lacks what was not read");
        assert_eq!(lack(&partitions, 6), (true, vec![1]));
        assert!(partitions.lack_what_was_read(|_| None), "it is asked again where it is begun again");
        let after = |then: &dyn Fn(&mut Partition)| {
            let mut one = Partitions::new(0);
            one.all.insert(1, begun);
            then(one.all.get_mut(&1).expect("it is there"));
            lack(&one, 8)
        };
        assert_eq!(after(&|state| state.gives(6)), (true, vec![1]));
        assert_eq!(after(&|state| state.gives(7)), (false, vec![1]));
        assert_eq!(after(&|state| state.gives(8)), (false, vec![]), "what is to be read next comes next");
        assert_eq!(after(&|state| state.takes(9)), (false, vec![]));
        assert_eq!(after(&|state| state.ends(Some(9))), (false, vec![]));
        assert_eq!(after(&|state| state.ends(Some(7))), (true, vec![1]), "a new leader does not know of all yet");
        assert_eq!(after(&|state| state.ends(None)), (true, vec![1]));
        partitions.let_go();
        partitions.begin(1, 9, None, 0);
        assert_eq!(lack(&partitions, 8), (false, vec![]), "with a new client");
    }

    #[test]
    fn one_partition_is_read_alone_where_all_together_hold_too_much() {
        let mut partitions = Partitions::new(0);
        (0..3).for_each(|partition| partitions.begin(partition, 0, None, 0));
        let held = |bytes: [usize; 3]| (0..).zip(bytes).collect::<BTreeMap<i32, usize>>();
        assert_eq!(partitions.hold_back(&held([30, 40, 30]), 100), None);
        assert_eq!(partitions.hold_back(&held([31, 40, 30]), 100), Some(Hold::Pause(vec![0, 2])));
        assert_eq!(partitions.hold_back(&held([31, 90, 30]), 100), None, "it is the one that is read");
        assert_eq!(partitions.hold_back(&held([31, 0, 30]), 100), Some(Hold::Resume(vec![0, 2])), "it has ended");
        assert_eq!(partitions.hold_back(&held([61, 0, 60]), 100), Some(Hold::Pause(vec![1, 2])));
        assert_eq!(partitions.hold_back(&held([1, 0, 40]), 100), Some(Hold::Resume(vec![1, 2])), "there is room");
        // What is at its end waits for a transaction of somebody else's: it would wait for ever alone.
        partitions.all.get_mut(&2).expect("it is there").at_end = true;
        assert_eq!(partitions.hold_back(&held([20, 0, 90]), 100), Some(Hold::Pause(vec![1, 2])));
        partitions.all.values_mut().for_each(|state| state.at_end = true);
        assert_eq!(partitions.hold_back(&held([20, 0, 90]), 100), Some(Hold::Resume(vec![1, 2])));
        assert_eq!(partitions.hold_back(&held([20, 0, 90]), 100), None, "nobody can go on");
    }

    /// All wait for the one that is read alone: without a leader, or with a client that is stuck, they would wait for ever.
    #[test]
    fn one_that_is_read_alone_and_stands_is_seen_and_those_that_wait_do_not_stand() {
        let (begin, mut partitions) = (Instant::now(), Partitions::new(0));
        (0..2).for_each(|partition| partitions.begin(partition, 5, None, 0));
        let look = |partitions: &mut Partitions, seconds| {
            let now = begin + Duration::from_secs(seconds);
            [0, 1].map(|partition| partitions.looks(partition, Some(9), now))
        };
        assert_eq!(look(&mut partitions, 0), [false, false]);
        partitions.hold_back(&BTreeMap::from([(0, 9), (1, 8)]), 10);
        assert_eq!(partitions.reads_alone, Some(0));
        assert_eq!(look(&mut partitions, 5), [false, false]);
        assert_eq!(look(&mut partitions, 35), [true, false]);
        partitions.all.get_mut(&0).expect("it is there").next_offset = 8;
        partitions.hold_back(&BTreeMap::from([(0, 0), (1, 8)]), 10);
        assert_eq!(partitions.reads_alone, None);
        assert_eq!(look(&mut partitions, 36), [false, false], "it has just been resumed");
        assert_eq!(look(&mut partitions, 66), [false, true]);
    }

    /// Three of five do not answer, and each takes all the time that a look has.
    #[test]
    fn each_partition_is_asked_in_its_turn_though_some_take_all_the_time() {
        let mut asking = Asking::default();
        let mut look = |led: [bool; 5], dead: &[i32]| {
            let left = std::cell::Cell::new(Duration::from_secs(1));
            let answers = asking.ask(
                &led,
                || left.get(),
                |partition, timeout| {
                    let is_dead = dead.contains(&partition);
                    left.set(left.get() - if is_dead { timeout } else { Duration::ZERO });
                    (!is_dead).then_some(partition)
                },
            );
            let known = |(partition, answer): (i32, Option<i32>)| answer.map_or(-partition, |_| partition);
            (answers.into_iter().map(known).collect::<Vec<_>>(), asking.nobody_answers(&led))
        };
        let all = [true; 5];
        assert_eq!(look(all, &[1, 2, 4]), (vec![0, -1], false));
        assert_eq!(look(all, &[1, 2, 4]), (vec![-2], false));
        assert_eq!(look(all, &[1, 2, 4]), (vec![3, -4], false));
        assert_eq!(look(all, &[1, 2, 4]), (vec![0, -1], false), "from the beginning again");
        for dead in [-2, -3, -4] {
            assert_eq!(look(all, &[0, 1, 2, 3, 4]), (vec![dead], false));
        }
        assert_eq!(look(all, &[0, 1, 2, 3, 4]), (vec![0], true), "none did since one did");
        assert_eq!(
            look([true, true, false, true, false], &[3]),
            (vec![1, -2, -3, -4], false),
            "no leader, however late"
        );
        assert_eq!(look(all, &[]), (vec![0, 1, 2, 3, 4], false));
        assert_eq!(look([true, false, false, true, true], &[]), (vec![0, -1, -2, 3, 4], false), "at once");
        assert!(look([false; 5], &[]).1, "nobody is asked");
    }

    /// Twelve that take 85 ms each: a question that the end of a look cuts off is asked again, and says nothing.
    #[test]
    fn who_answers_is_never_told_as_silent_though_there_are_too_many_for_a_look() {
        let (mut asking, mut answered) = (Asking::default(), [0; 12]);
        for look in 1..=60 {
            let left = std::cell::Cell::new(Duration::from_secs(1));
            let answers = asking.ask(
                &[true; 12],
                || left.get(),
                |_, timeout| {
                    let takes = Duration::from_millis(85);
                    left.set(left.get().saturating_sub(takes));
                    (timeout >= takes).then_some(())
                },
            );
            answers.iter().for_each(|(&partition, answer)| answered[partition as usize] += i32::from(answer.is_some()));
            assert!(answers.values().all(Option::is_some) && !asking.nobody_answers(&[true; 12]));
            assert!(answered.iter().all(|times| *times >= look / 2), "{answered:?} in {look}");
        }
    }

    /// A new client is no news of an edge.
    #[test]
    fn what_was_heard_of_a_partition_outlives_its_client() {
        let mut partitions = Partitions::new(0);
        partitions.begin(0, 5, None, 0);
        partitions.all.get_mut(&0).expect("it is there").at_end = true;
        assert_eq!(partitions.hearing(None, 1_000, 9_000).of(Some(0)).to_ms, None);
        partitions.let_go();
        assert_eq!(partitions.closing_cap(false), Some(i64::MIN));
        assert_eq!(partitions.hearing(None, 50_000, 9_000).of(Some(0)).to_ms, Some(50_000));
        partitions.begin(0, 5, None, 51_000);
        partitions.all.get_mut(&0).expect("it is there").at_end = true;
        let hearing = partitions.hearing(None, 52_000, 9_000);
        assert_eq!((hearing.of(Some(0)).from_ms, hearing.of(Some(0)).to_ms), (0, None), "a blink");
    }

    #[test]
    fn while_kafka_is_away_nobody_is_heard() {
        let mut partitions = Partitions::new(1_000);
        assert_eq!(partitions.hearing(None, 5_000, 9).others.to_ms, Some(1_000), "nobody looked yet");
        partitions.all.insert(0, Partition { at_end: true, ..Partition::new(5, None, 5_000) });
        let hearing = partitions.hearing(None, 6_000, 9);
        assert_eq!((hearing.others.to_ms, hearing.of(Some(0)).to_ms), (None, None));
        let hearing = partitions.hearing(Some(50_000), 60_000, 9);
        assert_eq!((hearing.others.to_ms, hearing.of(Some(0)).to_ms), (Some(50_000), Some(50_000)));
    }

    #[test]
    fn a_partition_stands_still_when_it_has_more_and_gives_nothing() {
        let (begin, mut partition) = (Instant::now(), Partition::new(5, None, 0));
        let mut looks = |next_offset, end, seconds| {
            partition.next_offset = next_offset;
            partition.looks(Some(end), begin + Duration::from_secs(seconds))
        };
        assert!(!looks(5, 9, 0), "it was never looked at");
        assert!(!looks(5, 9, 5) && !looks(5, 9, 34) && looks(5, 9, 35));
        assert!(!looks(6, 9, 40) && !looks(6, 9, 45), "it goes on");
        assert!(!looks(6, 6, 100), "there is nothing more");
        assert!(!looks(6, 9, 105) && !looks(6, 9, 134) && looks(6, 9, 135));
    }

    /// Edges that commit all the time leave no moment in which there is nothing more: one that died would hold all windows open for ever.
    #[test]
    fn a_partition_that_never_ends_is_heard_up_to_when_it_was_asked() {
        let mut partitions = Partitions::new(0);
        partitions.begin(0, 0, None, 0);
        let mut offset = 0;
        let mut turn = |partitions: &mut Partitions, now_ms, away_ms: Option<i64>, is_led: bool| {
            if now_ms % 5_000 == 0 {
                partitions.ask(|_| Some(is_led.then_some(offset + 50)), now_ms - 100);
            }
            offset += 20;
            partitions.all.get_mut(&0).expect("it is there").next_offset = offset;
            partitions.hearing(away_ms, now_ms, 10_000).of(Some(0)).silence_ms(700, now_ms).0
        };
        let turns = |from_ms: i64, to_ms: i64| (from_ms..to_ms).step_by(1_000);
        let silent_ms = turns(1_000, 25_000).map(|now_ms| turn(&mut partitions, now_ms, None, true)).last();
        assert_eq!(silent_ms, Some(19_900 - 700), "as far as the last question that was read up to");
        assert!(!partitions.are_read() && partitions.were_read());
        partitions.some_uncommitted = true;
        turns(25_000, 35_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, None, true));
        assert_eq!(partitions.all[&0].heard.to_ms, Some(19_900), "who sent may be among what is not committed");
        partitions.some_uncommitted = false;
        turns(35_000, 45_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, None, true));
        // Nobody can send where there is no leader, or no Kafka; and nobody is heard by a process that is stopped.
        turns(45_000, 65_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, None, false));
        let since_ms = |partitions: &mut Partitions| partitions.all[&0].heard.from_ms;
        assert_eq!(since_ms(&mut partitions), 0);
        turns(65_000, 75_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, None, true));
        assert_eq!(since_ms(&mut partitions), 64_900);
        turns(75_000, 105_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, Some(75_000), true));
        turns(105_000, 115_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, None, true));
        assert_eq!(since_ms(&mut partitions), 104_900);
        partitions.were_deaf(115_000);
        turns(145_000, 155_000).for_each(|now_ms| _ = turn(&mut partitions, now_ms, None, true));
        assert_eq!(since_ms(&mut partitions), 144_900);
    }

    /// That somebody answers is no news of a partition that no look had time for since.
    #[test]
    fn an_outage_is_not_heard_over_where_nobody_was_asked_before_it() {
        let mut partitions = Partitions::new(0);
        partitions.begin(0, 0, None, 0);
        partitions.all.get_mut(&0).expect("it is there").at_end = true;
        let mut silent_ms = |now_ms: i64, away_ms: Option<i64>, end: Option<Option<i64>>| {
            partitions.ask(|_| end, now_ms);
            partitions.hearing(away_ms, now_ms, 30_000).of(Some(0)).silence_ms(15_000, now_ms).0
        };
        assert_eq!(
            [1_000, 6_000, 29_000].map(|now_ms| silent_ms(now_ms, None, (now_ms < 2_000).then_some(Some(0)))),
            [-14_000, -9_000, 1_000]
        );
        assert_eq!([31_000, 89_000].map(|now_ms| silent_ms(now_ms, Some(30_000), None)), [1_000, 1_000]);
        assert_eq!(silent_ms(90_000, None, None), 1_000);
        assert_eq!(silent_ms(96_000, None, Some(Some(0))), 0, "heard from now on");
    }

    /// One that does not answer takes the time of others, look after look.
    #[test]
    fn a_partition_that_there_was_no_time_to_ask_is_heard_up_to_the_question_before() {
        let mut partitions = Partitions::new(0);
        partitions.begin(0, 0, None, 0);
        let mut offset = 0;
        for now_ms in (1_000..=60_000).step_by(1_000) {
            if now_ms % 5_000 == 0 {
                let is_asked = now_ms % 10_000 == 0;
                partitions.ask(|_| is_asked.then_some(Some(offset + 110)), now_ms - 100);
            }
            offset += 20;
            partitions.all.get_mut(&0).expect("it is there").next_offset = offset;
            partitions.hearing(None, now_ms, 10_000);
        }
        let heard = partitions.all[&0].heard;
        assert_eq!((heard.from_ms, heard.to_ms), (9_900, Some(49_900)));
    }

    /// One whose broker went away may not be asked for long, where others do not answer either.
    #[test]
    fn a_partition_at_its_end_that_nobody_asks_is_soon_not_heard() {
        let mut partitions = Partitions::new(0);
        partitions.begin(0, 0, None, 0);
        let mut silent_ms = |now_ms: i64, end: Option<Option<i64>>| {
            partitions.all.get_mut(&0).expect("it is there").at_end = true;
            partitions.ask(|_| end, now_ms);
            partitions.hearing(None, now_ms, 30_000).of(Some(0)).silence_ms(0, now_ms).0
        };
        assert_eq!(silent_ms(5_000, Some(Some(0))), 5_000);
        assert_eq!(
            [10_000, 15_000, 20_000, 60_000].map(|now_ms| silent_ms(now_ms, None)),
            [10_000, 15_000, 20_000, 20_000]
        );
        assert_eq!(silent_ms(65_000, Some(Some(0))), 65_000, "it was quiet");
    }

    /// Between what is told and what is committed anybody may ask, or commit.
    #[test]
    fn what_came_in_a_short_stall_is_committed_before_anybody_is_silent() {
        let mut partitions = Partitions::new(0);
        partitions.begin(0, 0, None, 0);
        let mut heard_to = |now_ms, stalled_since_ms: Option<i64>, some_uncommitted| {
            stalled_since_ms.into_iter().for_each(|since_ms| partitions.were_deaf(since_ms));
            partitions.all.get_mut(&0).expect("it is there").at_end = true;
            partitions.some_uncommitted = some_uncommitted;
            partitions.hearing(None, now_ms, 30_000).of(Some(0)).silence_ms(0, now_ms).0
        };
        assert_eq!(heard_to(1_000, None, false), 1_000);
        assert_eq!(heard_to(28_000, None, false), 28_000);
        assert_eq!(heard_to(32_500, Some(28_000), true), 28_000, "who sent is not counted yet");
        assert_eq!(heard_to(32_600, None, false), 32_600);
    }
}
