//! Drives. `tollgate status`: looks at a running edge twice, a second apart, through its admin port, and says on one screen how it is
//! and whether it needs a person.

mod report;
mod scrape;
mod screen;

use std::io::{self, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::wal::CommandError;
use crate::exit::Exit;
use report::{Look, Report};

/// Between the two looks: rates are of so long.
const APART: Duration = Duration::from_secs(1);

/// An edge answers at once, or within two seconds where its worker is stuck.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// /metrics has some 20 KiB.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Shows the edge whose admin port this is.
pub fn run(admin: &str, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let address = resolve(admin)?;
    let looked = || -> io::Result<Report> {
        let (first, began) = (look(address)?, Instant::now());
        std::thread::sleep(APART);
        let last = look(address)?;
        Ok(Report::new(admin, &first, &last, began.elapsed().as_secs_f64()))
    };
    let report = looked().map_err(|error| unreachable(admin, &error))?;
    if json {
        let text = serde_json::to_string_pretty(&report).expect("the report holds nothing that JSON cannot say");
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{}", screen::text(&report))?;
    }
    Ok(if report.needs.is_empty() { Exit::Clean } else { Exit::Difference })
}

fn unreachable(admin: &str, error: &io::Error) -> CommandError {
    let text = format!(
        "no edge answers at {admin}: {error}. If it should run, look at its service and at what it said last; if it runs, name its \
         --admin-listen with --admin"
    );
    CommandError::Halted(Exit::Unavailable, text)
}

/// What an edge listens on, as somebody on its host connects to it.
pub(super) fn resolve(admin: &str) -> Result<SocketAddr, CommandError> {
    let refused = |why: &str| {
        let text = format!("--admin {admin:?}: {why}; say an address and a port, such as 127.0.0.1:9464");
        CommandError::Refused(text)
    };
    let mut address = match admin.to_socket_addrs() {
        Ok(mut addresses) => addresses.next().ok_or_else(|| refused("the name has no address"))?,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(refused("no address")),
        Err(error) => return Err(unreachable(admin, &error)),
    };
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(address)
}

fn look(address: SocketAddr) -> io::Result<Look> {
    let (_, readyz) = get(address, "/readyz")?;
    let (status, metrics) = get(address, "/metrics")?;
    Look::read(&readyz, status, &metrics).map_err(io::Error::other)
}

fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask(address, "GET", path)
}

/// Status and body of an answer, which is in one piece and ends with its connection: as HTTP/1.0 has it.
pub(super) fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let foreign = || io::Error::other("what answers there is no admin port of tollgate");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(foreign)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(foreign)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_listens_everywhere_is_asked_on_the_loopback() {
        for (admin, want) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("192.0.2.7:9464", "192.0.2.7:9464"),
        ] {
            assert_eq!(resolve(admin).unwrap().to_string(), want);
        }
        for admin in ["9464", "127.0.0.1", "127.0.0.1:99999"] {
            let error = resolve(admin).unwrap_err();
            assert!(error.exit() == Exit::Usage && error.to_string().contains("--admin"), "{error}");
        }
    }
}
