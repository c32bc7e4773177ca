//! `tollgate doctor`: looks at the host as this configuration would use it, and says what it found, what it would set for these
//! CPUs, and why. Changes nothing without `--apply`.

mod apply;
mod cpus;
mod disk;
mod finding;
mod kernel;
mod memory;
mod network;
mod plan;
mod screen;
mod sync;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::apply::{Applied, apply};
use self::finding::{Finding, Level};
use self::plan::Plan;
use self::sync::Sync;
use super::wal::CommandError;
use crate::config::Config;
use crate::exit::Exit;
use crate::host::ethtool::{self, Channels};
use crate::host::{Root, irqs};
use crate::machine::Machine;
use crate::net::ring_probe::{self, Features};
use crate::probe::{self, Missing};

/// What the command line asks for beside the settings.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub apply: bool,
    pub json: bool,
}

/// The host, as far as it does not stand in files: what the kernel, the NICs' drivers and the disk answer when they are asked.
struct Probed {
    missing: Vec<Missing>,
    /// `None`: io_uring is not to be had, as `missing` says.
    ring: Option<Features>,
    nics: Vec<(String, NicAnswer)>,
    /// The data directory, or what is there of its path.
    place: PathBuf,
    syncs: io::Result<Vec<Sync>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct NicAnswer {
    channels: Option<Channels>,
    indirection: Option<u32>,
}

/// Whom the findings are of.
struct Patient<'a> {
    root: &'a Root,
    config: &'a Config,
    machine: &'a Machine,
    plan: Plan,
    probed: &'a Probed,
}

#[derive(Serialize)]
struct Report<'a> {
    workers: &'a [usize],
    housekeeping: &'a [usize],
    findings: &'a [Finding],
    applied: &'a [Applied],
}

/// Exit status 1 where there is a problem, or something could not be set.
pub fn run(config: &Config, machine: &Machine, asked: Asked, out: &mut impl Write) -> Result<Exit, CommandError> {
    let (root, probed) = (Root::of_host(), Probed::of_host(config));
    let mut findings = examine(&root, config, machine, &probed);
    let mut applied = Vec::new();
    if asked.apply {
        applied = apply(&root, &findings);
        findings = examine(&root, config, machine, &probed);
    }
    if asked.json {
        let Plan { workers, housekeeping, .. } = &Plan::of(config, machine);
        let report = Report { workers, housekeeping, findings: &findings, applied: &applied };
        let text = serde_json::to_string_pretty(&report).expect("the report holds nothing that JSON cannot say");
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{}", screen::text(&findings, &applied, asked.apply))?;
    }
    let failed = applied.iter().any(|one| one.error.is_some());
    let problem = findings.iter().any(|finding| finding.level == Level::Problem);
    Ok(if failed || problem { Exit::Difference } else { Exit::Clean })
}

fn examine(root: &Root, config: &Config, machine: &Machine, probed: &Probed) -> Vec<Finding> {
    let patient = Patient { root, config, machine, plan: Plan::of(config, machine), probed };
    let areas = [kernel::findings, network::findings, cpus::findings, memory::findings, disk::findings];
    areas.iter().flat_map(|findings| findings(&patient)).collect()
}

impl Probed {
    fn of_host(config: &Config) -> Probed {
        let place = nearest(&config.data_dir);
        let named = &config.tuning.nic;
        let nics = if named.is_empty() { irqs::nics(&Root::of_host()) } else { vec![named.clone()] };
        let answer = |nic: String| {
            let answer =
                NicAnswer { channels: ethtool::channels(&nic), indirection: ethtool::indirection_entries(&nic) };
            (nic, answer)
        };
        // The data directory is not made for a look at it.
        let config = Config { data_dir: place.clone(), ..config.clone() };
        Probed {
            missing: probe::probe(&config),
            ring: ring_probe::features(),
            nics: nics.into_iter().map(answer).collect(),
            syncs: sync::measure(&place),
            place,
        }
    }
}

/// The path, or the nearest of its parents that is there.
fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute.ancestors().find_map(|path| path.canonicalize().ok());
    there.unwrap_or_else(|| PathBuf::from("/"))
}
