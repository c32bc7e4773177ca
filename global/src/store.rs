//! The store of the global tier, one redb file: a commit is one blob, rows are written when their pane closes. One commit at a
//! time; any number read. A reader takes a snapshot of the file and of what is in memory that belong together.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Database, ReadableTable};
use tokio::sync::watch;
use tollgate_wire::{Checkpoint, EndRecord, Transaction};

use crate::aside::Aside;
use crate::batch::{Applied, Batch, Delivered};
use crate::catalogue::{Catalogue, CatalogueFile};
use crate::commit::{Commit, Writer};
use crate::durable;
use crate::hearing::Hearing;
use crate::load;
use crate::records::Edge;
use crate::snapshot::{Moment, Snapshot};
use crate::tables::{
    self, CHECKPOINTS, EDGES, GENERATION, STATE, StoreError, begin_read, begin_write, commit_file, decode, read,
    state_value,
};
use crate::tops::{self, Tops};
use crate::transaction;
use crate::window::{Grain, Retention};

/// What the store may hold in memory, page cache of the kernel aside, where the options do not say otherwise: cache, open panes and a copy
/// of them in which they are merged, the counts of the last hour, and rankings of them in the making.
pub const MEMORY_BYTES_MAX: usize = 136 << 20;
/// Counts that are read from the store before they are taken in.
const WARM_UP_COUNTS: usize = 100_000;

/// What of the store can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What redb may hold of the file in memory.
    pub cache_bytes: usize,
    /// Open panes beyond this are merged, and folded before they close where that is not enough: 25,000 rows a second of 100 bytes, for 12 s.
    pub open_bytes_max: usize,
    /// Counts of the last hour in memory: some 3 bytes a pane for each ad and region, and their names once. With more, the ranking of the
    /// hour is read from rows. Rankings in the making take as much again, and for a moment so do names that are numbered anew.
    pub ranking_bytes_max: usize,
    /// An edge that sends nothing for longer holds no window open.
    pub idle_after_ms: i64,
    pub retention: Retention,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 32 << 20,
            open_bytes_max: 32 << 20,
            ranking_bytes_max: 20 << 20,
            idle_after_ms: 30_000,
            retention: Retention::default(),
        }
    }
}

/// What is in memory of the file. While a commit is on its way to the file there are two, and a reader takes the one of the file
/// that it sees: the last step of a commit may take tens of milliseconds.
#[derive(Clone)]
struct Moments {
    last: Arc<Moment>,
    next: Option<Arc<Moment>>,
}

/// The store. Shared by who commits, who keeps it in order, and the query side.
pub struct Store {
    pub(crate) database: Database,
    pub(crate) options: Options,
    moments: RwLock<Moments>,
    /// Held through a commit.
    writer: Mutex<Writer>,
    failed: AtomicBool,
    /// From 0: nobody said yet what time it is.
    hearing: Mutex<Hearing>,
    /// The generation, told to who waits for the next commit.
    committed: watch::Sender<i64>,
    /// Whom ads belong to; not set: to whom their clicks say.
    catalogue: OnceLock<Arc<CatalogueFile>>,
}

