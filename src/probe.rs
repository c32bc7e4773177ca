//! What tollgate needs of the host, tried at start: kernel, io_uring, O_DIRECT, descriptors. Each failure is named with its
//! remedy; all of them are shown at once, and the process ends with exit code 69.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tollgate_global::PortLimits;

use crate::config::Config;
use crate::net::ring_probe::{self, RingFailure};

/// The oldest kernel with DEFER_TASKRUN, and one that is still maintained.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Descriptors beside the connections': those of the query and the admin port, log, store, standard streams.
const FILES_BESIDE_CONNECTIONS: u64 =
    (PortLimits::QUERY.connections_max + PortLimits::ADMIN.connections_max) as u64 + 256;

/// One thing that is missing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// Everything that is missing on this host; empty where all is there. Makes the data directory, and raises the soft limit
/// of open files as far as the hard one.
pub fn probe(config: &Config) -> Vec<Missing> {
    let host = Host::read();
    let ring = ring_probe::probe(config.ring.entries).err().map(|failure| host.ring_missing(&failure));
    [host.kernel_missing(), ring, direct_missing(&config.data_dir), files_missing(config.http.connections_max)]
        .into_iter()
        .flatten()
        .collect()
}

/// What `/proc` says that helps to tell causes apart.
struct Host {
    release: String,
    /// `kernel.io_uring_disabled`: 0 everybody may, 1 only its group, 2 nobody. Absent before 6.6.
    io_uring_disabled: Option<u8>,
    /// A seccomp filter is in force.
    seccomp: bool,
    memlock: String,
}

impl Host {
    fn read() -> Host {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let limits = text("/proc/self/limits");
        let memlock = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        Host {
            release: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            io_uring_disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            seccomp: text("/proc/self/status").lines().any(|line| line == "Seccomp:\t2"),
            memlock: memlock.and_then(|rest| rest.split_whitespace().next()).unwrap_or("unknown").to_owned(),
        }
    }

    fn kernel_missing(&self) -> Option<Missing> {
        let version = parse_release(&self.release)?;
        (version < KERNEL_MIN).then(|| Missing {
            what: format!("kernel {} is older than {}.{}", self.release, KERNEL_MIN.0, KERNEL_MIN.1),
            remedy: "run a 6.1 LTS kernel or a later one".to_owned(),
        })
    }

    fn ring_missing(&self, failure: &RingFailure) -> Missing {
        let missing = |what: &str, remedy: &str| Missing { what: what.to_owned(), remedy: remedy.to_owned() };
        const SECCOMP: &str = "a seccomp filter is in force: Docker (since 25) and containerd (2.x) refuse io_uring in their \
             default profile; run with --security-opt seccomp=FILE that allows io_uring_setup, io_uring_enter and \
             io_uring_register";
        match failure {
            RingFailure::NotPermitted => match self.io_uring_disabled {
                Some(1) => missing(
                    "io_uring is not permitted (EPERM): kernel.io_uring_disabled is 1",
                    "set sysctl kernel.io_uring_disabled=0, or kernel.io_uring_group to a group of this user",
                ),
                Some(2..) => missing(
                    "io_uring is not permitted (EPERM): kernel.io_uring_disabled is 2",
                    "set sysctl kernel.io_uring_disabled=0",
                ),
                Some(0) | None if self.seccomp => missing("io_uring is not permitted (EPERM)", SECCOMP),
                Some(0) | None => missing(
                    "io_uring is not permitted (EPERM)",
                    "a security module (SELinux, AppArmor, a sandbox) refuses it; allow io_uring_setup for this process",
                ),
            },
            RingFailure::NotThere if self.seccomp => missing("io_uring is not there (ENOSYS)", SECCOMP),
            RingFailure::NotThere => missing(
                "io_uring is not there (ENOSYS)",
                "the kernel was built without CONFIG_IO_URING, or this is a sandbox such as gVisor; use a stock kernel",
            ),
            RingFailure::TooOld => missing(
                "io_uring lacks DEFER_TASKRUN and SINGLE_ISSUER (EINVAL)",
                "run kernel 6.1 or later; where it is, --ring-entries may be beyond what it allows",
            ),
            RingFailure::Memory => Missing {
                what: format!(
                    "io_uring could not get its memory (ENOMEM); the limit of locked memory is {}",
                    self.memlock
                ),
                remedy: "raise it (ulimit -l, LimitMEMLOCK= in systemd, --ulimit memlock=-1 in Docker) or lower \
                         --ring-entries"
                    .to_owned(),
            },
            RingFailure::Other(errno) => Missing {
                what: format!("io_uring could not be set up: {}", io::Error::from_raw_os_error(*errno)),
                remedy: "see the kernel's log".to_owned(),
            },
            RingFailure::Missing(names) => Missing {
                what: format!("io_uring lacks the operations {}", names.join(", ")),
                remedy: "run kernel 6.1 or later without restrictions on io_uring".to_owned(),
            },
        }
    }
}

