//! Drives. The io_uring reactor: sockets, the log's writes and the wake-up, one ring on the worker's thread. It turns
//! completions into events and carries out actions; it decides nothing. Holds `unsafe`: the kernel works on memory that is
//! named in submissions.
//!
//! A completion finds its target by its user data:
//!
//!     63      56 55                 32 31                  0
//!     | op 8   | generation 24       | slot 32             |
#![allow(unsafe_code)]

mod accepting;
pub mod napi;
mod others;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::config::RingConfig;
use crate::event::{ConnectionId, Event, FrameBuffer, LogWrite, ReceiveEnd, SendBuffer, WriteEnd};
use crate::net::buffers::{GROUP, ReceiveBuffers};
use crate::net::ring::accepting::Accepting;

/// Completions of one turn. Enough to overlap their cache misses; few enough that a finished commit, and the peers that wait
/// for it, are not kept waiting behind them.
const TURN_COMPLETIONS_MAX: usize = 64;

/// A gathering worker wakes when so many completions are there.
const GATHER_COMPLETIONS: usize = 64;

/// `IORING_ENTER_GETEVENTS` of the kernel's interface, which the crate keeps to itself.
const ENTER_GETEVENTS: u32 = 1;

const GENERATION_MASK: u32 = 0x00ff_ffff;

/// What an operation in the ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Accept = 1,
    Receive = 2,
    Send = 3,
    CancelReceive = 4,
    CancelAll = 5,
    Write = 6,
    Wake = 7,
    AcceptRetry = 8,
    CancelAccept = 9,
    /// A message to another worker's ring, and one from another's.
    Ring = 10,
    Rung = 11,
}

impl Op {
    fn of(user_data: u64) -> Op {
        match user_data >> 56 {
            1 => Op::Accept,
            2 => Op::Receive,
            3 => Op::Send,
            4 => Op::CancelReceive,
            5 => Op::CancelAll,
            6 => Op::Write,
            7 => Op::Wake,
            8 => Op::AcceptRetry,
            9 => Op::CancelAccept,
            10 => Op::Ring,
            11 => Op::Rung,
            other => unreachable!("the kernel returned user data of operation {other}, which was never submitted"),
        }
    }
}

fn user_data(op: Op, slot: u32, generation: u32) -> u64 {
    (op as u64) << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot)
}

/// One connection's place. The socket is closed, and the place free, when its last operation has completed.
#[derive(Default)]
struct Slot {
    generation: u32,
    stream: Option<TcpStream>,
    /// Operations in the ring that name this connection.
    operations: u32,
    receive_armed: bool,
    receive_wanted: bool,
    sending: Option<Box<SendBuffer>>,
    closing: bool,
}

/// A completion as it is kept between `wait` and `events`.
enum Completed {
    Accepted(ConnectionId),
    Received { connection: ConnectionId, buffer: u16, length: u32 },
    ReceiveEnded { connection: ConnectionId, end: ReceiveEnd },
    Sent { connection: ConnectionId, buffer: Box<SendBuffer>, sent: u32 },
    Closed(ConnectionId),
    LogWritten { buffer: Box<FrameBuffer>, end: WriteEnd },
}

/// How long an entry into the kernel lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only what is there already.
    No,
    /// Until the first completion.
    AtMost(Duration),
    /// For a batch: nobody is answered sooner if the first completion wakes the worker, so it sleeps on for a moment, or
    /// until enough have come. (Kernels before 6.12 cannot: as `AtMost`.)
    Gather { at_most: Duration, patience_us: u32 },
}

/// What the ring itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingCounters {
    pub enters: u64,
    pub accepted: u64,
    /// Connections closed at once because every slot was taken, or the process has no file descriptor left.
    pub refused: u64,
    /// Receives that ended because no buffer was free.
    pub starved: u64,
    /// Connections that are over, or found no slot.
    pub closed: u64,
}