impl Store {
    /// Opens the store, or begins one where there is no file. Loads the runs that hold open panes, no row.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::open_with(path, Options::default())
    }

    pub fn open_with(path: &Path, options: Options) -> Result<Store, StoreError> {
        Store::begin(path)?;
        let database =
            Database::builder().set_cache_size(options.cache_bytes).create(path).map_err(redb::Error::from)?;
        let file = begin_write(&database)?;
        let is_counted = tables::make(&file)?;
        let (mut moment, edges) = load::load(&file, &options, is_counted)?;
        commit_file(file)?;
        // What is counted in it may be forgotten elsewhere soon.
        durable::sync_name_of(path).map_err(redb::Error::Io)?;
        if !is_counted {
            moment.counted = load::count_by_class(&database, &moment, &edges)?;
        }
        let (generation, kept_from_ms) = (moment.generation, moment.progress.kept_from(Grain::Hour));
        Ok(Store {
            database,
            options,
            moments: RwLock::new(Moments { last: Arc::new(moment), next: None }),
            writer: Mutex::new(Writer::new(edges, kept_from_ms)),
            failed: AtomicBool::new(false),
            hearing: Mutex::default(),
            committed: watch::Sender::new(generation),
            catalogue: OnceLock::new(),
        })
    }

    /// A store that is begun has its name when it is whole: redb refuses a file that it was still making when the process ended.
    fn begin(path: &Path) -> Result<(), StoreError> {
        if path.exists() {
            return Ok(());
        }
        let (aside, file) = Aside::create(path).map_err(redb::Error::Io)?;
        let made = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
        made.map_err(redb::Error::from)?.close().map_err(redb::Error::from)?;
        match aside.rename(path) {
            // Somebody else was quicker, or it is a link to nothing.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            renamed => Ok(renamed.map_err(redb::Error::Io)?),
        }
    }

    /// From here on ads belong to whom this catalogue says; the first that is named stays.
    pub fn use_catalogue(&self, file: Arc<CatalogueFile>) {
        // A second one is a second edge or consumer over one store, which its lock refuses.
        let _ = self.catalogue.set(file);
    }

    /// Commits an edge's transaction with its checkpoint, all or nothing and on disk when this returns: the embedded sink.
    pub fn commit(&self, transaction: &Transaction) -> Result<(), StoreError> {
        let entries = transaction::check(transaction)?;
        // The edge's own clock: it is this process's too.
        let now_ms = transaction.checkpoint.written_ms;
        self.write(now_ms, |commit| commit.take(transaction, &entries)).map(|_| ())
    }

    /// Commits what was consumed, with the offsets behind it, all or nothing and on disk when this returns. What is in it
    /// that was counted before, or is not whole, is noted of its edge and not counted.
    pub fn apply(&self, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        self.write(batch.now_ms, |commit| commit.apply(batch))
    }

    /// As [`Store::apply`]; where one of them can never be kept, it is noted of its edge as torn, and the others are counted.
    pub fn apply_what_can_be(&self, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        match self.apply(batch) {
            Err(StoreError::Refused(_)) => {}
            outcome => return outcome,
        }
        // Nothing of the batch was kept. Offsets move on when all are judged, and who is read again is known.
        let (none, mut all) = (BTreeMap::new(), Applied::default());
        for delivered in batch.deliveries {
            let alone = Batch { deliveries: std::slice::from_ref(delivered), offsets: &none, ..*batch };
            let applied = match (self.apply(&alone), delivered) {
                (Err(StoreError::Refused(refusal)), Delivered::Whole(whole)) => {
                    let torn = Delivered::Torn(whole.torn(refusal.to_string()));
                    self.apply(&Batch { deliveries: &[torn], ..alone })?
                }
                (outcome, _) => outcome?,
            };
            all.add(applied);
        }
        all.add(self.apply(&Batch { deliveries: &[], ..*batch })?);
        Ok(all)
    }

    /// What must be done as time passes: edges that fell silent, hours to roll up, rows to prune; a bounded step of it. True:
    /// there is more to do.
    pub fn keep_up(&self, now_ms: i64) -> Result<bool, StoreError> {
        self.warm_up(now_ms)?;
        let due = {
            let writer = self.lock();
            self.is_due(&writer, now_ms)
        };
        if !due {
            return Ok(false);
        }
        self.write(now_ms, |commit| commit.keep_up())
    }

    /// The last checkpoint of an edge: the only truth about what it exported.
    pub fn checkpoint(&self, edge_id: &str) -> Result<Option<Checkpoint>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
        read(&table, edge_id)
    }

    /// The last checkpoint of any other edge.
    pub fn checkpoint_of_another(&self, edge_id: &str) -> Result<Option<Checkpoint>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
        for entry in table.iter().map_err(redb::Error::from)? {
            let (edge, bytes) = entry.map_err(redb::Error::from)?;
            if edge.value() != edge_id {
                return decode(bytes.value()).map(Some);
            }
        }
        Ok(None)
    }

    /// The end record of the edge's last transaction, for the audit.
    pub fn last_end(&self, edge_id: &str) -> Result<Option<EndRecord>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(EDGES).map_err(redb::Error::from)?;
        Ok(read::<Edge>(&table, edge_id)?.map(|edge| edge.end))
    }

    /// From when to when edges could be heard, as who listens knows.
    pub fn set_hearing(&self, hearing: Hearing) {
        *self.hearing.lock().unwrap_or_else(PoisonError::into_inner) = hearing;
    }

    pub(crate) fn hearing(&self) -> Hearing {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An operator's word that an edge will not come back: nothing waits for it. False: there is no such edge.
    pub fn retire(&self, edge_id: &str, now_ms: i64) -> Result<bool, StoreError> {
        self.write(now_ms, |commit| commit.change_edge(edge_id, |edge| edge.retired = true))
    }

    /// An operator's word that an edge's troubles are known: they no longer keep windows from being final. False: there is no
    /// such edge.
    pub fn accept(&self, edge_id: &str, now_ms: i64) -> Result<bool, StoreError> {
        self.write(now_ms, |commit| commit.change_edge(edge_id, |edge| edge.held_at_ms = None))
    }

    /// What is committed, for one question after another.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        loop {
            let Moments { last, next } = self.moments.read().unwrap_or_else(PoisonError::into_inner).clone();
            let file = begin_read(&self.database)?;
            let generation = {
                let state = file.open_table(STATE).map_err(redb::Error::from)?;
                state_value(&state, GENERATION)?.unwrap_or(0)
            };
            let of_file = [Some(last), next].into_iter().flatten().find(|moment| moment.generation == generation);
            if let Some(moment) = of_file {
                let idle = (self.options.idle_after_ms, self.hearing());
                return Ok(Snapshot::new(file, moment, idle, self.catalogue()));
            }
            if self.failed.load(Ordering::Acquire) {
                return Err(StoreError::Failed);
            }
            // A commit began after the moments were read.
            std::thread::yield_now();
        }
    }

    /// Tells the generation of every commit from now on.
    pub fn committed(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    /// Whom ads belong to now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.get().map(|file| file.now()).unwrap_or_default()
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Runs in memory, for tests of what bounds them.
    #[cfg(test)]
    pub fn open_runs(&self) -> usize {
        self.moment().open.runs.len()
    }

    #[cfg(test)]
    pub fn open_bytes(&self) -> usize {
        self.moment().open.bytes()
    }

    pub(crate) fn moment(&self) -> Arc<Moment> {
        self.moments.read().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One commit: what `change` does to the file and to memory, all or nothing.
    pub(crate) fn write<T>(
        &self,
        now_ms: i64,
        change: impl FnOnce(&mut Commit<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.lock();
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Failed);
        }
        // The first that tells the time says since when somebody listens.
        {
            let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
            if hearing.others.from_ms == 0 {
                hearing.others.from_ms = now_ms;
            }
        }
        self.write_locked(&mut writer, now_ms, change).inspect_err(|error| self.fails(error))
    }

    /// After some errors, nobody knows what the file holds.
    fn fails(&self, error: &StoreError) {
        if let StoreError::Database(_) | StoreError::Damaged(_) = error {
            self.failed.store(true, Ordering::Release);
        }
    }

    fn write_locked<T>(
        &self,
        writer: &mut Writer,
        now_ms: i64,
        change: impl FnOnce(&mut Commit<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let file = begin_write(&self.database)?;
        let hearing = self.hearing();
        let catalogue = self.catalogue();
        let mut commit = Commit::new(&file, writer, &self.options, self.moment(), (now_ms, hearing), &catalogue);
        let done = change(&mut commit)?;
        let mismatches = commit.mismatches;
        let (moment, edges) = commit.finish()?;
        let (generation, moment) = (moment.generation, Arc::new(moment));
        self.moments.write().unwrap_or_else(PoisonError::into_inner).next = Some(moment.clone());
        commit_file(file)?;
        if let Some(catalogue) = self.catalogue.get() {
            catalogue.count_mismatches(mismatches);
        }
        writer.edges.extend(edges);
        *self.moments.write().unwrap_or_else(PoisonError::into_inner) = Moments { last: moment, next: None };
        self.committed.send_replace(generation);
        Ok(done)
    }

    /// Reads what the ranking needs of the last hour, once. Commits go on meanwhile.
    fn warm_up(&self, now_ms: i64) -> Result<(), StoreError> {
        if self.moment().tops.is_warm() || self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // From this commit on, what comes is added to an empty ranking; what was before is read from the snapshot. Nothing is committed
        // in between.
        let snapshot = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            self.write_locked(&mut writer, now_ms, |commit| {
                commit.after.tops = Tops::new(self.options.ranking_bytes_max);
                Ok(())
            })
            .inspect_err(|error| self.fails(error))?;
            self.snapshot()?
        };
        let closed_before_ms = snapshot.moment().progress.marks.closed_before_ms;
        let from_ms = Tops::from_ms(closed_before_ms);
        let (mut before, mut batch) = (Tops::new(self.options.ranking_bytes_max), tops::Batch::default());
        snapshot.visit_recent(from_ms, &mut |row, clicks| {
            batch.put(&mut before.names(), row, clicks);
            if batch.len() >= WARM_UP_COUNTS {
                before.add(std::mem::take(&mut batch), closed_before_ms);
            }
        })?;
        before.add(batch, closed_before_ms);
        self.write(now_ms, |commit| {
            let closed_before_ms = commit.after.progress.marks.closed_before_ms;
            commit.after.tops.absorb(&before, closed_before_ms);
            commit.after.tops.complete_from(from_ms);
            Ok(())
        })
    }
}