/// `6.18.44-arch1` as (6, 18).
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// linux/magic.h.
const TMPFS_MAGIC: libc::c_long = 0x0102_1994;
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// How the name of the file begins that is written to try a directory. A kill may leave one there.
pub const PROBE_PREFIX: &str = ".probe-";

/// Writes one synced block past the page cache, as the log does.
fn direct_missing(data_dir: &Path) -> Option<Missing> {
    let error = try_direct(data_dir).err()?;
    let shown = data_dir.display();
    Some(if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMEDIUMTYPE)) {
        Missing {
            what: format!(
                "--data-dir {shown}: its file system does not keep what is written past the page cache (O_DIRECT)"
            ),
            remedy: "put it on ext4, XFS or Btrfs; not on tmpfs, a container's overlay or a network share".to_owned(),
        }
    } else {
        Missing {
            what: format!("--data-dir {shown}: {error}"),
            remedy: "it must be a directory that this user may write in, on a disk with room".to_owned(),
        }
    })
}

fn try_direct(data_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    // These take direct writes, and keep them in memory alone.
    if matches!(rustix::fs::statfs(data_dir)?.f_type, TMPFS_MAGIC | RAMFS_MAGIC) {
        return Err(io::Error::from_raw_os_error(libc::EMEDIUMTYPE));
    }
    let path = data_dir.join(format!("{PROBE_PREFIX}{}", std::process::id()));
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    let opened = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(&path);
    // Before anything else can fail or be killed, and where the open was refused: that may have left the file.
    let removed = fs::remove_file(&path);
    let file = opened?;
    removed?;
    let block = memmap2::MmapMut::map_anon(4096)?;
    file.write_all_at(&block, 0)
}

/// A soft limit of 1,024 is usual and too little; the hard one is the administrator's word.
fn files_missing(connections_max: u32) -> Option<Missing> {
    let need = u64::from(connections_max) + FILES_BESIDE_CONNECTIONS;
    let limit = raise_files(need);
    (limit < need).then(|| Missing {
        what: format!("{limit} open files are allowed, --connections-max {connections_max} needs {need}"),
        remedy: "raise the hard limit (ulimit -Hn, LimitNOFILE= in systemd) or lower --connections-max".to_owned(),
    })
}

/// Raises the soft limit to `need`, or as near as the hard one allows; returns the soft limit then in force.
fn raise_files(need: u64) -> u64 {
    let limits = getrlimit(Resource::Nofile);
    let (soft, hard) = (limits.current.unwrap_or(u64::MAX), limits.maximum.unwrap_or(u64::MAX));
    let raised = need.min(hard);
    if soft >= raised {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limits.maximum }) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(io_uring_disabled: Option<u8>, seccomp: bool) -> Host {
        Host { release: "5.15.0-91-generic".to_owned(), io_uring_disabled, seccomp, memlock: "65536".to_owned() }
    }

    #[test]
    fn releases_are_read() {
        for (text, want) in
            [("6.18.44-fc", Some((6, 18))), ("6.1.0", Some((6, 1))), ("5.15", Some((5, 15))), ("", None), ("x.y", None)]
        {
            assert_eq!(parse_release(text), want, "{text}");
        }
    }

    #[test]
    fn an_old_kernel_is_named() {
        assert!(host(None, false).kernel_missing().unwrap().what.contains("5.15.0-91-generic is older than 6.1"));
        let good = Host { release: "6.1.0".to_owned(), ..host(None, false) };
        assert_eq!(good.kernel_missing(), None);
    }

    #[test]
    fn each_cause_has_its_remedy() {
        for (failure, disabled, seccomp, want) in [
            (RingFailure::NotPermitted, Some(1), false, "kernel.io_uring_group"),
            (RingFailure::NotPermitted, Some(2), true, "sysctl kernel.io_uring_disabled=0"),
            (RingFailure::NotPermitted, Some(0), true, "--security-opt seccomp="),
            (RingFailure::NotPermitted, None, false, "security module"),
            (RingFailure::NotThere, None, true, "--security-opt seccomp="),
            (RingFailure::NotThere, None, false, "CONFIG_IO_URING"),
            (RingFailure::TooOld, None, false, "6.1 or later"),
            (RingFailure::Memory, None, false, "ulimit -l"),
            (RingFailure::Missing(vec!["send"]), None, false, "6.1 or later"),
        ] {
            let missing = host(disabled, seccomp).ring_missing(&failure);
            assert!(missing.remedy.contains(want), "{failure:?}: {missing}");
            assert!(!missing.to_string().contains('\n'));
        }
    }

    #[test]
    fn a_directory_that_cannot_be_is_named_with_its_remedy() {
        let missing = direct_missing(Path::new("/proc/no-such-place")).unwrap();
        assert!(missing.to_string().contains("--data-dir /proc/no-such-place: "), "{missing}");
    }

    #[test]
    fn a_file_system_that_does_direct_writes_passes_and_keeps_nothing() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(direct_missing(dir.path()), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn more_connections_than_descriptors_are_named() {
        let missing = files_missing(u32::MAX).unwrap();
        assert!(missing.what.contains("4294967295") && missing.remedy.contains("LimitNOFILE"), "{missing}");
    }
}