pub struct Ring {
    ring: IoUring,
    buffers: ReceiveBuffers,
    accepting: Accepting,
    slots: Vec<Slot>,
    free: Vec<u32>,
    completed: VecDeque<Completed>,
    /// Accepted, and not yet placed.
    accepted: Vec<TcpStream>,
    /// Other workers whose rings a message did not reach.
    unrung: Vec<u32>,
    /// Buffers that completed and whose bytes no event has shown yet: they stay out of the kernel's hands.
    lent: Vec<u16>,
    /// Buffers lent to the events of this turn; they go back before the next one.
    shown: Vec<u16>,
    /// Connections whose receive ended for want of buffers, oldest first.
    starved: VecDeque<ConnectionId>,
    segments: Vec<(u64, File)>,
    writes: Vec<Option<Box<FrameBuffer>>>,
    write_lengths: Vec<u32>,
    wake: OwnedFd,
    wake_word: Box<u64>,
    woken: bool,
    /// Another worker's message came since the last entry.
    rung: bool,
    counters: RingCounters,
}

impl Ring {
    /// Takes all memory: slots for `connections` connections, the receive buffers, the ring. `wake` is an eventfd.
    pub fn new(
        config: &RingConfig,
        connections: u32,
        listener: Option<TcpListener>,
        wake: OwnedFd,
    ) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.entries * 4)
            .build(config.entries)?;
        napi::register(&ring, config)?;
        let mut buffers = ReceiveBuffers::new(config.recv_buffers, config.recv_buffer_bytes)?;
        buffers.register(&ring.submitter())?;
        let mut slots = Vec::new();
        slots.resize_with(connections as usize, Slot::default);
        let mut this = Ring {
            ring,
            buffers,
            accepting: Accepting::new(listener),
            slots,
            free: (0..connections).rev().collect(),
            completed: VecDeque::with_capacity(config.entries as usize),
            accepted: Vec::new(),
            unrung: Vec::new(),
            lent: Vec::with_capacity(usize::from(config.recv_buffers)),
            shown: Vec::with_capacity(usize::from(config.recv_buffers)),
            starved: VecDeque::with_capacity(connections as usize),
            segments: Vec::new(),
            writes: Vec::new(),
            write_lengths: Vec::new(),
            wake,
            wake_word: Box::new(0),
            woken: false,
            rung: false,
            counters: RingCounters::default(),
        };
        this.arm_accept();
        this.arm_wake();
        Ok(this)
    }

    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Connections whose socket is open.
    pub fn open_connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether the wake-up was rung since the last call.
    pub fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    /// Enters the kernel: submits what is queued, and takes in what is complete. Returns how much completed.
    pub fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        self.recycle();
        self.rung = false;
        let left_over = !self.ring.completion().is_empty() || !self.completed.is_empty();
        let entered = match wait {
            _ if left_over => self.enter_without_waiting(),
            Wait::No => self.enter_without_waiting(),
            Wait::AtMost(time) => self.enter(1, &SubmitArgs::new().timespec(&Timespec::from(time))),
            Wait::Gather { at_most, patience_us } => {
                let limit = Timespec::from(at_most);
                let args = SubmitArgs::new().timespec(&limit);
                if self.ring.params().is_feature_min_timeout() {
                    self.enter(GATHER_COMPLETIONS, &args.min_wait_usec(patience_us))
                } else {
                    self.enter(1, &args)
                }
            }
        };
        match entered {
            Ok(_) => {}
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => return Err(error),
        }
        self.take_completions();
        Ok(self.completed.len() + self.accepted.len() + usize::from(self.woken))
    }

    /// Turns what completed into events; received bytes are borrowed until the next `wait`.
    pub fn events<'a>(&'a mut self, events: &mut Vec<Event<'a>>) {
        self.shown.append(&mut self.lent);
        for completed in self.completed.drain(..) {
            events.push(match completed {
                Completed::Accepted(connection) => Event::Accepted { connection },
                Completed::Received { connection, buffer, length } => {
                    Event::Received { connection, bytes: self.buffers.bytes(buffer, length) }
                }
                Completed::ReceiveEnded { connection, end } => Event::ReceiveEnded { connection, end },
                Completed::Sent { connection, buffer, sent } => Event::Sent { connection, buffer, sent },
                Completed::Closed(connection) => Event::Closed { connection },
                Completed::LogWritten { buffer, end } => Event::LogWritten { buffer, end },
            });
        }
    }

    /// Sends the whole buffer. One send a connection at a time: the core waits for `Sent`.
    pub fn send(&mut self, connection: ConnectionId, buffer: Box<SendBuffer>) {
        let Some(slot) = self.live(connection) else {
            return self.completed.push_back(Completed::Sent { connection, buffer, sent: 0 });
        };
        assert!(slot.sending.is_none(), "a second send on connection {connection:?} while one is on its way");
        let fd = Fd(fd_of(slot));
        // MSG_WAITALL: the kernel itself goes on after a short send.
        let entry = opcode::Send::new(fd, buffer.bytes.as_ptr(), buffer.bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Op::Send, connection.slot, connection.generation));
        slot.sending = Some(buffer);
        slot.operations += 1;
        self.push(entry);
    }

    pub fn pause_receive(&mut self, connection: ConnectionId) {
        let Some(slot) = self.live(connection) else { return };
        slot.receive_wanted = false;
        if slot.receive_armed {
            slot.operations += 1;
            let target = user_data(Op::Receive, connection.slot, connection.generation);
            let entry = opcode::AsyncCancel::new(target).build().user_data(user_data(
                Op::CancelReceive,
                connection.slot,
                connection.generation,
            ));
            self.push(entry);
        }
    }

    pub fn resume_receive(&mut self, connection: ConnectionId) {
        let Some(slot) = self.live(connection) else { return };
        slot.receive_wanted = true;
        if !slot.receive_armed {
            self.arm_receive(connection);
        }
    }

    /// FIN after what was sent; what still arrives is received as before.
    pub fn shutdown_send(&mut self, connection: ConnectionId) {
        if let Some(stream) = self.live(connection).and_then(|slot| slot.stream.as_ref()) {
            // An error says that the peer is gone, which the receive reports.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Ends everything on the connection; `Closed` follows when the last operation has completed.
    pub fn close(&mut self, connection: ConnectionId) {
        let Some(slot) = self.live(connection) else { return };
        slot.closing = true;
        slot.receive_wanted = false;
        if let Some(stream) = &slot.stream {
            // `close` alone neither ends a receive in flight nor sends FIN.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if slot.operations == 0 {
            return self.finish_close(connection);
        }
        slot.operations += 1;
        let fd = Fd(fd_of(slot));
        let entry = opcode::AsyncCancel2::new(io_uring::types::CancelBuilder::fd(fd).all())
            .build()
            .user_data(user_data(Op::CancelAll, connection.slot, connection.generation));
        self.push(entry);
    }

    /// Closes the listener, and refuses what is still in the backlog, when the accept in flight has ended. The cancel goes
    /// with the next entry into the kernel, whenever that succeeds.
    pub fn stop_accepting(&mut self) {
        if self.accepting.stop() {
            let target = user_data(Op::Accept, 0, 0);
            self.push(opcode::AsyncCancel::new(target).build().user_data(user_data(Op::CancelAccept, 0, 0)));
        }
    }

    /// Makes a prepared segment's file known, opened for direct writes.
    pub fn add_segment(&mut self, segment: u64, file: File) {
        self.segments.push((segment, file));
    }

    pub fn remove_segment(&mut self, segment: u64) {
        self.segments.retain(|(number, _)| *number != segment);
    }

    /// Writes and syncs part of the buffer. The core never has more writes in flight than it has buffers.
    pub fn write_log(&mut self, buffer: Box<FrameBuffer>, write: LogWrite) {
        let file = self.segments.iter().find(|(number, _)| *number == write.segment).map(|(_, file)| file.as_raw_fd());
        let fd = Fd(file.expect("the core writes only to segments that were reported ready"));
        let from = write.buffer_offset as usize;
        let bytes = &buffer.memory[from..from + write.length as usize];
        let entry = opcode::Write::new(fd, bytes.as_ptr(), write.length)
            .offset(write.file_offset)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(user_data(Op::Write, buffer.id, 0));
        let place = buffer.id as usize;
        if self.writes.len() <= place {
            self.writes.resize_with(place + 1, || None);
            self.write_lengths.resize(place + 1, 0);
        }
        assert!(self.writes[place].is_none(), "frame buffer {place} is already on its way to the disk");
        self.write_lengths[place] = write.length;
        self.writes[place] = Some(buffer);
        self.push(entry);
    }

    fn enter(&mut self, completions: usize, args: &SubmitArgs<'_, '_>) -> io::Result<usize> {
        self.counters.enters += 1;
        self.ring.submitter().submit_with_args(completions, args)
    }

    /// With DEFER_TASKRUN nothing completes unless the thread enters with GETEVENTS; an idle ring is not entered at all.
    fn enter_without_waiting(&mut self) -> io::Result<usize> {
        let (queued, task_work) = {
            let queue = self.ring.submission();
            (queue.len() as u32, queue.taskrun())
        };
        if queued == 0 && !task_work {
            return Ok(0);
        }
        self.counters.enters += 1;
        // SAFETY: no argument is passed, so the kernel reads no memory through it.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
    }

    fn live(&mut self, connection: ConnectionId) -> Option<&mut Slot> {
        let slot = &mut self.slots[connection.slot as usize];
        (slot.generation == connection.generation && slot.stream.is_some() && !slot.closing).then_some(slot)
    }

    /// Queues an entry; when the queue is full, submits first: an action is never refused.
    fn push(&mut self, entry: Entry) {
        loop {
            // SAFETY: whatever memory the entry names is owned by this ring (`sending`, `writes`, `wake_word`, `buffers`)
            // until the operation's last completion.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            if let Err(error) = self.ring.submit() {
                assert!(
                    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)),
                    "io_uring refused a submission: {error}"
                );
                self.take_completions();
            }
        }
    }

    fn arm_accept(&mut self) {
        if let Some(entry) = self.accepting.due() {
            self.push(entry.user_data(user_data(Op::Accept, 0, 0)));
        }
    }

    fn arm_wake(&mut self) {
        let word: *mut u64 = &mut *self.wake_word;
        let entry = opcode::Read::new(Fd(self.wake.as_raw_fd()), word.cast::<u8>(), 8).build().user_data(user_data(
            Op::Wake,
            0,
            0,
        ));
        self.push(entry);
    }

    fn arm_receive(&mut self, connection: ConnectionId) {
        let slot = &mut self.slots[connection.slot as usize];
        let entry = opcode::RecvMulti::new(Fd(fd_of(slot)), GROUP).build().user_data(user_data(
            Op::Receive,
            connection.slot,
            connection.generation,
        ));
        slot.receive_armed = true;
        slot.operations += 1;
        self.push(entry);
    }

    /// Gives the kernel the buffers of the last turn back, then arms the receives that had none.
    fn recycle(&mut self) {
        if !self.shown.is_empty() {
            for index in 0..self.shown.len() {
                self.buffers.give(self.shown[index]);
            }
            self.shown.clear();
            self.buffers.publish();
        }
        for _ in 0..self.starved.len() {
            let Some(connection) = self.starved.pop_front() else { break };
            if self.live(connection).is_some_and(|slot| slot.receive_wanted && !slot.receive_armed) {
                self.arm_receive(connection);
            }
        }
        self.arm_accept();
    }

    fn take_completions(&mut self) {
        for _ in 0..TURN_COMPLETIONS_MAX {
            let Some(entry) = self.ring.completion().next() else { return };
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let id = self.full_id(data);
            match Op::of(data) {
                Op::Accept => self.on_accept(result, flags),
                Op::Receive => self.on_receive(id, result, flags),
                Op::Send => self.on_send(id, result),
                Op::CancelReceive => self.ended(id),
                Op::CancelAll => self.ended(id),
                Op::Write => self.on_write(data as u32, result),
                Op::Wake => {
                    self.woken = true;
                    self.arm_wake();
                }
                Op::AcceptRetry => self.accepting.retry(),
                Op::CancelAccept => {}
                // The mesh is looked into at every turn: to be awake is all.
                Op::Rung => self.rung = true,
                Op::Ring if result < 0 => self.unrung.push(data as u32),
                Op::Ring => {}
            }
        }
    }

    /// The connection that user data names. A slot is reused only after its last completion, so the upper bits of the
    /// generation are the slot's own.
    fn full_id(&self, data: u64) -> ConnectionId {
        let slot = data as u32;
        let generation = self.slots.get(slot as usize).map_or(0, |slot| slot.generation);
        ConnectionId { slot, generation }
    }

    fn on_accept(&mut self, result: i32, flags: u32) {
        let ended = self.accepting.completed(result, flags);
        self.counters.refused += u64::from(ended.began_short);
        if ended.retry {
            self.push(Accepting::timer().user_data(user_data(Op::AcceptRetry, 0, 0)));
        }
        if result < 0 {
            return;
        }
        // SAFETY: the kernel just made this descriptor and handed it to nobody else.
        let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
        self.accepted.push(stream);
    }

    fn on_receive(&mut self, connection: ConnectionId, result: i32, flags: u32) {
        let more = cqueue::more(flags);
        let slot = &mut self.slots[connection.slot as usize];
        if !more {
            slot.receive_armed = false;
        }
        let (closing, wanted) = (slot.closing, slot.receive_wanted);
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.taken();
            self.lent.push(buffer);
            if result > 0 && !closing {
                self.completed.push_back(Completed::Received { connection, buffer, length: result as u32 });
            }
        }
        if !closing && !more {
            match -result {
                0 => {
                    let end = ReceiveEnd::Finished;
                    self.slots[connection.slot as usize].receive_wanted = false;
                    self.completed.push_back(Completed::ReceiveEnded { connection, end });
                }
                libc::ENOBUFS => {
                    self.counters.starved += 1;
                    self.starved.push_back(connection);
                }
                // Our own pause; or the multishot ended though nothing is wrong.
                error if error < 0 || error == libc::ECANCELED => {
                    if wanted {
                        self.starved.push_back(connection);
                    }
                }
                _ => {
                    let end = ReceiveEnd::Broken;
                    self.slots[connection.slot as usize].receive_wanted = false;
                    self.completed.push_back(Completed::ReceiveEnded { connection, end });
                }
            }
        }
        if !more {
            self.ended(connection);
        }
    }

    fn on_send(&mut self, connection: ConnectionId, result: i32) {
        let slot = &mut self.slots[connection.slot as usize];
        let buffer = slot.sending.take().expect("a send completes once, and its buffer waits for it");
        self.completed.push_back(Completed::Sent { connection, buffer, sent: result.max(0) as u32 });
        self.ended(connection);
    }

    fn on_write(&mut self, place: u32, result: i32) {
        let buffer = self.writes[place as usize].take().expect("a write completes once, and its buffer waits for it");
        let length = self.write_lengths[place as usize];
        let end = match u32::try_from(result) {
            Ok(written) if written == length => WriteEnd::Synced,
            Ok(written) => WriteEnd::Short { written, length },
            Err(_) => WriteEnd::Failed { errno: -result },
        };
        self.completed.push_back(Completed::LogWritten { buffer, end });
    }

    /// One operation of the connection is over; the last one of a closing connection closes it.
    fn ended(&mut self, connection: ConnectionId) {
        let slot = &mut self.slots[connection.slot as usize];
        assert!(slot.operations > 0, "connection {connection:?} completed more operations than it had");
        slot.operations -= 1;
        if slot.closing && slot.operations == 0 {
            self.finish_close(connection);
        }
    }
}

impl Drop for Ring {
    /// The kernel may still be reading buffers of operations in flight: they are leaked, not freed.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            std::mem::forget(slot.sending.take());
        }
        for write in &mut self.writes {
            std::mem::forget(write.take());
        }
    }
}

fn fd_of(slot: &Slot) -> RawFd {
    slot.stream.as_ref().map(AsRawFd::as_raw_fd).expect("a live slot has a socket")
}

#[cfg(test)]
mod tests;
