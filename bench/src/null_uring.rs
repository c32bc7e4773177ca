//! The null server over io_uring: multishot accept and receive, one ring of provided buffers, one send a connection and
//! turn. One thread. Its own small implementation, so that it measures the machine and shares no fault with tollgate's.
//! Unsafe: submission entries, which point at memory, and the buffer ring, which the kernel reads.
#![allow(unsafe_code)]

use crate::null_http::{Args, Requests, listen};
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

const ENTRIES: u32 = 1024;
const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 16 << 10;
const GROUP: u16 = 0;

/// What an operation was, in the upper half of its user data; the lower half is the descriptor.
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;

/// Runs the calling thread on one CPU alone.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a zeroed cpu_set_t is a valid empty set, CPU_SET checks its bound, and the call only reads the set.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

struct Connection {
    fd: OwnedFd,
    requests: Requests,
    out: Vec<u8>,
    /// In the kernel's hands while not empty: not touched until the send completes.
    sending: Vec<u8>,
    /// The receive has ended; freed when the send has too.
    over: bool,
    in_turn: bool,
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    listener: i32,
    connections: Vec<Option<Connection>>,
    /// Connections with something to send at the end of the turn, and with a receive to start again.
    turn: Vec<i32>,
    starved: Vec<i32>,
}

pub fn run(args: &Args) -> io::Result<()> {
    args.cpu.map(pin).transpose()?;
    let listener = listen(args)?;
    let ring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(4 * ENTRIES).build(ENTRIES)?;
    let buffers = Buffers::register(&ring)?;
    let mut server = Server {
        ring,
        buffers,
        listener: listener.as_raw_fd(),
        connections: Vec::new(),
        turn: Vec::new(),
        starved: Vec::new(),
    };
    server.accept()?;
    let mut completions = Vec::with_capacity(4 * ENTRIES as usize);
    loop {
        match server.ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        completions.extend(server.ring.completion());
        for completion in completions.drain(..) {
            server.complete(&completion)?;
        }
        server.buffers.publish();
        server.end_turn()?;
    }
}

impl Server {
    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (kind, fd) = (completion.user_data() & !0xffff_ffff, completion.user_data() as u32 as i32);
        match kind {
            ACCEPT => {
                if completion.result() >= 0 {
                    self.admit(completion.result())?;
                }
                if !cqueue::more(completion.flags()) {
                    self.accept()?;
                }
            }
            RECEIVE => self.received(fd, completion),
            _ => self.sent(fd, completion.result()),
        }
        Ok(())
    }

    fn admit(&mut self, fd: i32) -> io::Result<()> {
        // SAFETY: the kernel made this descriptor for us in the accept that just completed.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let stream = std::net::TcpStream::from(owned);
        stream.set_nodelay(true)?;
        self.connections.resize_with(self.connections.len().max(fd as usize + 1), || None);
        self.connections[fd as usize] = Some(Connection {
            fd: stream.into(),
            requests: Requests::default(),
            out: Vec::new(),
            sending: Vec::new(),
            over: false,
            in_turn: false,
        });
        self.receive(fd)
    }

    fn received(&mut self, fd: i32, completion: &cqueue::Entry) {
        let connection = self.connections[fd as usize].as_mut().expect("a connection outlives its receive");
        let result = completion.result();
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            let bytes = self.buffers.bytes(buffer, result.max(0) as usize);
            if connection.requests.received(bytes, &mut connection.out).is_err() {
                shut_down(connection);
            }
            self.buffers.give_back(buffer);
        }
        if !cqueue::more(completion.flags()) {
            match result > 0 || result == -libc::ENOBUFS {
                true => self.starved.push(fd),
                false => connection.over = true,
            }
        }
        if !connection.in_turn {
            connection.in_turn = true;
            self.turn.push(fd);
        }
    }

    fn sent(&mut self, fd: i32, result: i32) {
        let connection = self.connections[fd as usize].as_mut().expect("a connection outlives its send");
        let sent = result.max(0) as usize;
        if result < 0 {
            connection.out.clear();
            shut_down(connection);
        }
        if sent < connection.sending.len() && result >= 0 {
            let rest = connection.sending.split_off(sent);
            connection.out.splice(..0, rest);
        }
        connection.sending.clear();
        if !connection.in_turn && (connection.over || !connection.out.is_empty()) {
            connection.in_turn = true;
            self.turn.push(fd);
        }
    }

    /// One send for each connection that has replies, receives started again, finished connections freed.
    fn end_turn(&mut self) -> io::Result<()> {
        for fd in std::mem::take(&mut self.starved) {
            self.receive(fd)?;
        }
        let mut turn = std::mem::take(&mut self.turn);
        for fd in turn.drain(..) {
            let slot = &mut self.connections[fd as usize];
            let connection = slot.as_mut().expect("freed only here, and listed once");
            connection.in_turn = false;
            if !connection.sending.is_empty() {
                continue;
            }
            if connection.over {
                *slot = None;
            } else if !connection.out.is_empty() {
                std::mem::swap(&mut connection.out, &mut connection.sending);
                let (start, length) = (connection.sending.as_ptr(), connection.sending.len() as u32);
                let send = opcode::Send::new(Fd(fd), start, length).build().user_data(SEND | fd as u64);
                // SAFETY: `sending` is neither touched nor freed until the send has completed.
                unsafe { self.push(&send)? };
            }
        }
        self.turn = turn;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener)).build().user_data(ACCEPT);
        // SAFETY: the operation points at no memory.
        unsafe { self.push(&accept) }
    }

    fn receive(&mut self, fd: i32) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(Fd(fd), GROUP).build().user_data(RECEIVE | fd as u64);
        // SAFETY: the operation takes its memory from the buffer ring, which outlives the ring.
        unsafe { self.push(&receive) }
    }

    /// # Safety
    /// What the entry points at must stay valid until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}

/// Ends both directions; the receive under way then completes with nothing, which frees the connection.
fn shut_down(connection: &Connection) {
    // SAFETY: the descriptor is open, no memory is passed.
    unsafe { libc::shutdown(connection.fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// A page of buffer-ring entries, aligned as the kernel wants it.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

const _: () = assert!(BUFFERS as usize * size_of::<BufRingEntry>() == size_of::<Page>());

/// The ring of provided buffers: entry `tail % BUFFERS` is the next that the kernel may take.
struct Buffers {
    entries: Box<Page>,
    slab: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Buffers> {
        let slab = vec![0; BUFFERS as usize * BUFFER_BYTES];
        let mut buffers = Buffers { entries: Box::new(Page([0; 4096])), slab, tail: 0 };
        let address = buffers.entries.0.as_mut_ptr() as u64;
        // SAFETY: the page holds exactly BUFFERS entries and lives as long as the server, which never returns the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        &self.slab[buffer as usize * BUFFER_BYTES..][..length]
    }

    /// Lets the kernel fill the buffer again, from the next `publish` on.
    fn give_back(&mut self, buffer: u16) {
        let address = self.slab[buffer as usize * BUFFER_BYTES..].as_mut_ptr() as u64;
        let entries = self.entries.0.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below BUFFERS, and the kernel does not read entries at or beyond the published tail.
        let entry = unsafe { &mut *entries.add((self.tail % BUFFERS) as usize) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry's reserved field, aligned to two bytes; the kernel reads it with acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.0.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
