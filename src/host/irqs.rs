//! Interrupts: which there are, where each may be handled, and which are those of a NIC's queues.

use super::Root;
use crate::machine::parse_cpu_list;

/// What a NIC's interrupt tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Receive,
    Send,
    /// A queue of both ways, as most NICs have them.
    Both,
    /// Its configuration, its management.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irq {
    pub number: u32,
    /// As the driver calls it: `eth0-TxRx-1`.
    pub name: String,
    pub of: Use,
    /// Where it may be handled, as it was set.
    pub allowed: Vec<usize>,
    /// Where it is handled: where the hardware sends it to one CPU of those, that one.
    pub cpus: Vec<usize>,
}

/// Every numbered interrupt of `/proc/interrupts`.
pub fn all(root: &Root) -> Vec<Irq> {
    let table = root.text("proc/interrupts").unwrap_or_default();
    let columns = table.lines().next().map_or(0, |head| head.split_whitespace().count());
    table.lines().skip(1).filter_map(|line| irq(root, line, columns)).collect()
}

/// Those of a NIC, by its device's list; where it has none, by the names that drivers give them.
pub fn of_nic(root: &Root, nic: &str) -> Vec<Irq> {
    let device = format!("sys/class/net/{nic}/device");
    // A virtio NIC is a device of its own on the PCI device that has the interrupts.
    let lists = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")];
    let numbers = lists.iter().map(|list| root.names(list)).find(|numbers| !numbers.is_empty()).unwrap_or_default();
    let numbers: Vec<u32> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let named = |irq: &Irq| irq.name == nic || irq.name.starts_with(&format!("{nic}-"));
    let own = |irq: &Irq| if numbers.is_empty() { named(irq) } else { numbers.contains(&irq.number) };
    all(root).into_iter().filter(own).collect()
}

/// The interfaces that have interrupts; loopback, veth and others made of software have none.
pub fn nics(root: &Root) -> Vec<String> {
    root.names("sys/class/net").into_iter().filter(|nic| !of_nic(root, nic).is_empty()).collect()
}

/// `38:  12  34  PCI-MSIX-0000:00:03.0  1-edge  virtio2-input.0`.
fn irq(root: &Root, line: &str, columns: usize) -> Option<Irq> {
    let (number, rest) = line.trim_start().split_once(':')?;
    let number: u32 = number.parse().ok()?;
    let name = rest.split_whitespace().skip(columns).last()?.to_owned();
    let list = |file: &str| parse_cpu_list(&root.text(&format!("proc/irq/{number}/{file}"))?);
    let allowed = list("smp_affinity_list").unwrap_or_default();
    // Of a controller that does not tell, the file is there and empty.
    let cpus = list("effective_affinity_list").unwrap_or_else(|| allowed.clone());
    Some(Irq { number, of: use_of(&name), name, allowed, cpus })
}

fn use_of(name: &str) -> Use {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["config", "mgmnt", "async", "event", "ctrl", "control", "adminq", "misc", "-asq", "fdir", "mbox", "link"])
    {
        return Use::Other;
    }
    match (has(&["rx", "input"]), has(&["tx", "output"])) {
        (true, true) | (false, false) => Use::Both,
        (true, false) => Use::Receive,
        (false, true) => Use::Send,
    }
}

