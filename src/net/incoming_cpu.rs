//! Tries whether listeners of one address that name CPUs get the connections that arrive there. The kernel takes the option
//! without a word from 4.6 on, and follows it between such listeners from 6.2 on: so connections are made, and counted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use rustix::thread::CpuSet;

use crate::net::listener::{ListenTuning, bind};

/// All at one listener of two by chance: one in 65,536.
const CONNECTIONS: usize = 16;

/// How many of so many connections from a CPU came to its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    pub arrived: usize,
    pub of: usize,
}

/// Over loopback, where a packet is handled on the CPU that sends it. `cpus` are at least two.
pub fn try_over_loopback(cpus: &[usize]) -> io::Result<Tried> {
    let tuning = ListenTuning { incoming_cpus: cpus.to_vec(), ..ListenTuning::default() };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listeners = Vec::new();
    for bound in bind(any, cpus.len() as u16, &tuning)? {
        let address = bound.address();
        let listener = bound.listen()?;
        listener.set_nonblocking(true)?;
        listeners.push((listener, address));
    }
    let (own, address) = (&listeners[0].0, listeners[0].1);
    let cpu = cpus[0];
    let client = thread::Builder::new().name("incoming-cpu".to_owned()).spawn(move || {
        let mut set = CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)?;
        (0..CONNECTIONS).map(|_| TcpStream::connect(address)).collect::<io::Result<Vec<_>>>()
    })?;
    let connected = client.join().map_err(|_| io::Error::other("the thread that connects ended"))??;
    let arrived = std::iter::from_fn(|| own.accept().ok()).count();
    Ok(Tried { arrived, of: connected.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn two_cpus() -> Option<[usize; 2]> {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
        Some([cpus.next()?, cpus.next()?])
    }

    #[test]
    fn connections_from_a_cpu_come_to_its_listener() {
        // A machine with one CPU has one listener, which gets all.
        let Some([first, second]) = two_cpus() else { return };
        for cpus in [[first, second], [second, first]] {
            let tried = try_over_loopback(&cpus).unwrap();
            assert_eq!(tried, Tried { arrived: CONNECTIONS, of: CONNECTIONS }, "of {cpus:?}");
        }
    }

    #[test]
    fn without_the_option_they_are_spread() {
        let untuned = ListenTuning::of(&Config::default());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = bind(any, 2, &untuned).unwrap();
        let address = bound[0].address();
        let listeners: Vec<_> = bound.into_iter().map(|bound| bound.listen().unwrap()).collect();
        let connected: Vec<_> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted = listeners.iter().map(|listener| {
            listener.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| listener.accept().ok()).count()
        });
        let accepted: Vec<usize> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), connected.len());
        assert!(accepted.iter().all(|number| *number > 0), "by chance once in 2^63: {accepted:?}");
    }
}
