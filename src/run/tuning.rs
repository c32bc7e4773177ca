//! Drives. Tries at the start what fits the process to NIC and host. What the kernel does not have is turned off, with one line
//! that says what was tried, what it answered and what it needs; nothing of it keeps a start from serving but `refuse`.

use crate::config::{Config, IrqCheck, NapiMode, Switch};
use crate::exit::Exit;
use crate::host::{Root, irqs};
use crate::net::incoming_cpu;
use crate::net::listener::{self, ListenTuning};
use crate::net::ring::napi;
use crate::start::Failure;

/// The configuration with what is in force of what was asked for.
pub(super) fn in_force(config: &Config) -> Result<Config, Failure> {
    let mut config = config.clone();
    incoming_cpu(&mut config);
    polling(&mut config);
    napi(&mut config);
    irq_affinity(&config, &Root::of_host())?;
    Ok(config)
}

fn nothing(flag: &str, why: impl std::fmt::Display) {
    tracing::warn!("{flag} does nothing here: {why}");
}

fn incoming_cpu(config: &mut Config) {
    if config.tuning.incoming_cpu == Switch::Off {
        return;
    }
    let flag = "--incoming-cpu";
    let mut off = |why: String| {
        nothing(flag, why);
        config.tuning.incoming_cpu = Switch::Off;
    };
    if config.cpus.len() < 2 {
        return off("it picks between the listeners of several workers, and there is one; it needs --cpus or --cores"
            .to_owned());
    }
    match incoming_cpu::try_over_loopback(&config.cpus) {
        Ok(tried) if tried.arrived == tried.of => {
            tracing::info!("{flag}: connections are accepted by the worker on whose CPU their packets arrive");
        }
        Ok(tried) => off(format!(
            "SO_INCOMING_CPU was set, and {} of {} connections from CPU {} came to its listener; it needs kernel 6.2 or later, and no RPS \
             on loopback",
            tried.arrived, tried.of, config.cpus[0]
        )),
        // A namespace whose loopback is down, say: the option itself is set, or refused, with the listeners.
        Err(error) => tracing::warn!("{flag} is set untried: connections over loopback were answered {error}"),
    }
}

fn polling(config: &mut Config) {
    let us = config.ring.busy_poll_us;
    let tuning = ListenTuning { prefer_busy_poll: false, ..ListenTuning::of(config) };
    if us == 0 {
        return;
    }
    match listener::try_to_poll(&tuning) {
        Ok(()) => tracing::info!("--busy-poll-us: a receive that finds nothing looks into the NIC's queue"),
        Err(error) => {
            let why = format!(
                "SO_BUSY_POLL of {us} was answered {error}; it needs a kernel with CONFIG_NET_RX_BUSY_POLL, an older one also CAP_NET_ADMIN"
            );
            nothing("--busy-poll-us", why);
            (config.ring.busy_poll_us, config.ring.napi) = (0, NapiMode::Off);
        }
    }
}

fn napi(config: &mut Config) {
    if config.ring.napi == NapiMode::Prefer
        && let Err(error) = listener::try_to_poll(&ListenTuning::of(config))
    {
        tracing::warn!(
            "--napi prefer polls as --napi on does: SO_PREFER_BUSY_POLL was answered {error}; it needs CAP_NET_ADMIN (AmbientCapabilities= in \
             systemd, --cap-add NET_ADMIN in Docker)"
        );
        config.ring.napi = NapiMode::On;
    }
    if config.ring.napi == NapiMode::Off {
        return;
    }
    match napi::try_to_register(&config.ring) {
        Ok(()) => tracing::info!(
            "--napi: before it sleeps, a worker polls the NIC's queues for {} µs",
            config.ring.busy_poll_us
        ),
        Err(error) => {
            let why = format!(
                "IORING_REGISTER_NAPI was answered {error}; it needs kernel 6.9 or later with CONFIG_NET_RX_BUSY_POLL"
            );
            nothing("--napi", why);
            config.ring.napi = NapiMode::Off;
        }
    }
}

