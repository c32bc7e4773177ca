//! Pure. What fits the process to its NIC and host. Off where nothing is said: each helps some hosts and costs others something.

use super::named;

named! {
    /// Whether something is asked for.
    Switch { Off = "off", On = "on" }
}

named! {
    /// Whether a ring polls the NIC's queues before it sleeps.
    NapiMode {
        Off = "off",
        On = "on",
        /// And holds the NIC's interrupts back meanwhile, where its `napi_defer_hard_irqs` and `gro_flush_timeout` are set.
        Prefer = "prefer",
    }
}

named! {
    /// What a start does about interrupts of the NIC that are not where they should be.
    IrqCheck { Off = "off", Warn = "warn", Refuse = "refuse" }
}

named! {
    /// Pages of the table of remembered ids.
    HugePages {
        /// The kernel is asked for huge ones, and gives those it has.
        Transparent = "transparent",
        /// Of the pool that `vm.nr_hugepages` sets aside.
        Explicit = "explicit",
        Off = "off",
    }
}

/// Explicit huge pages are asked for in this size, which every x86-64 and most ARM hosts have.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct TuningConfig {
    /// The interface that clicks come in by; empty: every one that has interrupts.
    pub nic: String,
    /// A connection is accepted by the worker on whose CPU its packets arrive.
    pub incoming_cpu: Switch,
    pub irq_affinity_check: IrqCheck,
    pub huge_pages: HugePages,
    /// Where all threads but the workers run. Empty: on every CPU that no worker is pinned to.
    pub housekeeping_cpus: Vec<usize>,
}

impl Default for TuningConfig {
    fn default() -> TuningConfig {
        TuningConfig {
            nic: String::new(),
            incoming_cpu: Switch::Off,
            irq_affinity_check: IrqCheck::Off,
            huge_pages: HugePages::Transparent,
            housekeeping_cpus: Vec::new(),
        }
    }
}
