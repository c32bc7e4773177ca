//! Drives. What a worker's ring has to do with the other workers: connections that one accepts and another adopts, until they
//! are closed, and messages that wake a sleeping one.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fd;

use super::{Completed, Op, Ring, napi, user_data};
use crate::event::ConnectionId;

impl Ring {
    /// Connections accepted since the last call. Each is to be adopted, here or by another worker's ring.
    pub fn take_accepted(&mut self) -> std::vec::Drain<'_, TcpStream> {
        self.accepted.drain(..)
    }

    /// Takes a connection in, if a slot is free.
    pub fn adopt(&mut self, stream: TcpStream) {
        let Some(index) = self.free.pop() else {
            self.counters.refused += 1;
            self.counters.closed += 1;
            return;
        };
        self.counters.accepted += 1;
        napi::look(&stream);
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.stream = Some(stream);
        slot.receive_wanted = true;
        slot.closing = false;
        assert!(slot.operations == 0 && slot.sending.is_none(), "slot {index} was reused with operations in the ring");
        let connection = ConnectionId { slot: index, generation: slot.generation };
        self.completed.push_back(Completed::Accepted(connection));
        self.arm_receive(connection);
    }

    /// A connection's last operation is over.
    pub(super) fn finish_close(&mut self, connection: ConnectionId) {
        let slot = &mut self.slots[connection.slot as usize];
        slot.stream = None;
        slot.closing = false;
        self.counters.closed += 1;
        self.free.push(connection.slot);
        self.completed.push_back(Completed::Closed(connection));
    }

    /// Wakes another worker through its ring, at the next entry into the kernel.
    pub fn ring_other(&mut self, core: u32, ring: RawFd) {
        let data = user_data(Op::Rung, 0, 0);
        let entry = opcode::MsgRingData::new(Fd(ring), 0, data, None).build();
        self.push(entry.user_data(user_data(Op::Ring, core, 0)).flags(Flags::SKIP_SUCCESS));
    }

    /// A worker that has no ring to be reached through.
    pub fn unreached(&mut self, core: u32) {
        self.unrung.push(core);
    }

    /// Workers that must be woken otherwise.
    pub fn take_unrung(&mut self) -> std::vec::Drain<'_, u32> {
        self.unrung.drain(..)
    }

    /// For others to ring it.
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
