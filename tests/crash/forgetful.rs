//! A file system in memory that forgets: what no sync has made durable is gone after a power cut, or there in part. It takes no more for
//! synced than POSIX says: a file's bytes by fsync of it or by a write with O_DSYNC, a name by fsync of its directory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::libc;
use nix::mount::{MntFlags, umount2};

use crate::rng::Rng;

/// The kernel asks again at once: what it knows is what is there.
const KEPT: Duration = Duration::ZERO;
pub const SECTOR_BYTES: usize = 512;
const ROOT: u64 = 1;

/// Of a folder: its files and folders, by their numbers.
type Names = BTreeMap<OsString, u64>;

#[derive(Clone)]
enum Content {
    File(Vec<u8>),
    Folder(Names),
}

#[derive(Clone)]
struct Node {
    name: OsString,
    now: Content,
    /// As of the last sync.
    durable: Content,
}

struct Files {
    nodes: HashMap<u64, Node>,
    next: u64,
    /// Writes that were durable when they ended, and syncs.
    syncs: u64,
    power: Power,
    /// What each call was that changes something, in their order.
    calls: Vec<String>,
    cut_at: Option<Cut>,
    /// None: as much as there is memory.
    capacity: Option<Capacity>,
}

/// What all files may take.
#[derive(Clone, Copy)]
struct Capacity {
    bytes: u64,
    /// What one user may have of a disk that has room: who asks for what is free is not told of it.
    is_quota: bool,
}

/// The power goes with a call: the `nth` of those that are the same, from 0.
#[derive(Clone, Debug)]
pub struct Cut {
    pub call: String,
    pub nth: usize,
    pub effect: Effect,
}

/// What the call with which the power goes has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// Nothing of it is durable, and all of it may be there in part.
    Begun,
    /// All, and nobody was told.
    Untold,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing becomes durable, and no write or sync is answered; whether one waits for it.
    Cut {
        waiting: bool,
    },
    /// Nobody is left who could act on an answer.
    Gone,
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Only the process ended.
    All,
    Nothing,
    /// Any of its sectors, and any of the names of each folder, old or new.
    Some,
}

/// What a power cut took back of what a process had done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Of the files that are left: not there, or not what was written last.
    pub bytes: u64,
    /// Of the folders that are left: made, deleted or given to another file, and now as before.
    pub names: u64,
}

/// What lies on the disk; shared by the file system that is mounted.
#[derive(Clone)]
pub struct Disk(Arc<(Mutex<Files>, Condvar)>);

/// In which a write or a sync comes under load.
const IN_FLIGHT_WITHIN: Duration = Duration::from_secs(1);

/// Mounted until it is dropped.
pub struct Mounted {
    session: Option<BackgroundSession>,
    at: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.session.take());
        // It was busy: a child that another thread makes holds all files until it is another program.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

impl Disk {
    /// All of a folder is durable.
    pub fn of(folder: &Path) -> Disk {
        let mut files = Files::new(HashMap::new(), ROOT);
        let root = files.load(folder);
        files.nodes.get_mut(&root).expect("loaded").name = "the folder above".into();
        Disk(Arc::new((Mutex::new(files), Condvar::new())))
    }

    /// Another with the same on it, synced or not; a process that ended takes nothing along.
    pub fn fork(&self) -> Disk {
        let files = self.files();
        let files = Files::new(files.nodes.clone(), files.next);
        Disk(Arc::new((Mutex::new(files), Condvar::new())))
    }

