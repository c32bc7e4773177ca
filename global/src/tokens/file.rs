//! Drives. The file of tokens in a data directory: changed by `tollgate token`, noticed by whoever serves it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::{Draft, TOKEN_BYTES, Token, Tokens};
use crate::durable::{self, NotSynced};
use crate::private_file;
use crate::signature::Signature;

/// In a data directory.
pub const TOKENS_FILE: &str = "tokens.json";
/// Held while the file is changed.
const LOCK_FILE: &str = "tokens.lock";
/// Of the file; some 300 bytes a token, and its campaigns.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What all tokens may take of memory, twice while a new file is read, and that file: an id of a scope takes 15 bytes of it at least,
/// on a line of its own, and some 80 of memory.
pub const TOKENS_BYTES_MAX: u64 = 2 * 80 * FILE_BYTES_MAX / 15 + FILE_BYTES_MAX;

/// Why tokens are not read or changed; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{}: {error}; it must be readable to who serves, and writable to who makes tokens", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// No file of ours, or one that was changed by hand.
    #[error("{}: {why}; put the file back as `tollgate token` wrote it; or stop, and take it away: then there are no tokens", path.display())]
    Unreadable { path: PathBuf, why: String },
    /// Nothing was made but the directory.
    #[error(transparent)]
    NotSynced(#[from] NotSynced),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Refused(String),
}

/// The tokens in force, shared by who serves and who looks after the file.
pub struct TokenFile {
    path: PathBuf,
    now: RwLock<Arc<Tokens>>,
    seen: Mutex<Option<Signature>>,
    broken: AtomicBool,
    /// Told at each change.
    changed: watch::Sender<()>,
}

impl TokenFile {
    /// Reads the tokens of a directory, which need not be there.
    pub fn open(data_dir: &Path) -> Result<TokenFile, TokenError> {
        let path = data_dir.join(TOKENS_FILE);
        let (tokens, signature) = read(&path)?;
        Ok(TokenFile {
            path,
            now: RwLock::new(Arc::new(tokens)),
            seen: Mutex::new(signature),
            broken: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        })
    }

    pub fn now(&self) -> Arc<Tokens> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells when tokens are made or revoked.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Reads the file again where it has changed. One that cannot be read changes nothing: what was revoked stays so. Nor does
    /// one that is gone, until the next start: a port that wanted tokens is not opened to everybody by a file that is moved.
    pub fn look(&self) {
        let found = fs::metadata(&self.path).map(|file| Signature::of(&file));
        let found = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => found.ok(),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found && !self.is_broken() {
            return;
        }
        let gone = || TokenError::Unreadable { path: self.path.clone(), why: "it is gone".to_owned() };
        let found = read(&self.path).and_then(|found| match found {
            (_, None) if !self.now().is_empty() => Err(gone()),
            found => Ok(found),
        });
        match found {
            Ok((tokens, signature)) => {
                self.broken.store(false, Ordering::Relaxed);
                *seen = signature;
                let held = tokens.all().iter().filter(|token| !token.is_revoked()).count();
                tracing::info!(held, "tokens have changed");
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
                self.changed.send_replace(());
            }
            Err(error) => {
                if !self.broken.swap(true, Ordering::Relaxed) {
                    tracing::error!("{error}; the tokens of before stay in force");
                }
            }
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Makes a token in a directory, which is made where it is missing; gives it with the text that is shown once.
    pub fn create(data_dir: &Path, draft: &Draft, now_ms: i64) -> Result<(Arc<Token>, String), TokenError> {
        fs::create_dir_all(data_dir).map_err(|error| io_error(data_dir, error))?;
        durable::sync_names(data_dir)?;
        let mut random = [0; TOKEN_BYTES];
        let drawn = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        match drawn {
            Ok(TOKEN_BYTES) => change(data_dir, |tokens| tokens.create(draft, random, now_ms)),
            Ok(_) => Err(TokenError::Refused("the kernel gave too few random bytes; try again".to_owned())),
            Err(error) => Err(io_error(Path::new("getrandom"), error.into())),
        }
    }

    /// Revokes the token of this id or name.
    pub fn revoke(data_dir: &Path, named: &str, now_ms: i64) -> Result<Arc<Token>, TokenError> {
        if !data_dir.join(TOKENS_FILE).exists() {
            return Err(TokenError::Refused(format!("there are no tokens in {}", data_dir.display())));
        }
        change(data_dir, |tokens| tokens.revoke(named, now_ms))
    }
}

/// Changes the file, one at a time.
fn change<T>(data_dir: &Path, change: impl FnOnce(&mut Tokens) -> Result<T, String>) -> Result<T, TokenError> {
    let (path, lock_path) = (data_dir.join(TOKENS_FILE), data_dir.join(LOCK_FILE));
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let lock = lock.map_err(|error| io_error(&lock_path, error))?;
    lock.lock().map_err(|error| io_error(&lock_path, error))?;
    let (mut tokens, _) = read(&path)?;
    let done = change(&mut tokens).map_err(TokenError::Refused)?;
    let bytes = tokens.bytes();
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!(
            "all tokens together would take more than {FILE_BYTES_MAX} bytes; name fewer campaigns, or an advertiser"
        );
        return Err(TokenError::Refused(text));
    }
    private_file::write(&path, &bytes).map_err(|error| io_error(&path, error))?;
    Ok(done)
}

/// What is there, and of what it was read; nothing, where there is no file.
fn read(path: &Path) -> Result<(Tokens, Option<Signature>), TokenError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Tokens::default(), None)),
        opened => opened.map_err(|error| io_error(path, error))?,
    };
    let about = file.metadata().map_err(|error| io_error(path, error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| io_error(path, error))?;
    let unreadable = |why: String| TokenError::Unreadable { path: path.to_owned(), why };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok((Tokens::read(&bytes).map_err(unreadable)?, Some(Signature::of(&about))))
}

