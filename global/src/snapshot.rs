//! Reading the store at one moment: rows from the file, open panes from memory, and what belongs together of both.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use crate::catalogue::Catalogue;
use crate::edges::{Claims, EdgeState};
use crate::hearing::Hearing;
use crate::history::CorrectionsPage;
use crate::key::{self, Parts};
use crate::panes::Open;
use crate::progress::Progress;
use crate::question::{AsOf, Counts, Question, Scope, Subject, Top, TopAd, TopQuestion};
use crate::question_error::QuestionError;
use crate::records::{Edge, History};
use crate::sums::Sums;
use crate::tables::{
    EDGES, EachRow, StoreError, corrections_of, damaged_key, decode, next_bucket, rows_of, visit_rows,
};
use crate::tally::{Tally, window_of};
use crate::tops::{Ranking, Tops};
use crate::whose::{Ads, Whose};
use crate::window::{Grain, Window, floor};

/// Some clicks of one ad, pane and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    pub ad_id: &'a str,
    /// Start of the pane; where panes are pruned, of the minute or the hour.
    pub pane_start_ms: i64,
    pub class: u32,
    pub clicks: u64,
}

/// What of the store is in memory, after one commit. A new value is made at each.
#[derive(Clone)]
pub struct Moment {
    /// The commit that this belongs to.
    pub generation: i64,
    pub committed_ms: Option<i64>,
    /// Everything that the topic had was counted at some time, in this run or an earlier one.
    pub has_caught_up: bool,
    pub claims: Claims,
    pub progress: Progress,
    /// Clicks that were counted, ever, by class: whatever was pruned since.
    pub counted: BTreeMap<u32, u64>,
    pub open: Open,
    pub tops: Tops,
}

/// The file and the memory after the same commit. Reads block, and may take as long as the span asks for.
pub struct Snapshot {
    pub(crate) file: ReadTransaction,
    moment: Arc<Moment>,
    /// For the presence of edges: `--idle-after`, and since when anybody listens.
    idle: (i64, Hearing),
    /// Whom ads belong to, as of this moment.
    catalogue: Arc<Catalogue>,
}

impl Snapshot {
    pub(crate) fn new(
        file: ReadTransaction,
        moment: Arc<Moment>,
        idle: (i64, Hearing),
        catalogue: Arc<Catalogue>,
    ) -> Snapshot {
        Snapshot { file, moment, idle, catalogue }
    }