/// Of a NIC with interrupts like these, what is not as a start with `--irq-affinity-check` wants it, a line each. `workers` are their
/// CPUs; `aligned`: a worker is to have an interrupt for receiving on its CPU (`--incoming-cpu`), and else to be left alone.
pub fn misplaced(nic: &str, irqs: &[Irq], workers: &[usize], aligned: bool) -> Vec<String> {
    let receiving: Vec<&Irq> = irqs.iter().filter(|irq| matches!(irq.of, Use::Receive | Use::Both)).collect();
    let on = |cpu: usize| receiving.iter().filter(move |irq| irq.cpus.contains(&cpu));
    let workers = workers.iter().enumerate();
    if aligned {
        let without = workers.filter(|(_, cpu)| on(**cpu).next().is_none());
        return without
            .map(|(core, cpu)| {
                format!("no receive queue of {nic} has its interrupt on CPU {cpu}, worker {core}'s: its connections arrive elsewhere")
            })
            .collect();
    }
    let mut lines = Vec::new();
    for (core, cpu) in workers {
        for irq in irqs.iter().filter(|irq| irq.of != Use::Other && irq.cpus.contains(cpu)) {
            lines.push(format!(
                "interrupt {} of {nic} ({}) is handled on CPU {cpu}, worker {core}'s",
                irq.number, irq.name
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    const VIRTIO: &str = "           CPU0       CPU1       \n 24:          1          0  IO-APIC   5-edge      ACPI:Ged\n \
                          37:          0          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config\n \
                          38:          0       4792 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n \
                          39:       4183          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0\n\
                          NMI:          0          0   Non-maskable interrupts\n";

    fn names(irqs: &[Irq]) -> Vec<(u32, Use, Vec<usize>)> {
        irqs.iter().map(|irq| (irq.number, irq.of, irq.cpus.clone())).collect()
    }

    #[test]
    fn a_virtio_nics_interrupts_are_its_pci_devices() {
        let (folder, root) = tree(&[
            ("proc/interrupts", VIRTIO),
            ("proc/irq/38/smp_affinity_list", "0-1\n"),
            ("proc/irq/38/effective_affinity_list", "1\n"),
            ("proc/irq/39/smp_affinity_list", "0\n"),
            ("proc/irq/39/effective_affinity_list", "\n"),
            ("sys/devices/pci0/msi_irqs/37", "msix\n"),
            ("sys/devices/pci0/msi_irqs/38", "msix\n"),
            ("sys/devices/pci0/msi_irqs/39", "msix\n"),
            ("sys/devices/pci0/virtio2/vendor", "x\n"),
            ("sys/class/net/lo/mtu", "65536\n"),
            ("sys/class/net/eth0/mtu", "1500\n"),
        ]);
        std::os::unix::fs::symlink("../../../devices/pci0/virtio2", folder.path().join("sys/class/net/eth0/device"))
            .unwrap();
        let irqs = of_nic(&root, "eth0");
        assert_eq!(names(&irqs), [(37, Use::Other, vec![]), (38, Use::Receive, vec![1]), (39, Use::Send, vec![0])]);
        assert_eq!(irqs[1].allowed, [0, 1]);
        assert_eq!(nics(&root), ["eth0"]);
        assert_eq!(all(&root).len(), 4, "NMI has no number");
    }

    #[test]
    fn without_a_list_the_names_tell() {
        let table = "  CPU0\n 40: 1 PCI-MSI 524288-edge eth1-TxRx-0\n 41: 1 PCI-MSI 524289-edge eth10-TxRx-0\n 42: 1 PCI-MSI 3-edge eth1\n";
        let (_folder, root) = tree(&[("proc/interrupts", table)]);
        assert_eq!(names(&of_nic(&root, "eth1")), [(40, Use::Both, vec![]), (42, Use::Both, vec![])]);
    }

    #[test]
    fn drivers_names_say_what_an_interrupt_is_for() {
        for (name, want) in [
            ("eth0-TxRx-3", Use::Both),
            ("ens5-Tx-Rx-0", Use::Both),
            ("mlx5_comp3@pci:0000:01:00.0", Use::Both),
            ("mlx5_async0@pci:0000:01:00.0", Use::Other),
            ("i40e-eth2-TxRx-7", Use::Both),
            ("ena-mgmnt@pci:0000:00:05.0", Use::Other),
            ("virtio2-input.0", Use::Receive),
            ("virtio2-output.0", Use::Send),
            ("virtio2-config", Use::Other),
            ("eth0-rx-1", Use::Receive),
        ] {
            assert_eq!(use_of(name), want, "{name}");
        }
    }

    #[test]
    fn what_is_misplaced_depends_on_the_plan() {
        let irq = |number, name: &str, cpus: &[usize]| Irq {
            number,
            name: name.to_owned(),
            of: use_of(name),
            allowed: cpus.to_vec(),
            cpus: cpus.to_vec(),
        };
        let irqs = [irq(30, "eth0-TxRx-0", &[0]), irq(31, "eth0-TxRx-1", &[1]), irq(32, "eth0-config", &[2])];
        assert_eq!(
            misplaced("eth0", &irqs, &[1, 2], false),
            ["interrupt 31 of eth0 (eth0-TxRx-1) is handled on CPU 1, worker 0's"]
        );
        let aligned = misplaced("eth0", &irqs, &[1, 2], true);
        assert!(aligned.len() == 1 && aligned[0].contains("CPU 2, worker 1's"), "{aligned:?}");
        assert!(misplaced("eth0", &irqs, &[2, 3], false).is_empty());
        assert!(misplaced("eth0", &irqs, &[0, 1], true).is_empty());
    }
}
