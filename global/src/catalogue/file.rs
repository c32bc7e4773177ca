//! Drives. The catalogue's file: read at the start, and again when it has changed. A file that is broken changes nothing, and the
//! last good one is kept in the data directory, so that a restart does not need a good one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{BadCatalogue, Catalogue};
use crate::private_file;
use crate::signature::Signature;

/// The copy of the last good file, in a data directory.
const KEPT_FILE: &str = "ads.last-good";

/// A file with less than half of the ads in force may be half a file: of somebody who writes in place and pauses, or died. It is taken
/// when nobody has touched it for so long; until then an operator is told.
const SHRUNK_SETTLES_MS: i64 = 10 * 60 * 1000;
/// Smaller catalogues are written at once, and by hand.
const SHRINKS_FROM_ADS: usize = 100;

/// The file is no catalogue, and there is no earlier one to go on with; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("--ads {}: {error}; correct the file, or leave --ads out", path.display())]
pub struct CatalogueError {
    path: PathBuf,
    error: BadCatalogue,
}

/// What was seen of the path. None: nothing is there.
#[derive(Default)]
struct Seen {
    /// At the last look.
    last: Option<Signature>,
    /// What was read, good or not.
    read: Option<Signature>,
    /// When what was read is to be read again, unchanged.
    again_ms: Option<i64>,
    /// The version whose copy is in the data directory.
    kept: u64,
}

/// The catalogue in force, shared by who counts, who answers and who looks after the file.
#[derive(Default)]
pub struct CatalogueFile {
    path: Option<PathBuf>,
    keep_at: PathBuf,
    now: RwLock<Arc<Catalogue>>,
    seen: Mutex<Seen>,
    broken: AtomicBool,
    reads: AtomicU64,
    mismatches: [AtomicU64; 2],
}

impl CatalogueFile {
    /// Reads the file.
    pub fn open(path: Option<&Path>, data_dir: &Path, now_ms: i64) -> Result<CatalogueFile, CatalogueError> {
        let file = CatalogueFile::at(path, data_dir);
        file.begin(&Catalogue::default(), now_ms)?;
        Ok(file)
    }

    /// Reads the file, or, where it is broken or may be half of it, the copy of the last good one.
    pub fn open_or_last_good(
        path: Option<&Path>,
        data_dir: &Path,
        now_ms: i64,
    ) -> Result<CatalogueFile, CatalogueError> {
        let file = CatalogueFile::at(path, data_dir);
        let kept = read(&file.keep_at, now_ms).ok().filter(|_| path.is_some()).map(|(kept, _)| kept);
        let refused = match file.begin(kept.as_ref().unwrap_or(&Catalogue::default()), now_ms) {
            Ok(()) => return Ok(file),
            Err(refused) => refused,
        };
        let Some(catalogue) = kept else { return Err(refused) };
        file.lock().kept = catalogue.version_number();
        file.broken.store(true, Ordering::Relaxed);
        tracing::error!("{refused}. Until then the last good one, {}, is in force", file.keep_at.display());
        file.put(catalogue, &file.keep_at);
        Ok(file)
    }

    fn at(path: Option<&Path>, data_dir: &Path) -> CatalogueFile {
        let (path, keep_at) = (path.map(Path::to_owned), data_dir.join(KEPT_FILE));
        CatalogueFile { path, keep_at, ..CatalogueFile::default() }
    }

    fn begin(&self, before: &Catalogue, now_ms: i64) -> Result<(), CatalogueError> {
        let Some(path) = &self.path else { return Ok(()) };
        let read = read_after(path, before, now_ms);
        let (catalogue, signature) = read.map_err(|error| CatalogueError { path: path.clone(), error })?;
        self.lock().read = Some(signature);
        self.put(catalogue, path);
        Ok(())
    }

    /// What the catalogue says now.
    pub fn now(&self) -> Arc<Catalogue> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the file has changed, and reads it when it is the same at two looks: one that is being written is not whole.
    pub fn look(&self, now_ms: i64) {
        if let Some(line) = self.looked(now_ms) {
            tracing::error!("{line}");
        }
    }

