//! What the file system that forgets keeps and what it drops, and that it is full.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;

use crate::forgetful::{Disk, Dropped, Left, SECTOR_BYTES};
use crate::rng::Rng;

/// A disk on which "old", of three sectors, and "from" were durable before `act` worked on it.
fn acted_on(act: impl FnOnce(&Disk, &Path)) -> Disk {
    let folder = tempfile::tempdir().expect("a folder");
    let [plain, mounted] = ["plain", "mounted"].map(|name| folder.path().join(name));
    [&plain, &mounted].into_iter().for_each(|path| std::fs::create_dir(path).expect("ours"));
    std::fs::write(plain.join("old"), [b'o'; 3 * SECTOR_BYTES]).expect("ours");
    std::fs::write(plain.join("from"), "moved").expect("ours");
    let disk = Disk::of(&plain);
    let _mount = disk.mount(&mounted);
    act(&disk, &mounted);
    disk
}

/// Names and bytes, as a power cut leaves them.
fn left(disk: &Disk, left: Left, rng: &mut Rng) -> (BTreeMap<String, Vec<u8>>, Dropped) {
    let folder = tempfile::tempdir().expect("a folder");
    let dropped = disk.after_a_power_cut(left, rng, folder.path());
    let entries = std::fs::read_dir(folder.path()).expect("ours").map(|entry| entry.expect("ours"));
    let files = entries
        .map(|entry| (entry.file_name().into_string().expect("ours"), std::fs::read(entry.path()).expect("ours")));
    (files.collect(), dropped)
}

fn sync(path: &Path) {
    File::open(path).and_then(|file| file.sync_all()).expect("ours");
}

#[test]
fn what_was_synced_outlives_a_power_cut_and_nothing_else_does() {
    let disk = acted_on(|_, at| {
        std::fs::write(at.join("synced"), "synced").expect("ours");
        std::fs::write(at.join("written"), "written").expect("ours");
        let durable = File::options().write(true).create_new(true).custom_flags(libc::O_DSYNC).open(at.join("dsync"));
        durable.and_then(|mut file| file.write_all(b"dsync")).expect("ours");
        sync(&at.join("synced"));
        // All names so far, and none from here on.
        sync(at);
        std::fs::write(at.join("old"), [b'n'; 4 * SECTOR_BYTES]).expect("ours");
        std::fs::write(at.join("unnamed"), "its bytes are synced").expect("ours");
        sync(&at.join("unnamed"));
        std::fs::remove_file(at.join("dsync")).expect("ours");
        std::fs::rename(at.join("from"), at.join("to")).expect("ours");
    });
    let (files, dropped) = left(&disk, Left::Nothing, &mut Rng::new(1));
    let expected = [
        ("dsync", &b"dsync"[..]),
        ("from", b"moved"),
        ("old", &[b'o'; 3 * SECTOR_BYTES]),
        ("synced", b"synced"),
        ("written", b""),
    ];
    assert_eq!(files, expected.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).into());
    // Of "written" and "old"; "unnamed", "dsync", "from" and "to".
    assert_eq!(dropped, Dropped { bytes: 7 + 4 * SECTOR_BYTES as u64, names: 4 });
}

#[test]
fn after_some_power_cuts_some_sectors_and_some_names_are_new_and_a_renamed_file_has_one() {
    let disk = acted_on(|_, at| {
        std::fs::write(at.join("old"), [b'n'; 3 * SECTOR_BYTES]).expect("ours");
        ["a", "b"].iter().for_each(|name| std::fs::write(at.join(name), "").expect("ours"));
        std::fs::rename(at.join("from"), at.join("to")).expect("ours");
    });
    let (mut rng, mut names, mut sectors) = (Rng::new(1), BTreeSet::new(), BTreeSet::new());
    for _ in 0..500 {
        let (files, _) = left(&disk, Left::Some, &mut rng);
        let moved: Vec<_> = ["from", "to"].iter().filter_map(|name| files.get(*name)).collect();
        assert_eq!(moved, [b"moved"], "{:?}", files.keys());
        sectors.insert([0, 1, 2].map(|sector| files["old"][sector * SECTOR_BYTES]));
        names.insert(["a", "b", "to"].map(|name| files.contains_key(name)));
    }
    assert_eq!((names.len(), sectors.len()), (8, 8), "each mixture of old and new: {names:?}, {sectors:?}");
}

#[test]
fn a_write_in_flight_when_the_power_goes_is_not_answered_and_those_before_it_are_durable() {
    let mut answered = 0;
    let disk = acted_on(|disk, at| {
        let file = File::options().write(true).custom_flags(libc::O_DSYNC).open(at.join("old")).expect("ours");
        let write = || (0..).take_while(|_| (&file).write_all(&[b'n'; SECTOR_BYTES]).is_ok()).count();
        answered = std::thread::scope(|scope| {
            let writer = scope.spawn(write);
            disk.cut();
            disk.let_go();
            writer.join().expect("it ends with the first error")
        });
    });
    let (files, dropped) = left(&disk, Left::Nothing, &mut Rng::new(1));
    let mut expected = vec![b'n'; answered * SECTOR_BYTES];
    expected.resize(expected.len().max(3 * SECTOR_BYTES), b'o');
    assert_eq!((&files["old"], dropped.bytes), (&expected, SECTOR_BYTES as u64), "{answered} writes were answered");
}

#[test]
fn a_disk_with_so_much_room_takes_no_more_and_says_how_much_is_left() {
    acted_on(|disk, at| {
        disk.leave_free(8 * 4096);
        std::fs::write(at.join("fits"), vec![b'n'; 7 * 4096]).expect("it has room");
        let full = std::fs::write(at.join("not"), vec![b'n'; 2 * 4096]).expect_err("it has none");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        // What is there already is written over.
        std::fs::write(at.join("from"), "m").expect("it needs no room");
        std::fs::remove_file(at.join("fits")).expect("ours");
        let free = rustix::fs::statvfs(at).map(|disk| disk.f_bavail * disk.f_frsize).expect("it tells");
        assert!((7 * 4096..=8 * 4096).contains(&free), "{free}");
    });
}
