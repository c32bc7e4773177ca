//! A network interface as `/sys` shows it: its queues, and which CPUs the kernel spreads their packets over.

use super::Root;
use super::masks::parse_mask;
use crate::machine::parse_cpu_list;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    pub name: String,
    pub driver: Option<String>,
    /// `None`: it has none, or is made of software.
    pub numa_node: Option<u32>,
    pub receive: Vec<Queue>,
    pub send: Vec<Queue>,
    /// How many interrupts are left out while its queues are polled, and how long at most (ns).
    pub defer_hard_irqs: Option<u64>,
    pub gro_flush_timeout_ns: Option<u64>,
}

/// One queue, and the CPUs of its mask: of a receive queue those that share its packets (RPS), of a send queue those that send
/// by it (XPS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Of the mask, below the root.
    pub path: String,
    /// `None`: the kernel shows none, such as XPS of a single queue.
    pub cpus: Option<Vec<usize>>,
}

/// `None`: there is no such interface here.
pub fn read(root: &Root, name: &str) -> Option<Nic> {
    let folder = format!("sys/class/net/{name}");
    if !root.exists(&folder) {
        return None;
    }
    let queues = |kind: &str, mask: &str| {
        let names = root.names(&format!("{folder}/queues")).into_iter().filter(|queue| queue.starts_with(kind));
        let queue = |queue: String| {
            let path = format!("{folder}/queues/{queue}/{mask}");
            Queue { cpus: root.text(&path).and_then(|text| parse_mask(&text)), path }
        };
        names.map(queue).collect()
    };
    let driver = std::fs::read_link(root.path(&format!("{folder}/device/driver"))).ok();
    let driver = driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    Some(Nic {
        name: name.to_owned(),
        driver,
        numa_node: root.text(&format!("{folder}/device/numa_node")).and_then(|node| node.parse().ok()),
        receive: queues("rx-", "rps_cpus"),
        send: queues("tx-", "xps_cpus"),
        defer_hard_irqs: root.number(&format!("{folder}/napi_defer_hard_irqs")),
        gro_flush_timeout_ns: root.number(&format!("{folder}/gro_flush_timeout")),
    })
}

/// The CPUs of a memory node; empty where the host has none.
pub fn cpus_of_node(root: &Root, node: u32) -> Vec<usize> {
    let list = root.text(&format!("sys/devices/system/node/node{node}/cpulist"));
    list.and_then(|list| parse_cpu_list(&list)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    #[test]
    fn queues_come_in_order_with_their_masks() {
        let (folder, root) = tree(&[
            ("sys/class/net/eth0/queues/rx-1/rps_cpus", "00000000,00000002\n"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
            ("sys/class/net/eth0/queues/tx-0/xps_cpus", "1\n"),
            ("sys/class/net/eth0/queues/tx-1/tx_timeout", "0\n"),
            ("sys/class/net/eth0/device/numa_node", "1\n"),
            ("sys/class/net/eth0/napi_defer_hard_irqs", "2\n"),
            ("sys/class/net/eth0/gro_flush_timeout", "200000\n"),
            ("sys/devices/system/node/node1/cpulist", "8-15\n"),
        ]);
        let driver = folder.path().join("sys/class/net/eth0/device/driver");
        std::os::unix::fs::symlink("../../drivers/ixgbe", driver).unwrap();
        let nic = read(&root, "eth0").unwrap();
        let masks = |queues: &[Queue]| queues.iter().map(|queue| queue.cpus.clone()).collect::<Vec<_>>();
        assert_eq!(masks(&nic.receive), [Some(vec![]), Some(vec![1])]);
        assert_eq!(masks(&nic.send), [Some(vec![0]), None]);
        assert_eq!(nic.receive[1].path, "sys/class/net/eth0/queues/rx-1/rps_cpus");
        assert_eq!((nic.driver.as_deref(), nic.numa_node), (Some("ixgbe"), Some(1)));
        assert_eq!((nic.defer_hard_irqs, nic.gro_flush_timeout_ns), (Some(2), Some(200_000)));
        assert_eq!(cpus_of_node(&root, 1), (8..16).collect::<Vec<_>>());
    }

    #[test]
    fn an_interface_of_software_has_queues_alone() {
        let (_folder, root) = tree(&[
            ("sys/class/net/veth0/queues/rx-0/rps_cpus", "0\n"),
            ("sys/class/net/veth0/device/numa_node", "-1\n"),
        ]);
        let nic = read(&root, "veth0").unwrap();
        assert_eq!((nic.receive.len(), nic.send.len()), (1, 0));
        assert_eq!((nic.driver, nic.numa_node, nic.defer_hard_irqs), (None, None, None));
        assert_eq!(read(&root, "eth0"), None);
    }
}