    /// What an operator is to be told, once of each file that is broken, and once where there is none any more.
    fn looked(&self, now_ms: i64) -> Option<String> {
        let path = self.path.as_ref()?;
        let mut told = None;
        let found = fs::metadata(path).ok().map(|file| Signature::of(&file));
        let mut seen = self.lock();
        let settled = seen.last == found;
        seen.last = found;
        let is_due = seen.again_ms.is_some_and(|at_ms| now_ms >= at_ms);
        if settled && (seen.read != found || found.is_none() || is_due) {
            seen.again_ms = None;
            match read_after(path, &self.now(), now_ms) {
                Ok((catalogue, signature)) => {
                    seen.read = Some(signature);
                    self.broken.store(false, Ordering::Relaxed);
                    if catalogue.version_number() != self.now().version_number() {
                        self.put(catalogue, path);
                    }
                }
                Err(error) => {
                    let is_news = seen.read != found || is_due;
                    seen.read = found;
                    if let BadCatalogue::Shrunk { until_ms, .. } = error {
                        seen.again_ms = Some(until_ms);
                    }
                    if !self.broken.swap(true, Ordering::Relaxed) || is_news {
                        let path = path.display();
                        told = Some(format!(
                            "--ads {path}: {error}; the catalogue of before stays in force until the file is good; a start without --ads goes \
                             without one"
                        ));
                    }
                }
            }
        }
        self.keep(&mut seen);
        told
    }

    /// Clicks that were counted for an ad of the catalogue and named another campaign, or another advertiser.
    pub fn count_mismatches(&self, [campaign, advertiser]: [u64; 2]) {
        self.mismatches[0].fetch_add(campaign, Ordering::Relaxed);
        self.mismatches[1].fetch_add(advertiser, Ordering::Relaxed);
    }

    pub fn mismatches(&self) -> [u64; 2] {
        [0, 1].map(|at| self.mismatches[at].load(Ordering::Relaxed))
    }

