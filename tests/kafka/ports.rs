//! Free loopback ports that stay free while nobody listens on them.

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's default range of ports that connections are given: a broker that is down must find its port free when it
/// comes back, and a client that knocks meanwhile must not be given that very port and be connected with itself.
const PORTS: Range<u16> = 16_000..32_000;

/// A loopback address that nobody listens on, and that this process has not handed out before.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let length = PORTS.end - PORTS.start;
    // Test binaries that run at the same time begin at different places.
    let first = (std::process::id().wrapping_mul(61) % u32::from(length)) as u16;
    for _ in 0..length {
        let at = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % length;
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + at));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free on the loopback");
}
