//! Drives. Polling of the NIC's queues by the ring itself: before it sleeps, the kernel looks into the queues that its connections'
//! packets came by. It learns of a queue when a receive is armed on a connection that has one.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::IoUring;
use io_uring::types::Napi;

use crate::config::{NapiMode, RingConfig};
use crate::net::sockopt;

/// Set until the process has seen its first connection of a ring that polls: whether the NIC takes part shows there alone.
static UNSEEN: AtomicBool = AtomicBool::new(false);

/// Tells a new ring to poll, where that is asked for.
pub(super) fn register(ring: &IoUring, config: &RingConfig) -> io::Result<()> {
    if config.napi == NapiMode::Off {
        return Ok(());
    }
    let prefer = config.napi == NapiMode::Prefer;
    let mut napi = Napi::new().set_busy_poll_timeout(config.busy_poll_us).set_prefer_busy_poll(prefer);
    ring.submitter().register_napi(&mut napi)?;
    UNSEEN.store(true, Ordering::Relaxed);
    Ok(())
}

/// What a new connection shows, said once.
pub(super) fn look(stream: &TcpStream) {
    if UNSEEN.load(Ordering::Relaxed) && UNSEEN.swap(false, Ordering::Relaxed) {
        match sockopt::incoming_napi_id(stream) {
            Ok(0) => tracing::warn!(
                "--napi does nothing for the first connection: it came by a device without a NAPI queue (SO_INCOMING_NAPI_ID is 0); \
                 loopback has none, and a veth only with GRO on, and TSO off at its other end"
            ),
            Ok(id) => tracing::info!(id, "--napi: the first connection came by a NAPI queue, which is polled"),
            Err(error) => tracing::warn!("--napi: SO_INCOMING_NAPI_ID cannot be read: {error}"),
        }
    }
}

/// Whether the kernel would take it.
pub fn try_to_register(config: &RingConfig) -> io::Result<()> {
    let ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8)?;
    let prefer = config.napi == NapiMode::Prefer;
    let mut napi = Napi::new().set_busy_poll_timeout(config.busy_poll_us).set_prefer_busy_poll(prefer);
    ring.submitter().register_napi(&mut napi)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The kernel hands what was set before back: what a ring was told shows when it is told again.
    #[test]
    fn a_ring_that_polls_was_told_how() {
        for (napi, prefer) in [(NapiMode::On, false), (NapiMode::Prefer, true)] {
            let config = RingConfig { busy_poll_us: 40, napi, ..Config::default().ring };
            if let Err(error) = try_to_register(&config) {
                // Before 6.9, or built without CONFIG_NET_RX_BUSY_POLL: then a start says so.
                let known = [libc::EINVAL, libc::EOPNOTSUPP].map(Some);
                assert!(known.contains(&error.raw_os_error()), "{error}");
                return;
            }
            let ring = IoUring::new(8).unwrap();
            register(&ring, &config).unwrap();
            let mut again = Napi::new();
            ring.submitter().register_napi(&mut again).unwrap();
            assert_eq!((again.busy_poll_timeout(), again.prefer_busy_poll()), (40, prefer));
        }
    }
}
