//! `up --demo` counts clicks that nobody made: in a directory of its own, and in no other.

use std::path::Path;
use std::process::{Child, Command};

use crate::server::{EXPORTS, PATIENCE, Server, audited, binary, copy, stopped, tollgate, wait_until};

const DEMO: [&str; 3] = ["--demo", EXPORTS[0], EXPORTS[1]];

/// Dropped, it is killed.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It does not start, says why in one line, and changes nothing in the directory.
#[track_caller]
fn refused(data_dir: &Path, flags: &[&str], says: &[&str]) {
    let before = files(data_dir);
    let errors = data_dir.with_extension("stderr");
    // What earlier ones said is not asked for.
    let _ = std::fs::remove_file(errors);
    let ended = Server::spawn(data_dir, flags).ended_within(PATIENCE);
    assert_eq!(ended.code, Some(64), "{flags:?}: {}", ended.errors);
    assert_eq!(ended.errors.lines().count(), 1, "{}", ended.errors);
    let dir = data_dir.display().to_string();
    assert!(says.iter().chain([&&*dir]).all(|words| ended.errors.contains(words)), "{says:?}: {}", ended.errors);
    assert_eq!(files(data_dir), before, "{flags:?} left something in {dir}");
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn clicks_that_nobody_made_are_never_counted_beside_real_ones_64() {
    let folder = tempfile::tempdir().expect("a folder");
    let [real, demo, copied] = ["real", "demo", "copied"].map(|name| folder.path().join(name));
    stopped(&real, 0, 5);
    refused(&real, &DEMO, &["--demo", "was not made by --demo", "--data-dir"]);
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).expect("made");
    std::fs::write(foreign.join("letter.txt"), "mine").expect("written");
    refused(&foreign, &DEMO, &["was not made by --demo"]);
    // Nor is one that has some program's logs where tollgate has its own.
    std::fs::create_dir(foreign.join("logs")).expect("made");
    std::fs::rename(foreign.join("letter.txt"), foreign.join("logs/app.log")).expect("moved");
    refused(&foreign, &DEMO, &["was not made by --demo"]);
    let server = Server::start(&real, &EXPORTS);
    assert_eq!(server.gross(None), 5);
    server.stop();
    // Without its identity and its store it is still one that clicks were taken into.
    let away = ["store.redb", "identity.toml"].map(|name| (real.join(name), folder.path().join(name)));
    away.iter().for_each(|(here, there)| std::fs::rename(here, there).expect("it is there"));
    refused(&real, &DEMO, &["was not made by --demo"]);
    away.iter().for_each(|(here, there)| std::fs::rename(there, here).expect("it is put back"));

    // One that is not there yet is a demo's, and stays one, through a kill, of which the first may come while it is marked; so is a copy.
    std::fs::create_dir_all(demo.join("logs")).expect("made");
    ["LOCK", "DEMO.new"].iter().for_each(|name| std::fs::write(demo.join(name), "").expect("written"));
    let server = Server::start(&demo, &DEMO);
    wait_until("clicks that nobody made", || server.gross(None) > 100);
    server.kill();
    copy(&demo, &copied);
    let kafka = ["--sink", "kafka", "--kafka-brokers", "127.0.0.1:9", "--edge-id", "e1"];
    for flags in [&EXPORTS[..], &["--until-exported"], &kafka] {
        for dir in [&demo, &copied] {
            refused(dir, flags, &["was made by --demo", "DEMO lies in it", "Name another --data-dir", "up --demo"]);
        }
    }
    let server = Server::start(&demo, &DEMO);
    wait_until("it goes on", || server.gross(None) > 100);
    server.stop();
    audited(&demo);
    audited(&real);
}

/// Where no directory is named, the one of `up` is not the one of `up --demo`. A directory for which tokens were made is new.
#[test]
fn a_demo_has_a_directory_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let spawn = |flags: &[&str]| {
        let mut command = Command::new(binary());
        command.current_dir(folder.path()).env_clear().args(flags).args(["--dedup-memory-bytes", "8MiB"]);
        for flag in ["--listen", "--query-listen", "--admin-listen"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        Killed(command.spawn().expect("the binary starts"))
    };
    let (code, text) = tollgate(&folder.path().join("tollgate-demo"), &["token", "create", "--all", "--new"]);
    assert_eq!(code, Some(0), "{text}");
    for (flags, dir, other) in
        [(&["up", "--demo"][..], "tollgate-demo", "tollgate-data"), (&["up"], "tollgate-data", "tollgate-none")]
    {
        let _up = spawn(flags);
        wait_until("it keeps a log", || folder.path().join(dir).join("store.redb").exists());
        assert!(!folder.path().join(other).exists(), "{flags:?} made {other}");
    }
    assert!(folder.path().join("tollgate-demo/DEMO").exists() && !folder.path().join("tollgate-data/DEMO").exists());
}