    /// Whom ads belong to in the answers of this snapshot.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub fn as_of(&self) -> AsOf {
        AsOf {
            generation: self.moment.generation,
            committed_ms: self.moment.committed_ms,
            watermark_ms: self.moment.claims.watermark_ms,
            marks: self.moment.progress.marks,
        }
    }

    /// What the edges claim to be complete up to: the smallest watermark of those that are live. None while one of them has
    /// claimed nothing.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.moment.claims.watermark_ms
    }

    pub fn progress(&self) -> &Progress {
        &self.moment.progress
    }

    /// Rows in the file.
    pub fn rows(&self, grain: Grain) -> Result<u64, StoreError> {
        let table = self.file.open_table(rows_of(grain)).map_err(redb::Error::from)?;
        Ok(table.len().map_err(redb::Error::from)?)
    }

    /// Clicks that were counted, ever, by class.
    pub fn counted(&self) -> &BTreeMap<u32, u64> {
        &self.moment.counted
    }

    /// What open panes take of memory.
    pub fn open_bytes(&self) -> usize {
        self.moment.open.bytes()
    }

    /// Every edge that ever sent something, by name.
    pub fn edges(&self, now_ms: i64) -> Result<Vec<EdgeState>, StoreError> {
        let (idle_after_ms, hearing) = &self.idle;
        let table = self.file.open_table(EDGES).map_err(redb::Error::from)?;
        let mut edges = Vec::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (edge_id, bytes) = entry.map_err(redb::Error::from)?;
            let edge: Edge = decode(bytes.value())?;
            edges.push(EdgeState::of(edge_id.value(), &edge, now_ms, *idle_after_ms, hearing));
        }
        Ok(edges)
    }

    /// Answers a question. The span of the answer may be wider than asked for: to windows of the granularity, and where panes
    /// or minutes are pruned, to what is kept. One that begins where nothing is kept is refused: what is left of it is no answer.
    pub fn count(&self, question: &Question) -> Result<Counts, QuestionError> {
        self.moment.progress.check(self.span_of(question), question.granularity)?;
        self.count_kept(question)
    }

    fn span_of(&self, question: &Question) -> Window {
        let span = self.moment.progress.widened(question.span);
        Question::widened(span.start_ms, span.end_ms, question.granularity)
    }

    /// What is kept of a question's span, whatever that lacks.
    fn count_kept(&self, question: &Question) -> Result<Counts, QuestionError> {
        let length_ms = question.granularity.map(|granularity| granularity.ms());
        let span = self.span_of(question);
        let mut tally = Tally::new(question, span);
        let whose = Whose::of(self)?;
        let ads = whose.ads(question)?;
        for (grain, part) in self.moment.progress.parts(span, length_ms) {
            let mut add =
                |row: &Parts<'_>, clicks: u64, users: &[u8]| tally.add(&self.catalogue.owned(row), clicks, users);
            self.visit(&ads, grain, part, &mut add)?;
        }
        if tally.too_wide {
            return Err(QuestionError::TooWide);
        }
        let corrections = self.corrections_by_window(&whose, &ads, question, span)?;
        Ok(tally.answer(self.as_of(), &corrections))
    }

    /// The ads with the most clicks of the last closed window.
    pub fn top(&self, question: &TopQuestion) -> Result<Top, QuestionError> {
        match self.top_in_memory(question)? {
            Some(top) => Ok(top),
            None => Ok(self.top_of(question, self.top_of_rows(question)?)),
        }
    }

    /// The same, where it is read from no row. None: it is a long read.
    pub fn top_in_memory(&self, question: &TopQuestion) -> Result<Option<Top>, QuestionError> {
        let tops = &self.moment.tops;
        let ads = tops.top(question, self.top_window(question), &self.catalogue);
        if ads.is_none() && !tops.is_warm() {
            return Err(QuestionError::NotYet);
        }
        Ok(ads.map(|ads| self.top_of(question, ads)))
    }

    fn top_of(&self, question: &TopQuestion, ads: Vec<TopAd>) -> Top {
        Top { window: self.top_window(question), ads, as_of: self.as_of() }
    }

    fn top_window(&self, question: &TopQuestion) -> Window {
        Tops::window(question.window, self.moment.progress.marks.closed_before_ms)
    }

    /// Where there is too much of the last hour for memory.
    fn top_of_rows(&self, question: &TopQuestion) -> Result<Vec<TopAd>, StoreError> {
        let window = self.top_window(question);
        let mut ranking = Ranking::new(question, self.moment.tops.pass_bytes_max());
        loop {
            self.visit(&Ads::Every, Grain::Pane, window, &mut |row, clicks, _| {
                let row = self.catalogue.owned(row);
                if question.takes(row.campaign_id, row.advertiser_id, row.region) {
                    ranking.add(row.ad_id, row.class, clicks);
                }
                Ok(())
            })?;
            if ranking.end_of_pass() {
                return Ok(ranking.best());
            }
        }
    }

    /// What was corrected after closing in minutes of the span, of an ad or, without one, of all: a page of it.
    pub fn history(&self, ad_id: Option<&str>, span: Window, limit: usize) -> Result<CorrectionsPage, StoreError> {
        let mut page = CorrectionsPage::new(limit);
        self.visit_history(Grain::Minute, ad_id.unwrap_or(""), span, &mut |minute, history| {
            page.take(minute, &history)
        })?;
        Ok(page)
    }

    /// Sums of one ad over panes in [from, to), of what is kept.
    pub fn ad(&self, ad_id: &str, from_ms: i64, to_ms: i64) -> Result<Sums, StoreError> {
        self.sums(Subject::Ad(ad_id.to_owned()), None, from_ms, to_ms)
    }

    /// Sums of all ads over panes in [from, to), of what is kept.
    pub fn totals(&self, from_ms: i64, to_ms: i64) -> Result<Sums, StoreError> {
        self.sums(Subject::All, None, from_ms, to_ms)
    }

    pub(crate) fn sums(
        &self,
        subject: Subject,
        scope: Option<Arc<Scope>>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Sums, StoreError> {
        let span = Window { start_ms: from_ms, end_ms: to_ms };
        let question = Question::of_a_sum(subject, scope, span);
        self.count_kept(&question).map(|counts| counts.total.sums).map_err(QuestionError::of_a_sum)
    }

    /// Shows each key's clicks to `visit`, all ads, at the finest grain that is kept, for the audit; a key comes once for its
    /// row and once for each commit that still holds it open.
    pub fn visit_counts(&self, mut visit: impl FnMut(Count<'_>)) -> Result<(), StoreError> {
        let progress = &self.moment.progress;
        let everything = Window { start_ms: i64::MIN, end_ms: i64::MAX };
        let (minutes_to, hours_to) = (progress.kept_from(Grain::Pane), progress.kept_from(Grain::Minute));
        let parts = [
            (Grain::Pane, Window { start_ms: minutes_to, ..everything }),
            (Grain::Minute, Window { start_ms: hours_to, end_ms: minutes_to }),
            (Grain::Hour, Window { end_ms: hours_to, ..everything }),
        ];
        for (grain, part) in parts {
            self.visit(&Ads::Every, grain, part, &mut |parts, clicks, _| {
                let Parts { ad_id, window_start_ms: pane_start_ms, class, .. } = *parts;
                visit(Count { ad_id, pane_start_ms, class, clicks });
                Ok(())
            })?;
        }
        Ok(())
    }

    pub(crate) fn moment(&self) -> &Moment {
        &self.moment
    }

    /// Shows all ads' rows of panes from here on.
    pub(crate) fn visit_recent(&self, from_ms: i64, each: &mut dyn FnMut(&Parts<'_>, u64)) -> Result<(), StoreError> {
        let recent = Window { start_ms: from_ms, end_ms: i64::MAX };
        self.visit(&Ads::Every, Grain::Pane, recent, &mut |row, clicks, _| {
            each(row, clicks);
            Ok(())
        })
    }

    /// Shows rows of a grain, and what is open of them, in windows that begin in `span`.
    fn visit(&self, ads: &Ads, grain: Grain, span: Window, each: EachRow<'_>) -> Result<(), StoreError> {
        if span.start_ms >= span.end_ms {
            return Ok(());
        }
        match ads {
            Ads::Every | Ads::Many => self.visit_every_ad(grain, span, each),
            Ads::These(ads) => ads.iter().try_for_each(|ad_id| self.visit_ad(ad_id, grain, span, each)),
        }
    }

    fn visit_ad(&self, ad_id: &str, grain: Grain, span: Window, each: EachRow<'_>) -> Result<(), StoreError> {
        if ad_id.len() > key::TEXT_BYTES_MAX {
            return Ok(());
        }
        let table = self.file.open_table(rows_of(grain)).map_err(redb::Error::from)?;
        let mut after = floor(span.start_ms, grain.bucket_ms());
        // Buckets that are there, one after the other: a span may be all of time.
        while let Some(bucket_ms) = next_bucket(&table, after)?.filter(|bucket_ms| *bucket_ms < span.end_ms) {
            let (first, end) = key::stored_range(bucket_ms, ad_id, span.start_ms, span.end_ms);
            visit_rows(&table, first.as_slice()..end.as_slice(), each)?;
            after = bucket_ms.saturating_add(grain.bucket_ms());
        }
        if grain == Grain::Pane {
            for entry in self.moment.open.entries_of(ad_id, span.start_ms, span.end_ms) {
                each(&Parts::read(entry.key).ok_or_else(damaged_key)?, entry.clicks, entry.users)?;
            }
        }
        Ok(())
    }

    fn visit_every_ad(&self, grain: Grain, span: Window, each: EachRow<'_>) -> Result<(), StoreError> {
        let mut of_span = |parts: &Parts<'_>, clicks: u64, users: &[u8]| {
            let wanted = !parts.ad_id.is_empty() && (span.start_ms..span.end_ms).contains(&parts.window_start_ms);
            if wanted { each(parts, clicks, users) } else { Ok(()) }
        };
        let table = self.file.open_table(rows_of(grain)).map_err(redb::Error::from)?;
        let first = key::bucket_start(floor(span.start_ms, grain.bucket_ms()));
        let end = key::bucket_start(span.end_ms);
        visit_rows(&table, first.as_slice()..end.as_slice(), &mut of_span)?;
        if grain == Grain::Pane {
            for entry in self.moment.open.entries() {
                of_span(&Parts::read(entry.key).ok_or_else(damaged_key)?, entry.clicks, entry.users)?;
            }
        }
        Ok(())
    }

    fn visit_history(&self, grain: Grain, ad_id: &str, span: Window, each: EachWindow<'_>) -> Result<(), StoreError> {
        let table = self.file.open_table(corrections_of(grain)).map_err(redb::Error::from)?;
        let (bucket_ms, length_ms) = (grain.bucket_ms(), grain.ms());
        let from_ms = floor(span.start_ms, length_ms);
        let mut after = floor(from_ms, bucket_ms);
        while let Some(bucket) = next_bucket(&table, after)?.filter(|bucket| *bucket < span.end_ms) {
            let (first, end) = key::stored_range(bucket, ad_id, from_ms, span.end_ms);
            for entry in table.range(first.as_slice()..end.as_slice()).map_err(redb::Error::from)? {
                let (stored, value) = entry.map_err(redb::Error::from)?;
                let start_ms = key::window_start(key::unstored(stored.value()).1);
                if each(Window::of(start_ms, length_ms), decode(value.value())?).is_break() {
                    return Ok(());
                }
            }
            after = bucket.saturating_add(bucket_ms);
        }
        Ok(())
    }

    /// Shows the history of a question's ads in one pass over that of all: it is there for corrected minutes alone.
    fn visit_history_of_many(
        &self,
        grain: Grain,
        span: Window,
        is_wanted: &mut dyn FnMut(&str) -> Result<bool, StoreError>,
        each: EachWindow<'_>,
    ) -> Result<(), StoreError> {
        let table = self.file.open_table(corrections_of(grain)).map_err(redb::Error::from)?;
        let from_ms = floor(span.start_ms, grain.ms());
        let first = key::bucket_start(floor(from_ms, grain.bucket_ms()));
        let end = key::bucket_start(span.end_ms);
        for entry in table.range(first.as_slice()..end.as_slice()).map_err(redb::Error::from)? {
            let (stored, value) = entry.map_err(redb::Error::from)?;
            let row_key = key::unstored(stored.value()).1;
            let start_ms = key::window_start(row_key);
            let ad_id = std::str::from_utf8(key::ad_id(row_key)).map_err(|_| damaged_key())?;
            // Those of all together are in the same table.
            let is_of_span = !ad_id.is_empty() && (from_ms..span.end_ms).contains(&start_ms);
            if is_of_span
                && is_wanted(ad_id)?
                && each(Window::of(start_ms, grain.ms()), decode(value.value())?).is_break()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How often the question's ads were corrected, by start of the window (of the span, without a granularity); nothing where that
    /// is not to be shown.
    fn corrections_by_window(
        &self,
        whose: &Whose<'_>,
        ads: &Ads,
        question: &Question,
        span: Window,
    ) -> Result<BTreeMap<i64, u64>, StoreError> {
        let mut found: BTreeMap<i64, u64> = BTreeMap::new();
        if !whose.shows_corrections(ads, question)? {
            return Ok(found);
        }
        let mut add = |corrected: Window, history: History| {
            let start_ms = window_of(question, span, corrected.start_ms).start_ms;
            *found.entry(start_ms).or_default() += history.corrections;
            ControlFlow::Continue(())
        };
        // Where minutes are pruned, windows are of whole hours.
        let kept_from_ms = self.moment.progress.kept_from(Grain::Minute);
        let hours = Window { end_ms: span.end_ms.min(kept_from_ms), ..span };
        let minutes = Window { start_ms: span.start_ms.max(kept_from_ms), ..span };
        for (grain, part) in [(Grain::Hour, hours), (Grain::Minute, minutes)] {
            match ads {
                Ads::Every => self.visit_history(grain, "", part, &mut add)?,
                Ads::Many => {
                    let mut is_wanted = |ad_id: &str| whose.is_corrected_for(question, ad_id);
                    self.visit_history_of_many(grain, part, &mut is_wanted, &mut add)?;
                }
                Ads::These(ads) => ads.iter().try_for_each(|ad_id| self.visit_history(grain, ad_id, part, &mut add))?,
            }
        }
        Ok(found)
    }
}

/// Breaks where it wants no more.
type EachWindow<'a> = &'a mut dyn FnMut(Window, History) -> ControlFlow<()>;
