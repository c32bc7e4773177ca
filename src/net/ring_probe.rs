//! Tries at start what the ring will need, so that what is missing is named before the first connection instead of failing
//! under load. Nothing is trusted by version: the kernel is asked.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::config::{Config, NapiMode, RingConfig};
use crate::net::ring::napi;

/// Why io_uring cannot be used here.
#[derive(Debug, PartialEq, Eq)]
pub enum RingFailure {
    /// EPERM or EACCES: a sysctl, or a seccomp filter.
    NotPermitted,
    /// ENOSYS: the kernel was built without it, or a seccomp filter says so.
    NotThere,
    /// EINVAL: it does not know DEFER_TASKRUN, which came with 6.1; so it has neither multishot receive.
    TooOld,
    /// ENOMEM: memory, or the limit of locked memory.
    Memory,
    /// EMFILE, ENFILE or anything else, by its errno.
    Other(i32),
    /// Operations that the ring will submit and the kernel does not have.
    Missing(Vec<&'static str>),
}

/// Operations that the driver submits.
const NEEDED: [(&str, u8); 7] = [
    ("accept", opcode::Accept::CODE),
    ("recv", opcode::Recv::CODE),
    ("send", opcode::Send::CODE),
    ("cancel", opcode::AsyncCancel::CODE),
    ("read", opcode::Read::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("write", opcode::Write::CODE),
];

/// Sets a ring up with the driver's flags and this many entries, asks it for the operations, and drops it.
///
/// Multishot accept and receive and provided buffer rings cannot be asked for, but are older than DEFER_TASKRUN.
pub fn probe(entries: u32) -> Result<(), RingFailure> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(entries * 4)
        .build(entries)
        .map_err(|error| failure(&error))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| failure(&error))?;
    let missing: Vec<_> = NEEDED.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(RingFailure::Missing(missing)) }
}

/// What the ring does better where the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// It waits for a batch of completions, with a bound on how long.
    pub gathers: bool,
    /// It polls the NIC's queues.
    pub napi: bool,
}

/// `None`: no ring is to be had; [`probe`] says why.
pub fn features() -> Option<Features> {
    let ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8).ok()?;
    let napi = RingConfig { busy_poll_us: 1, napi: NapiMode::On, ..Config::default().ring };
    Some(Features { gathers: ring.params().is_feature_min_timeout(), napi: napi::try_to_register(&napi).is_ok() })
}

fn failure(error: &io::Error) -> RingFailure {
    match error.raw_os_error().unwrap_or(0) {
        libc::EPERM | libc::EACCES => RingFailure::NotPermitted,
        libc::ENOSYS => RingFailure::NotThere,
        libc::EINVAL => RingFailure::TooOld,
        libc::ENOMEM => RingFailure::Memory,
        errno => RingFailure::Other(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        for (errno, want) in [
            (libc::EPERM, RingFailure::NotPermitted),
            (libc::ENOSYS, RingFailure::NotThere),
            (libc::EINVAL, RingFailure::TooOld),
            (libc::ENOMEM, RingFailure::Memory),
            (libc::EMFILE, RingFailure::Other(libc::EMFILE)),
        ] {
            assert_eq!(failure(&io::Error::from_raw_os_error(errno)), want);
        }
    }

    #[test]
    fn an_impossible_number_of_entries_is_refused_by_the_kernel() {
        assert!(probe(1 << 20).is_err());
    }
}