fn io_error(path: &Path, error: io::Error) -> TokenError {
    TokenError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn draft(name: &str) -> Draft {
        Draft { name: name.to_owned(), scope: None, rate_per_s: 1 }
    }

    #[test]
    fn what_is_made_and_revoked_is_noticed() {
        let folder = tempfile::tempdir().expect("folder");
        let data_dir = folder.path().join("not there yet");
        let file = TokenFile::open(&data_dir).expect("none");
        let changed = file.changed();
        assert!(file.now().is_empty());
        let (token, text) = TokenFile::create(&data_dir, &draft("a"), 1).expect("made");
        let (_, other) = TokenFile::create(&data_dir, &draft("b"), 2).expect("made");
        assert_ne!(text, other);
        let mode = fs::metadata(data_dir.join(TOKENS_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(file.now().is_empty(), "not looked at yet");
        file.look();
        assert!(file.now().find(&text).is_some() && changed.has_changed().expect("it lives"));
        TokenFile::revoke(&data_dir, &token.id, 3).expect("revoked");
        file.look();
        assert!(file.now().find(&text).is_none() && file.now().find(&other).is_some());
        fs::remove_file(data_dir.join(TOKENS_FILE)).expect("taken away");
        file.look();
        assert!(file.now().find(&other).is_some() && file.is_broken(), "those of before hold until the next start");
        assert!(TokenFile::open(&data_dir).expect("none").now().is_empty());
        assert!(TokenFile::revoke(&data_dir, "a", 4).expect_err("none").to_string().contains("no tokens"));
    }

    #[test]
    fn a_broken_file_changes_nothing_until_it_is_good_again() {
        let folder = tempfile::tempdir().expect("folder");
        let (_, text) = TokenFile::create(folder.path(), &draft("a"), 1).expect("made");
        let file = TokenFile::open(folder.path()).expect("read");
        let path = folder.path().join(TOKENS_FILE);
        let good = fs::read(&path).expect("there");
        fs::write(&path, &good[..good.len() / 2]).expect("written");
        (0..3).for_each(|_| file.look());
        assert!(file.is_broken() && file.now().find(&text).is_some());
        let refused = TokenFile::open(folder.path()).err().expect("broken").to_string();
        assert!(refused.contains("tokens.json") && refused.contains("EOF"), "{refused}");
        assert!(TokenFile::create(folder.path(), &draft("b"), 1).is_err(), "nothing is written over it");
        fs::write(&path, &good).expect("written");
        file.look();
        assert!(!file.is_broken() && file.now().find(&text).is_some());
    }

    /// Many at once lose none.
    #[test]
    fn changes_are_made_one_at_a_time() {
        let folder = tempfile::tempdir().expect("folder");
        let make = |name: usize| TokenFile::create(folder.path(), &draft(&name.to_string()), 1).expect("made");
        std::thread::scope(|scope| (0..8).for_each(|name| drop(scope.spawn(move || make(name)))));
        assert_eq!(TokenFile::open(folder.path()).expect("read").now().all().len(), 8);
    }
}
