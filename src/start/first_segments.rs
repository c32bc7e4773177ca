//! Drives. The segments in which this incarnation begins its logs: those of all cores are made before a first frame is written in any, so that
//! a start for which the disk has no room leaves the logs as they were, however often it is tried.

use std::path::Path;
use std::time::Duration;

use super::Failure;
use crate::exit::Exit;
use crate::wal::prepare::prepare_segment;
use crate::wal::segments::delete_segment;

/// `logs`: a log's directory and its next segment, of each core. Where one cannot be made, none is left of those that were.
pub fn make_first_segments(logs: &[(&Path, u64)], bytes: u64) -> Result<(), Failure> {
    for (made, (dir, segment)) in logs.iter().enumerate() {
        prepare_segment(dir, *segment, bytes, Duration::ZERO).map_err(|error| {
            for (dir, segment) in &logs[..made] {
                // The next start deletes what stays: nothing was ever written to it.
                let _ = delete_segment(dir, *segment);
            }
            unprepared(dir, *segment, &error)
        })?;
    }
    Ok(())
}

/// Of a segment that cannot be written to.
pub fn unprepared(dir: &Path, segment: u64, error: &std::io::Error) -> Failure {
    Failure {
        exit: Exit::LogWriteFailed,
        text: format!(
            "segment {segment:010} in {} could not be prepared: {error}. Look at the disk and its room before a restart",
            dir.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_cannot_be_made_those_of_the_other_cores_go_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let logs = ["0", "1", "2"].map(|core| dir.path().join(core));
        logs[..2].iter().for_each(|log| std::fs::create_dir(log).expect("made"));
        let wanted = [0, 1, 2].map(|core| (&*logs[core], 7));
        let failure = make_first_segments(&wanted, 4096).expect_err("the last log has no directory");
        assert!(failure.exit == Exit::LogWriteFailed && failure.text.contains("segment 0000000007"), "{failure:?}");
        let left = || logs.iter().filter(|log| log.join("0000000007.seg").exists()).count();
        assert_eq!(left(), 0);
        std::fs::create_dir(&logs[2]).expect("made");
        make_first_segments(&wanted, 4096).expect("each has its directory");
        assert_eq!(left(), 3);
    }
}