    pub fn mount(&self, at: &Path) -> Mounted {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("forgetful".to_owned())];
        let session = fuser::spawn_mount(Forgetful(self.clone()), at, &config);
        let session = session.expect("mounting needs /dev/fuse, and root or fusermount3");
        Mounted { session: Some(session), at: at.to_owned() }
    }

    /// Writes durable at their end, and syncs, so far.
    pub fn syncs(&self) -> u64 {
        self.files().syncs
    }

    /// Files may grow by so many bytes from here on.
    pub fn leave_free(&self, bytes: u64) {
        self.bound(bytes, false);
    }

    /// As [`Disk::leave_free`]; nobody knows of it before a write is refused.
    pub fn leave_by_quota(&self, bytes: u64) {
        self.bound(bytes, true);
    }

    fn bound(&self, bytes: u64, is_quota: bool) {
        let mut files = self.files();
        files.capacity = Some(Capacity { bytes: files.used() + bytes, is_quota });
    }

    /// What was called so far that changes something, as `write store.redb` or `sync a segment`.
    pub fn calls(&self) -> Vec<String> {
        self.files().calls.clone()
    }

    /// As after [`Disk::cut`], whoever calls is to be killed, and [`Disk::let_go`].
    pub fn cut_at(&self, cut: Cut) {
        self.files().cut_at = Some(cut);
    }

    /// Whether the power is gone, once this long has passed or it goes.
    pub fn is_cut_within(&self, patience: Duration) -> bool {
        let on = |files: &mut Files| files.power == Power::On;
        let waited = self.0.1.wait_timeout_while(self.files(), patience, on);
        waited.expect("no call panics with it").0.power != Power::On
    }

    /// Cuts the power, if it can in the middle of a write or a sync; whoever writes is then to be killed, and [`Disk::let_go`]. True:
    /// there was one.
    pub fn cut(&self) -> bool {
        let mut files = self.files();
        files.power = Power::Cut { waiting: false };
        let none = |files: &mut Files| files.power == Power::Cut { waiting: false };
        let waited = self.0.1.wait_timeout_while(files, IN_FLIGHT_WITHIN, none);
        waited.expect("no call panics with it").0.power != Power::Cut { waiting: false }
    }

    /// Answers what waits since the power was cut: the kernel does not let go of a process before. From here on nothing changes.
    pub fn let_go(&self) {
        self.files().power = Power::Gone;
        self.0.1.notify_all();
    }

    /// Lays what is there after a power cut down as a plain folder; what is not is returned.
    pub fn after_a_power_cut(&self, left: Left, rng: &mut Rng, to: &Path) -> Dropped {
        let files = self.files();
        let (mut names, mut dropped) = (vec![(ROOT, to.to_owned())], Dropped::default());
        while let Some((number, path)) = names.pop() {
            let Node { now, durable, .. } = &files.nodes[&number];
            match (now, durable) {
                (Content::Folder(now), Content::Folder(durable)) => {
                    std::fs::create_dir_all(&path).expect("ours");
                    let entries = match left {
                        Left::All => now.clone(),
                        Left::Nothing => durable.clone(),
                        Left::Some => some(now, durable, rng),
                    };
                    dropped.names += differ(now, &entries).len() as u64;
                    names.extend(entries.iter().map(|(name, number)| (*number, path.join(name))));
                }
                (Content::File(now), Content::File(durable)) => {
                    let bytes = match left {
                        Left::All => now.clone(),
                        Left::Nothing => durable.clone(),
                        Left::Some => mixed(now, durable, rng),
                    };
                    let others = now.iter().zip(&bytes).filter(|(now, left)| now != left).count();
                    dropped.bytes += (others + now.len().abs_diff(bytes.len())) as u64;
                    std::fs::write(&path, bytes).expect("ours");
                }
                _ => unreachable!("a node stays what it is"),
            }
        }
        dropped
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.0.lock().expect("no call panics with it")
    }

    /// Whether there is power to answer by; without, not before those who wait are gone.
    fn answers(&self, mut files: MutexGuard<'_, Files>) -> bool {
        if files.power == Power::On {
            return true;
        }
        if let Power::Cut { waiting } = &mut files.power {
            *waiting = true;
            self.0.1.notify_all();
        }
        let cut = |files: &mut Files| matches!(files.power, Power::Cut { .. });
        drop(self.0.1.wait_while(files, cut).expect("no call panics with it"));
        false
    }

    fn sync(&self, number: u64, reply: ReplyEmpty) {
        match self.act(number, None, "sync", true, |files| files.sync(number)) {
            Some(()) => reply.ok(),
            None => reply.error(Errno::EIO),
        }
    }

    /// A call that changes something, of a file or of a name in a folder. `None`: the power went. A call that needs no disk to end is
    /// answered without power, too, unless it is the one with which the power went.
    fn act<T>(
        &self,
        number: u64,
        name: Option<&OsStr>,
        call: &str,
        needs_the_disk: bool,
        act: impl FnOnce(&mut Files) -> T,
    ) -> Option<T> {
        let mut files = self.files();
        if files.power == Power::Gone {
            return None;
        }
        let call = named(call, &name.unwrap_or(&files.nodes[&number].name).to_string_lossy());
        let before = files.calls.iter().filter(|earlier| **earlier == call).count();
        let here =
            files.cut_at.as_ref().filter(|cut| files.power == Power::On && (&cut.call, cut.nth) == (&call, before));
        let effect = here.map(|cut| cut.effect);
        files.calls.push(call);
        let cut = Power::Cut { waiting: false };
        if matches!(effect, Some(Effect::None | Effect::Begun)) {
            files.power = cut;
        }
        if effect == Some(Effect::None) {
            self.answers(files);
            return None;
        }
        let done = act(&mut files);
        if effect == Some(Effect::Untold) {
            files.power = cut;
        }
        (effect.is_none() && !needs_the_disk || self.answers(files)).then_some(done)
    }
}

