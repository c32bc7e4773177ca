//! Drives. Every port of the process, taken before anything is read or begun.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::config::{Config, SinkKind};
use crate::exit::Exit;
use crate::net::listener::{self, Bound, ListenTuning};
use crate::run::Work;
use crate::start::Failure;

/// The ring of a killed process holds its listening socket until the kernel has taken the ring down, which was seen to last
/// 120 ms beyond the process: a supervisor that starts it again at once must not be told that the address is taken.
const ADDRESS_WAIT: Duration = Duration::from_secs(2);

pub(super) struct Listeners {
    /// One for each core; none where no clicks are taken.
    pub clicks: Vec<Bound>,
    /// Where there is a store to ask.
    pub query: Option<TcpListener>,
    pub admin: TcpListener,
}

/// Every port, and what the ready line says of them. Those that are not to be had are named all at once.
pub(super) fn listen(config: &Config, work: Work) -> Result<(Listeners, String), Failure> {
    let query = match config.export.sink {
        SinkKind::Embedded => bind_tcp("--query-listen", config.query_listen).map(Some),
        SinkKind::Kafka => Ok(None),
    };
    let admin = bind_tcp("--admin-listen", config.admin_listen);
    let clicks = match work {
        Work::Serve | Work::Demo => bind_clicks(config.listen, config.cores(), &ListenTuning::of(config)),
        // A client, or a balancer, sees at once that nobody is here; and another edge may have the address by now.
        Work::ExportAll => Ok(Vec::new()),
    };
    let listeners = match (clicks, query, admin) {
        (Ok(clicks), Ok(query), Ok(admin)) => Listeners { clicks, query, admin },
        (clicks, query, admin) => {
            let refused = [clicks.err(), query.err(), admin.err()];
            let text = refused.into_iter().flatten().collect::<Vec<_>>().join("; ");
            return Err(Failure { exit: Exit::Unavailable, text });
        }
    };
    let mut addresses: Vec<String> =
        listeners.clicks.first().iter().map(|clicks| format!("listen={}", clicks.address())).collect();
    for (name, listener) in [("query", listeners.query.as_ref()), ("admin", Some(&listeners.admin))] {
        let Some(listener) = listener else { continue };
        let address = listener.local_addr().map_err(Failure::unavailable("a port's address"))?;
        addresses.push(format!("{name}={address}"));
    }
    Ok((listeners, addresses.join(" ")))
}

/// Waits a moment for an address that is in use: it may be our own, of before a kill.
fn bind_clicks(address: SocketAddr, cores: u16, tuning: &ListenTuning) -> Result<Vec<Bound>, String> {
    let until = Instant::now() + ADDRESS_WAIT;
    loop {
        match listener::bind(address, cores, tuning) {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(bind_failed("--listen", address, &error)),
        }
    }
}

fn bind_tcp(flag: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| bind_failed(flag, address, &error))
}

fn bind_failed(flag: &str, address: SocketAddr, error: &std::io::Error) -> String {
    format!("cannot listen on {address}: {error}; name another address with {flag}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, RecvTimeoutError};

    #[test]
    fn an_address_that_becomes_free_in_a_moment_is_waited_for() {
        let killed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = killed.local_addr().unwrap();
        let (sender, bound) = mpsc::channel();
        let starting =
            std::thread::spawn(move || sender.send(bind_clicks(address, 1, &ListenTuning::default()).is_ok()));
        let early = bound.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "gave up, or took an address that is in use");
        drop(killed);
        assert_eq!(bound.recv(), Ok(true));
        starting.join().unwrap().unwrap();
    }
}
