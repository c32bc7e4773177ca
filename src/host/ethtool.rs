//! What a NIC's driver says when it is asked with the ethtool ioctl: how many queues it runs and could run, and how large the
//! table is that its hash (RSS) picks queues from. Holds `unsafe`: the kernel fills structs of its own layout.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// linux/sockios.h and linux/ethtool.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_CHANNELS: u32 = 0x3c;
const GET_INDIRECTION: u32 = 0x38;

/// Queues of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues, those that send too among them.
    pub receive: u32,
    pub receive_max: u32,
}

/// `None`: the driver does not say.
pub fn channels(nic: &str) -> Option<Channels> {
    // `struct ethtool_channels`: the most of each kind, then those that run.
    let mut words = [GET_CHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    ask(nic, &mut words).ok()?;
    let [_, receive_max, _, _, combined_max, receive, _, _, combined] = words;
    Some(Channels { receive: receive + combined, receive_max: receive_max + combined_max })
}

/// Entries of the table that a flow's hash picks its queue from; `None`: it has none, or does not say.
pub fn indirection_entries(nic: &str) -> Option<u32> {
    // `struct ethtool_rxfh_indir` without entries: asked with size 0, the kernel says how many there are.
    let mut words = [GET_INDIRECTION, 0];
    ask(nic, &mut words).ok()?;
    (words[1] > 0).then_some(words[1])
}

/// Asks a driver: `words` is the command's struct, whose first word is its number.
fn ask<const N: usize>(nic: &str, words: &mut [u32; N]) -> io::Result<()> {
    if nic.len() >= libc::IFNAMSIZ || nic.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: an ifreq is numbers and pointers, of which all zeros are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(nic.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the descriptor lives for the call; the name ends with a zero, because it is shorter than its field; the words
    // are exactly those of the command's struct, exclusively ours, and outlive the call.
    let answer = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_says_nothing() {
        for nic in ["no-such-nic", "a-name-that-is-much-too-long", "a\0b", ""] {
            assert_eq!((channels(nic), indirection_entries(nic)), (None, None), "{nic:?}");
        }
        assert_eq!(channels("lo"), None, "loopback has no driver to ask");
    }
}
