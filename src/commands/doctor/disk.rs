//! The disk below the data directory: whether a sync is one, and how long it takes.

use super::Patient;
use super::finding::Finding;
use super::sync::Sync;
use crate::host::disk::{BlockDevice, block_device, mount_of};

const AREA: &str = "disk";

/// Options that keep a sync from reaching the disk.
const UNSAFE_OPTIONS: [&str; 3] = ["nobarrier", "barrier=0", "nobh"];

/// A click waits for the commit, so for this at least.
const SLOW_US: u64 = 2_000;
/// Quicker than flash and its bus: something else answered.
const TOO_QUICK_US: u64 = 8;

pub(super) fn findings(patient: &Patient) -> Vec<Finding> {
    let mut found = Vec::new();
    let mount = mount_of(patient.root, &patient.probed.place);
    if let Some(mount) = &mount {
        let (place, options) = (patient.probed.place.display(), mount.options.join(","));
        let finding = Finding::ok(AREA, "file system", format!("{place}: {} ({options})", mount.filesystem), "");
        let lost = mount.options.iter().find(|option| UNSAFE_OPTIONS.contains(&option.as_str()));
        found.push(match (mount.filesystem.as_str(), lost) {
            (_, Some(option)) => finding.problem(
                format!("mount it without {option}"),
                "the disk's cache is not flushed: power loss takes clicks that were acknowledged",
            ),
            ("ext4" | "xfs" | "btrfs", None) => finding,
            (other, None) => {
                finding.advice("ext4 or XFS", format!("{other} was not tried; the log needs O_DIRECT and RWF_DSYNC"))
            }
        });
        if mount.options.iter().any(|option| option == "discard" || option == "discard=async") {
            let trims = Finding::ok(AREA, "discard", "while mounted", "");
            found.push(trims.advice(
                "mount without discard, and fstrim.timer",
                "freed segments are trimmed at once, and syncs wait behind it",
            ));
        }
    }
    let device = mount.and_then(|mount| block_device(patient.root, &mount.device));
    found.extend(device.iter().flat_map(of_device));
    match &patient.probed.syncs {
        Ok(syncs) => found.extend(syncs.iter().map(latency)),
        Err(error) => {
            let finding = Finding::ok(AREA, "sync latency", format!("not measured: {error}"), "");
            found.push(
                finding
                    .problem("a directory that this user may write in, with O_DIRECT", "the log is written like this"),
            );
        }
    }
    found
}

fn of_device(device: &BlockDevice) -> Vec<Finding> {
    let BlockDevice { name, scheduler, write_cache, rotational } = device;
    let mut found = Vec::new();
    if let Some(cache) = write_cache {
        let why = match cache.as_str() {
            "write through" => {
                "no flush is sent: right where the disk has no cache, or one that outlives power loss; else set it back"
            }
            _ => "it has a cache that power loss empties, and each commit flushes it",
        };
        found.push(Finding::ok(AREA, format!("{name} write cache"), cache.clone(), why));
    }
    if let Some(scheduler) = scheduler {
        let finding = Finding::ok(AREA, format!("{name} scheduler"), scheduler.clone(), "");
        let quick = matches!(scheduler.as_str(), "none" | "mq-deadline");
        found.push(if quick || *rotational == Some(true) {
            finding
        } else {
            let why = "it holds single writes back to order them; the log has one at a time";
            finding.advice(format!("echo none > /sys/block/{name}/queue/scheduler"), why)
        });
    }
    if *rotational == Some(true) {
        // Virtual disks often say so without turning: the measure tells.
        found.push(Finding::ok(
            AREA,
            format!("{name} kind"),
            "rotational, or virtual",
            "the sync latency below tells which",
        ));
    }
    found
}

fn latency(sync: &Sync) -> Finding {
    let Sync { bytes, writes, median_us, p99_us, max_us } = sync;
    let found = format!("median {median_us} µs, 99 % {p99_us} µs, most {max_us} µs of {writes}");
    let finding = Finding::ok(AREA, format!("sync of {} KiB", bytes >> 10), found, "");
    if *median_us > SLOW_US {
        finding.advice("a disk that syncs within 2 ms", "each click waits for one of these")
    } else if *median_us < TOO_QUICK_US {
        finding.advice(
            "ask what answers",
            "no disk is as quick: a cache below this machine may hold what was acknowledged",
        )
    } else {
        finding
    }
}