/// A call, whatever the number of its file.
fn named(call: &str, name: &str) -> String {
    let name = match name {
        "0000000001.seg" if call == "unlink" => "a first segment",
        _ if name.ends_with(".seg") => "a segment",
        _ if name.starts_with(".probe-") => "a probe",
        _ if name.ends_with(".partial") => "store.redb aside",
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => "a log",
        name => name,
    };
    format!("{call} {name}")
}

/// Sector by sector what was synced, or what was written since. A length is synced with the bytes or was not.
fn mixed(now: &[u8], durable: &[u8], rng: &mut Rng) -> Vec<u8> {
    let length = if rng.percent(50) { now.len() } else { durable.len() };
    let mut bytes = durable.to_vec();
    bytes.resize(length, 0);
    for (at, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
        let from = at * SECTOR_BYTES;
        let written = &now[from.min(now.len())..(from + sector.len()).min(now.len())];
        if sector[..written.len()] != *written && rng.percent(50) {
            sector[..written.len()].copy_from_slice(written);
        }
    }
    bytes
}

/// The names that stand for something else in one than in the other.
fn differ<'a>(one: &'a Names, other: &'a Names) -> BTreeSet<&'a OsString> {
    one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name)).collect()
}

/// Name by name what was synced, or what it was made since. Names that a file went from and to go together: a rename is done or is not.
fn some(now: &Names, durable: &Names, rng: &mut Rng) -> Names {
    let files = |name: &OsString| [now.get(name), durable.get(name)];
    let one_file = |one: &OsString, other: &OsString| {
        files(one).into_iter().flatten().any(|number| files(other).contains(&Some(number)))
    };
    let mut left = durable.clone();
    let mut open = differ(now, durable);
    while let Some(first) = open.pop_first() {
        let (mut group, mut seen) = (vec![first], 0);
        while let Some(name) = group.get(seen).copied() {
            group.extend(open.iter().filter(|other| one_file(name, other)));
            open.retain(|other| !group.contains(other));
            seen += 1;
        }
        if rng.percent(50) {
            for name in group {
                match now.get(name) {
                    Some(number) => left.insert(name.clone(), *number),
                    None => left.remove(name),
                };
            }
        }
    }
    left
}

impl Files {
    fn new(nodes: HashMap<u64, Node>, next: u64) -> Files {
        Files { nodes, next, syncs: 0, power: Power::On, calls: Vec::new(), cut_at: None, capacity: None }
    }

    fn load(&mut self, path: &Path) -> u64 {
        let number = self.next;
        self.next += 1;
        let name = path.file_name().unwrap_or_default().to_owned();
        let content = if path.is_dir() {
            let entries = std::fs::read_dir(path).expect("ours").map(|entry| entry.expect("ours"));
            let mut names: Vec<_> = entries.map(|entry| (entry.file_name(), entry.path())).collect();
            names.sort();
            Content::Folder(names.into_iter().map(|(name, path)| (name, self.load(&path))).collect())
        } else {
            Content::File(std::fs::read(path).expect("ours"))
        };
        self.nodes.insert(number, Node { name, now: content.clone(), durable: content });
        number
    }

