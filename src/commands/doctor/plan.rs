//! Pure. Who gets which CPU: workers, the other threads, and the NIC's interrupts.

use crate::config::{Config, Switch};
use crate::machine::Machine;

/// Where packets are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// On the workers' CPUs, each its own connections': for `--incoming-cpu`.
    Aligned,
    /// On the other CPUs.
    Apart,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub workers: Vec<usize>,
    /// They were named; else they are what would be named.
    pub pinned: bool,
    pub housekeeping: Vec<usize>,
    pub layout: Layout,
}

impl Plan {
    pub fn of(config: &Config, machine: &Machine) -> Plan {
        let pinned = !config.cpus.is_empty();
        // Of a host that has not been set up the first CPU takes most interrupts: workers are best on the last.
        let first = machine.cpus.len().saturating_sub(usize::from(config.cores()));
        let workers = if pinned { config.cpus.clone() } else { machine.cpus[first..].to_vec() };
        let housekeeping = match &config.tuning.housekeeping_cpus[..] {
            [] => machine.cpus.iter().copied().filter(|cpu| !workers.contains(cpu)).collect(),
            said => said.to_vec(),
        };
        // To take a packet in costs about half of what a worker does with it: fewer others would be the narrow place.
        let too_few = 2 * housekeeping.len() < workers.len();
        // Of one worker there is nothing to pick.
        let picks = config.tuning.incoming_cpu == Switch::On && workers.len() > 1;
        let aligned = picks || housekeeping.is_empty() || too_few;
        Plan { workers, pinned, housekeeping, layout: if aligned { Layout::Aligned } else { Layout::Apart } }
    }

    /// The CPUs that packets are taken in on.
    pub fn receive_cpus(&self) -> &[usize] {
        match self.layout {
            Layout::Aligned => &self.workers,
            Layout::Apart => &self.housekeeping,
        }
    }

    /// The workers that send by one of so many queues.
    pub fn senders(&self, queue: usize, queues: usize) -> Vec<usize> {
        let workers = &self.workers;
        if queues >= workers.len() {
            return vec![workers[queue % workers.len()]];
        }
        workers.iter().copied().skip(queue).step_by(queues).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(cpus: &[usize], of: usize, incoming_cpu: Switch, housekeeping: &[usize]) -> Plan {
        let machine = Machine { cpus: (0..of).collect(), cpu_quota: None, memory_bytes: 8 << 30 };
        let mut config = Config { cpus: cpus.to_vec(), ..Config::default() };
        config.tuning.incoming_cpu = incoming_cpu;
        config.tuning.housekeeping_cpus = housekeeping.to_vec();
        Plan::of(&config, &machine)
    }

    #[test]
    fn packets_go_apart_where_there_are_cpus_for_them() {
        for (cpus, of, incoming, layout, receive) in [
            (&[0, 1][..], 2, Switch::Off, Layout::Aligned, vec![0, 1]),
            (&[2, 3], 4, Switch::Off, Layout::Apart, vec![0, 1]),
            (&[2, 3], 4, Switch::On, Layout::Aligned, vec![2, 3]),
            (&[1, 2, 3], 4, Switch::Off, Layout::Aligned, vec![1, 2, 3]),
            (&[1, 2], 3, Switch::Off, Layout::Apart, vec![0]),
            (&[1], 2, Switch::On, Layout::Apart, vec![0]),
        ] {
            let plan = plan(cpus, of, incoming, &[]);
            assert_eq!((plan.layout, plan.receive_cpus().to_vec()), (layout, receive), "{cpus:?} of {of}");
        }
        assert_eq!(plan(&[3], 4, Switch::Off, &[1]).receive_cpus(), [1]);
        let unpinned = plan(&[], 4, Switch::Off, &[]);
        assert_eq!((unpinned.pinned, unpinned.workers), (false, vec![3]));
        let machine = Machine { cpus: vec![0, 1, 2, 3], cpu_quota: None, memory_bytes: 8 << 30 };
        assert_eq!(Plan::of(&Config { workers: 3, ..Config::default() }, &machine).workers, [1, 2, 3]);
    }

    #[test]
    fn every_worker_has_a_queue_to_send_by() {
        let plan = plan(&[4, 5, 6], 8, Switch::Off, &[]);
        for queues in 1..8 {
            let mut senders: Vec<usize> = (0..queues).flat_map(|queue| plan.senders(queue, queues)).collect();
            assert!((0..queues).all(|queue| !plan.senders(queue, queues).is_empty()));
            senders.sort_unstable();
            senders.dedup();
            assert_eq!(senders, [4, 5, 6], "{queues} queues");
        }
    }
}