    /// The file cannot be used: an older one is in force.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// How often a catalogue came into force, the first included.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn put(&self, catalogue: Catalogue, from: &Path) {
        let (ads, version) = (catalogue.ads(), catalogue.version().unwrap_or_default());
        tracing::info!(ads, version, "the ad catalogue {} is in force", from.display());
        self.reads.fetch_add(1, Ordering::Relaxed);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
    }

    /// Copies the file that is in force to the data directory, once.
    fn keep(&self, seen: &mut Seen) {
        let version = self.now().version_number();
        let (Some(path), true) = (&self.path, version != seen.kept && !self.is_broken()) else { return };
        // Not tried again before the next version: a disk that is full says so elsewhere.
        seen.kept = version;
        let copied = fs::read(path).and_then(|bytes| private_file::write(&self.keep_at, &bytes));
        if let Err(error) = copied {
            tracing::warn!("{}: {error}; a restart will need a good --ads file", self.keep_at.display());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`read`]; not what may be half of what was in force before.
fn read_after(path: &Path, before: &Catalogue, now_ms: i64) -> Result<(Catalogue, Signature), BadCatalogue> {
    let (catalogue, signature) = read(path, now_ms)?;
    let (ads, before) = (catalogue.ads(), before.ads());
    let until_ms = signature.changed_ms().saturating_add(SHRUNK_SETTLES_MS);
    if before >= SHRINKS_FROM_ADS && ads < before / 2 && now_ms < until_ms {
        return Err(BadCatalogue::Shrunk { ads, before, until_ms });
    }
    Ok((catalogue, signature))
}

/// A catalogue, and of what it was read.
fn read(path: &Path, now_ms: i64) -> Result<(Catalogue, Signature), BadCatalogue> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(BadCatalogue::Unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
    }
    Ok((Catalogue::read(file, about.len(), now_ms)?, Signature::of(&about)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "ad_id,campaign_id\na,c1\n";

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ads.csv");
        fs::write(&path, text).expect("written");
        (folder, path)
    }

    fn campaign(file: &CatalogueFile) -> String {
        file.now().owner("a").map_or(String::new(), |owner| owner.campaign_id.to_owned())
    }

    #[test]
    fn a_changed_file_comes_into_force_when_it_is_the_same_at_two_looks() {
        let (folder, path) = written(GOOD);
        let file = CatalogueFile::open(Some(&path), folder.path(), 1).expect("good");
        assert_eq!((campaign(&file).as_str(), file.reads()), ("c1", 1));
        file.look(2);
        fs::write(&path, "ad_id,campaign_id\na,campaign_2\n").expect("written");
        file.look(3);
        assert_eq!(campaign(&file), "c1", "it may be half written");
        file.look(4);
        assert_eq!((campaign(&file).as_str(), file.reads(), file.now().loaded_ms()), ("campaign_2", 2, 4));
        (5..9).for_each(|now_ms| file.look(now_ms));
        assert_eq!(file.reads(), 2, "read once");
    }

    #[test]
    fn a_broken_file_changes_nothing_and_a_restart_goes_on_with_the_last_good_one() {
        let (folder, path) = written(GOOD);
        let refused = CatalogueFile::open_or_last_good(Some(&folder.path().join("none")), folder.path(), 1)
            .err()
            .expect("nothing to go on with");
        assert!(refused.to_string().contains("none: No such file"), "{refused}");
        let file = CatalogueFile::open(Some(&path), folder.path(), 1).expect("good");
        file.look(2);
        fs::write(&path, "ad_id,campaign_id\na\n").expect("written");
        file.look(3);
        file.look(4);
        assert_eq!((campaign(&file).as_str(), file.is_broken()), ("c1", true));
        assert!(CatalogueFile::open(Some(&path), folder.path(), 5).is_err(), "the file itself is no good");
        let restarted = CatalogueFile::open_or_last_good(Some(&path), folder.path(), 5).expect("the copy");
        assert_eq!((campaign(&restarted).as_str(), restarted.is_broken()), ("c1", true));
        for file in [&file, &restarted] {
            fs::remove_file(&path).ok();
            file.look(6);
            file.look(7);
            assert!(campaign(file) == "c1" && file.is_broken(), "it is gone");
            fs::write(&path, "ad_id,campaign_id\na,c3\n").expect("written");
            file.look(8);
            file.look(9);
            assert_eq!((campaign(file).as_str(), file.is_broken()), ("c3", false));
        }
    }

    fn of_ads(ads: usize) -> String {
        let lines = (0..ads).map(|n| format!("{n},c{ads}\n"));
        std::iter::once("ad_id,campaign_id\n".to_owned()).chain(lines).collect()
    }

    /// Over half of the ads would be lost: a writer that pauses or died. A restart does not take it either; time does.
    #[test]
    fn what_may_be_half_a_file_is_taken_when_nobody_has_touched_it_for_a_while() {
        let (folder, path) = written(&of_ads(1_000));
        let changed_ms = || Signature::of(&fs::metadata(&path).expect("there")).changed_ms();
        let file = CatalogueFile::open_or_last_good(Some(&path), folder.path(), changed_ms()).expect("good");
        let looks = |file: &CatalogueFile, now_ms: i64| {
            (0..2).for_each(|_| file.look(now_ms));
            (file.now().ads(), file.is_broken())
        };
        assert_eq!(looks(&file, changed_ms()), (1_000, false));
        fs::write(&path, of_ads(500)).expect("written");
        assert_eq!(looks(&file, changed_ms()), (500, false), "half of it may go at once");
        fs::write(&path, of_ads(249)).expect("written");
        assert_eq!(looks(&file, changed_ms() + 1_000), (500, true));
        let refused = read_after(&path, &file.now(), changed_ms()).err().expect("too few").to_string();
        assert!(refused.contains("249 ads") && refused.contains("before it 500"), "{refused}");
        let again =
            CatalogueFile::open_or_last_good(Some(&path), folder.path(), changed_ms() + 2_000).expect("the copy");
        for file in [&file, &again] {
            assert_eq!(looks(file, changed_ms() + SHRUNK_SETTLES_MS - 1), (500, true), "the copy after a restart, too");
        }
        fs::write(&path, of_ads(600)).expect("the writer goes on");
        assert_eq!(looks(&file, changed_ms() + 1_000), (600, false));
        fs::write(&path, of_ads(1)).expect("written");
        assert_eq!(looks(&file, changed_ms()), (600, true));
        assert_eq!(looks(&file, changed_ms() + SHRUNK_SETTLES_MS), (1, false), "it is meant");
        fs::write(&path, of_ads(99)).expect("written");
        assert_eq!(looks(&file, changed_ms()), (99, false));
        fs::write(&path, of_ads(1)).expect("written");
        assert_eq!(looks(&file, changed_ms()), (1, false), "few ads are written at once");
    }

    /// Who deletes a broken file hears that this does not end the catalogue.
    #[test]
    fn a_file_that_is_broken_and_then_gone_is_told_of_twice() {
        let (folder, path) = written(GOOD);
        let file = CatalogueFile::open(Some(&path), folder.path(), 1).expect("good");
        let told = || (0..4).filter_map(|_| file.looked(2)).collect::<Vec<_>>();
        assert_eq!(told(), [""; 0]);
        fs::write(&path, "broken\n").expect("written");
        let lines = told();
        assert!(lines.len() == 1 && lines[0].contains("line 1"), "{lines:?}");
        fs::remove_file(&path).expect("removed");
        let lines = told();
        assert!(lines.len() == 1 && lines[0].contains("No such file") && lines[0].contains("in force"), "{lines:?}");
        assert_eq!((campaign(&file).as_str(), file.is_broken()), ("c1", true));
        fs::write(&path, GOOD).expect("written");
        assert_eq!((told().len(), file.is_broken()), (0, false));
    }

    #[test]
    fn without_a_path_there_is_no_catalogue() {
        let folder = tempfile::tempdir().expect("folder");
        let file = CatalogueFile::open(None, folder.path(), 1).expect("none is asked for");
        file.look(2);
        assert!(file.now().version().is_none() && !file.is_broken() && file.reads() == 0);
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "nothing is written");
    }
}
