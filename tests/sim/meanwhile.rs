//! Drives. What else a process does while it writes to a log, as a power cut may leave it beside that write: what the other cores write, sector
//! by sector; a segment that the keeper makes, or one that is deleted; the mirror, written aside.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tollgate::cut::Position;
use tollgate::event::LogWrite;
use tollgate::export::mirror;
use tollgate::wal::segments::LogDir;

use crate::disk::Disk;
use crate::found::read;
use crate::images::of;
use crate::keeper::Work;
use crate::rng::Rng;
use crate::world::World;

/// In percent: where a mirror is kept, it is being written.
const MIRROR: u64 = 30;

/// It lies on the disk until it is undone.
#[derive(Default)]
pub struct Meanwhile {
    undo: Vec<Undo>,
    /// Writes of other cores, segments and mirrors of which a part is there.
    pub writes: u64,
    pub segments: u64,
    pub mirrors: u64,
}

enum Undo {
    Bytes { file: File, offset: u64, before: Vec<u8> },
    Made(PathBuf),
    Moved { from: PathBuf, to: PathBuf },
}

impl World {
    /// Leaves of all that is under way what chance will.
    pub fn meanwhile(&self, confirmed: &[Position], rng: &mut Rng) -> Meanwhile {
        let mut meanwhile = Meanwhile::default();
        let Some(server) = &self.server else { return meanwhile };
        for (log, write, bytes) in server.writing() {
            meanwhile.tear(&self.disk, log, write, bytes, of(log, confirmed), rng);
        }
        match server.keeper_works() {
            Some(Work::Makes(log, segment)) => {
                self.disk.prepare_in_part(log, segment, server.segment_bytes, rng);
                meanwhile.segments += 1;
                meanwhile.undo.push(Undo::Made(log.segment_path(segment)));
            }
            Some(Work::Deletes(log, segment)) => {
                meanwhile.segments += 1;
                meanwhile.moves(log.segment_path(segment), self.disk.dir.path().join("deleted"));
            }
            None => {}
        }
        let place = mirror::path(self.disk.dir.path());
        if let Ok(bytes) = std::fs::read(&place)
            && rng.percent(MIRROR)
        {
            let aside = place.with_extension("new");
            std::fs::write(&aside, &bytes[..rng.index(bytes.len())]).expect("the simulated disk takes it");
            meanwhile.mirrors += 1;
            meanwhile.undo.push(Undo::Made(aside));
        }
        meanwhile
    }
}

impl Meanwhile {
    /// A write of another log: all of it, or nothing is found there.
    fn tear(
        &mut self,
        disk: &Disk,
        log: &LogDir,
        write: &LogWrite,
        bytes: &[u8],
        known: Option<&Position>,
        rng: &mut Rng,
    ) {
        let file = OpenOptions::new().read(true).write(true).open(log.segment_path(write.segment));
        let file = file.expect("a segment is prepared before it is written to");
        let mut before = vec![0; bytes.len()];
        let mut there = before.clone();
        file.read_exact_at(&mut before, write.file_offset).expect("a segment has its whole length");
        let base = read(log, known).unwrap_or_else(|error| panic!("before a write, another log halts: {error}")).0;
        disk.tear(log, write, bytes, rng);
        file.read_exact_at(&mut there, write.file_offset).expect("a segment has its whole length");
        let found = read(log, known).unwrap_or_else(|error| panic!("a power cut halts another log: {error}")).0;
        let frames = base.len() + usize::from(there == bytes);
        assert!(found.len() == frames && found.starts_with(&base), "a power cut lost or made records of another log");
        self.writes += 1;
        self.undo.push(Undo::Bytes { file, offset: write.file_offset, before });
    }

    fn moves(&mut self, from: PathBuf, to: PathBuf) {
        std::fs::rename(&from, &to).expect("a segment that is freed is there");
        self.undo.push(Undo::Moved { from, to });
    }

    /// As it was before.
    pub fn undone(self) {
        for undo in self.undo {
            match undo {
                Undo::Bytes { file, offset, before } => file.write_all_at(&before, offset),
                Undo::Moved { from, to } => std::fs::rename(to, from),
                // Chance may have left nothing.
                Undo::Made(path) if !path.exists() => Ok(()),
                Undo::Made(path) => std::fs::remove_file(path),
            }
            .expect("the simulated disk takes it");
        }
    }
}