    fn make(&mut self, parent: u64, name: &OsStr, content: Content) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, Node { name: name.to_owned(), now: content.clone(), durable: content });
        self.folder(parent).insert(name.to_owned(), number);
        number
    }

    fn folder(&mut self, number: u64) -> &mut Names {
        match &mut self.nodes.get_mut(&number).expect("the kernel knows it").now {
            Content::Folder(names) => names,
            Content::File(_) => panic!("{number} is no folder"),
        }
    }

    fn bytes(&mut self, number: u64) -> &mut Vec<u8> {
        match &mut self.nodes.get_mut(&number).expect("the kernel knows it").now {
            Content::File(bytes) => bytes,
            Content::Folder(_) => panic!("{number} is a folder"),
        }
    }

    /// Of bytes, by all files that have a name.
    fn used(&self) -> u64 {
        let names = self.nodes.values().filter_map(|node| match &node.now {
            Content::Folder(names) => Some(names.values()),
            Content::File(_) => None,
        });
        names.flatten().map(|number| self.attributes(*number).size).sum()
    }

    /// Fails where there is no room for it.
    fn write(&mut self, number: u64, from: usize, data: &[u8], durable: bool) -> Result<(), Errno> {
        let grows = (from + data.len()).saturating_sub(self.bytes(number).len()) as u64;
        if let Some(Capacity { bytes, is_quota }) = self.capacity.filter(|_| grows > 0)
            && self.used() + grows > bytes
        {
            return Err(if is_quota { Errno::EDQUOT } else { Errno::ENOSPC });
        }
        let put = |content: &mut Content| {
            let Content::File(bytes) = content else { panic!("{number} is a folder") };
            bytes.resize(bytes.len().max(from + data.len()), 0);
            bytes[from..from + data.len()].copy_from_slice(data);
        };
        let node = self.nodes.get_mut(&number).expect("the kernel knows it");
        put(&mut node.now);
        if durable && self.power == Power::On {
            put(&mut node.durable);
            self.syncs += 1;
        }
        Ok(())
    }

    fn sync(&mut self, number: u64) {
        if self.power != Power::On {
            return;
        }
        let node = self.nodes.get_mut(&number).expect("the kernel knows it");
        node.durable = node.now.clone();
        self.syncs += 1;
    }

    fn attributes(&self, number: u64) -> FileAttr {
        let (kind, size, perm) = match &self.nodes[&number].now {
            Content::File(bytes) => (FileType::RegularFile, bytes.len() as u64, 0o644),
            Content::Folder(_) => (FileType::Directory, 0, 0o755),
        };
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

struct Forgetful(Disk);

impl Filesystem for Forgetful {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut files = self.0.files();
        match files.folder(parent.0).get(name).copied() {
            Some(number) => reply.entry(&KEPT, &files.attributes(number), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KEPT, &self.0.files().attributes(number.0));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map(|size| {
            self.0.act(number.0, None, "resize", false, |files| files.bytes(number.0).resize(size as usize, 0))
        });
        match resized {
            None | Some(Some(())) => reply.attr(&KEPT, &self.0.files().attributes(number.0)),
            Some(None) => reply.error(Errno::EIO),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let make = |files: &mut Files| {
            let number = files.make(parent.0, name, Content::Folder(Names::new()));
            files.attributes(number)
        };
        match self.0.act(parent.0, Some(name), "mkdir", false, make) {
            Some(attributes) => reply.entry(&KEPT, &attributes, Generation(0)),
            None => reply.error(Errno::EIO),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let make = |files: &mut Files| {
            let number = files.make(parent.0, name, Content::File(Vec::new()));
            files.attributes(number)
        };
        match self.0.act(parent.0, Some(name), "create", false, make) {
            Some(attributes) => {
                reply.created(&KEPT, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.0.act(parent.0, Some(name), "unlink", false, |files| files.folder(parent.0).remove(name)) {
            Some(_) => reply.ok(),
            None => reply.error(Errno::EIO),
        }
    }

    fn rename(
        &self,
        _: &Request,
        from: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        // Its two names would be drawn apart, and the file be there twice or not at all.
        if from != to {
            return reply.error(Errno::EXDEV);
        }
        let rename = |files: &mut Files| {
            let number = files.folder(from.0).remove(name)?;
            files.folder(to.0).insert(new.to_owned(), number);
            files.nodes.get_mut(&number).expect("it has a name").name = new.to_owned();
            Some(())
        };
        match self.0.act(to.0, Some(new), "rename to", false, rename) {
            Some(Some(())) => reply.ok(),
            Some(None) => reply.error(Errno::ENOENT),
            None => reply.error(Errno::EIO),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut files = self.0.files();
        let bytes = files.bytes(number.0);
        let from = (offset as usize).min(bytes.len());
        reply.data(&bytes[from..(from + size as usize).min(bytes.len())]);
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // RWF_DSYNC of a single write comes so, too.
        let durable = flags.0 & libc::O_DSYNC != 0;
        let write = |files: &mut Files| files.write(number.0, offset as usize, data, durable);
        match self.0.act(number.0, None, "write", true, write) {
            Some(Ok(())) => reply.written(data.len() as u32),
            Some(Err(full)) => reply.error(full),
            None => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.sync(number.0, reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.sync(number.0, reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut files = self.0.files();
        let names: Vec<(OsString, u64)> =
            files.folder(number.0).iter().map(|(name, number)| (name.clone(), *number)).collect();
        for (at, (name, number)) in (1..).zip(names).skip(offset as usize) {
            if reply.add(INodeNo(number), at, files.attributes(number).kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK_BYTES: u64 = 4096;
        let files = self.0.files();
        let blocks = files.capacity.filter(|capacity| !capacity.is_quota);
        let blocks = blocks.map_or(1 << 24, |capacity| capacity.bytes / BLOCK_BYTES);
        let free = blocks.saturating_sub(files.used().div_ceil(BLOCK_BYTES));
        reply.statfs(blocks, free, free, 1 << 20, 1 << 20, BLOCK_BYTES as u32, 255, BLOCK_BYTES as u32);
    }
}