/// Which of the NIC's interrupts are not where these workers want them.
fn irq_affinity(config: &Config, root: &Root) -> Result<(), Failure> {
    let (check, flag) = (config.tuning.irq_affinity_check, "--irq-affinity-check");
    if check == IrqCheck::Off {
        return Ok(());
    }
    if config.cpus.is_empty() {
        nothing(flag, "no worker is pinned to a CPU; it needs --cpus or --cores");
        return Ok(());
    }
    let named = &config.tuning.nic;
    let nics = if named.is_empty() { irqs::nics(root) } else { vec![named.clone()] };
    let nics = nics.into_iter().map(|nic| (irqs::of_nic(root, &nic), nic)).filter(|(irqs, _)| !irqs.is_empty());
    let nics: Vec<_> = nics.collect();
    if nics.is_empty() {
        let whose = if named.is_empty() { "any network interface here" } else { named };
        let why = "loopback and veth have no interrupts; name a NIC with --nic";
        nothing(flag, format!("/proc/interrupts has none of {whose}; {why}"));
        return Ok(());
    }
    let aligned = config.tuning.incoming_cpu == Switch::On;
    let lines: Vec<String> =
        nics.iter().flat_map(|(irqs, nic)| irqs::misplaced(nic, irqs, &config.cpus, aligned)).collect();
    if lines.is_empty() {
        tracing::info!(
            "{flag}: the interrupts of {} are where they should be",
            joined(nics.iter().map(|(_, nic)| nic.as_str()))
        );
        return Ok(());
    }
    match check {
        IrqCheck::Refuse => {
            let text = format!(
                "{flag} refuse: {}; `tollgate doctor` shows where to set them",
                joined(lines.iter().map(String::as_str))
            );
            Err(Failure { exit: Exit::Unavailable, text })
        }
        IrqCheck::Warn | IrqCheck::Off => {
            lines.iter().for_each(|line| tracing::warn!("{flag}: {line}; `tollgate doctor` shows where to set it"));
            Ok(())
        }
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::tree;

    fn checked(check: IrqCheck, incoming_cpu: Switch, nic: &str, cpus: &[usize]) -> Result<(), Failure> {
        let table = "  CPU0 CPU1\n 40: 1 1 PCI-MSI 1-edge eth0-TxRx-0\n";
        let (_folder, root) = tree(&[
            ("proc/interrupts", table),
            ("proc/irq/40/smp_affinity_list", "1\n"),
            ("sys/class/net/eth0/mtu", "1500\n"),
        ]);
        let mut config = Config { cpus: cpus.to_vec(), ..Config::default() };
        config.tuning.irq_affinity_check = check;
        config.tuning.incoming_cpu = incoming_cpu;
        config.tuning.nic = nic.to_owned();
        irq_affinity(&config, &root)
    }

    #[test]
    fn only_refuse_keeps_from_serving_and_names_the_interrupt() {
        for nic in ["", "eth0"] {
            assert!(checked(IrqCheck::Warn, Switch::Off, nic, &[1]).is_ok());
            let failure = checked(IrqCheck::Refuse, Switch::Off, nic, &[1]).unwrap_err();
            assert_eq!(failure.exit, Exit::Unavailable);
            assert!(
                failure.text.contains("interrupt 40 of eth0 (eth0-TxRx-0) is handled on CPU 1"),
                "{}",
                failure.text
            );
            assert!(checked(IrqCheck::Refuse, Switch::Off, nic, &[0]).is_ok());
        }
        let failure = checked(IrqCheck::Refuse, Switch::On, "", &[0, 1]).unwrap_err();
        assert!(failure.text.contains("on CPU 0, worker 0's"), "{}", failure.text);
    }

    #[test]
    fn without_pinned_workers_or_interrupts_there_is_nothing_to_refuse() {
        assert!(checked(IrqCheck::Refuse, Switch::Off, "", &[]).is_ok());
        assert!(checked(IrqCheck::Refuse, Switch::Off, "veth0", &[1]).is_ok());
    }
}
