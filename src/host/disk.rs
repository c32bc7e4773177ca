//! Where a directory lies: its file system with the options that it is mounted with, and the block device below it.

use std::path::{Path, PathBuf};

use super::{Root, chosen};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub filesystem: String,
    /// Of the mount and of the file system.
    pub options: Vec<String>,
    /// `MAJOR:MINOR`.
    pub device: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    pub name: String,
    pub scheduler: Option<String>,
    /// `write back`: it has a cache that power loss empties, and the kernel flushes it; `write through`: the kernel never does.
    pub write_cache: Option<String>,
    pub rotational: Option<bool>,
}

/// The mount that holds `path`, which is absolute and without links.
pub fn mount_of(root: &Root, path: &Path) -> Option<Mount> {
    let text = root.text("proc/self/mountinfo")?;
    // Of several at one point the last lies on top.
    text.lines()
        .filter_map(mount)
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/root rw,errors=continue`.
fn mount(line: &str) -> Option<Mount> {
    let (of_mount, of_filesystem) = line.split_once(" - ")?;
    let mut words = of_mount.split(' ');
    let device = words.nth(2)?.to_owned();
    let point = words.nth(1)?;
    let mut options: Vec<String> = words.next()?.split(',').map(str::to_owned).collect();
    let mut words = of_filesystem.split(' ');
    let filesystem = words.next()?.to_owned();
    options.extend(words.nth(1).unwrap_or_default().split(',').map(str::to_owned));
    options.sort();
    options.dedup();
    Some(Mount { point: PathBuf::from(unescaped(point)), filesystem, options, device })
}

/// A space is written `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The device of a mount, or for a partition the disk that it is of. `None`: there is none, as below btrfs and overlays.
pub fn block_device(root: &Root, device: &str) -> Option<BlockDevice> {
    let folder = format!("sys/dev/block/{device}");
    let disk =
        [folder.clone(), format!("{folder}/..")].into_iter().find(|disk| root.exists(&format!("{disk}/queue")))?;
    let name = std::fs::canonicalize(root.path(&disk)).ok()?;
    let text = |file: &str| root.text(&format!("{disk}/queue/{file}"));
    Some(BlockDevice {
        name: name.file_name()?.to_string_lossy().into_owned(),
        scheduler: text("scheduler").map(|text| chosen(&text).unwrap_or(&text).to_owned()),
        write_cache: text("write_cache"),
        rotational: text("rotational").map(|text| text == "1"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    const MOUNTS: &str = "27 1 253:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                          30 27 259:2 / /data rw,noatime shared:3 master:1 - xfs /dev/nvme0n1p2 rw,nobarrier\n\
                          31 27 0:50 / /data/a\\040b rw - tmpfs tmpfs rw\n32 27 0:51 / /database rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_nearest_mount_holds_a_path() {
        let (_folder, root) = tree(&[("proc/self/mountinfo", MOUNTS)]);
        let of = |path: &str| mount_of(&root, Path::new(path)).unwrap();
        assert_eq!((of("/var/x").filesystem.as_str(), of("/data").device.as_str()), ("ext4", "259:2"));
        assert_eq!(of("/data/x").options, ["noatime", "nobarrier", "rw"]);
        assert_eq!(of("/data/a b/c").filesystem, "tmpfs");
        assert_eq!(of("/datab").filesystem, "ext4", "a name that only begins alike");
    }

    #[test]
    fn a_partitions_disk_has_the_queue() {
        let (folder, root) = tree(&[
            ("sys/devices/nvme0n1/queue/scheduler", "[none] mq-deadline\n"),
            ("sys/devices/nvme0n1/queue/write_cache", "write through\n"),
            ("sys/devices/nvme0n1/queue/rotational", "0\n"),
            ("sys/devices/nvme0n1/nvme0n1p2/partition", "2\n"),
            ("sys/dev/block/.keep", ""),
        ]);
        for (number, device) in [("259:0", "nvme0n1"), ("259:2", "nvme0n1/nvme0n1p2")] {
            let link = folder.path().join("sys/dev/block").join(number);
            std::os::unix::fs::symlink(format!("../../devices/{device}"), link).unwrap();
            let found = block_device(&root, number).unwrap();
            assert_eq!((found.name.as_str(), found.scheduler.as_deref()), ("nvme0n1", Some("none")), "{number}");
            assert_eq!((found.write_cache.as_deref(), found.rotational), (Some("write through"), Some(false)));
        }
        assert_eq!(block_device(&root, "0:50"), None);
    }
}
