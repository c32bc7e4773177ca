//! Pure. Every value that can be set: its name, unit, bounds and what it does, in one table. Flags, environment, file, help,
//! `tollgate check` and `docs/OPERATING.md` all come from it, so none can disagree with another.

mod made;
mod properties;
mod table;

pub use table::SETTINGS;

use self::properties::refusal;
use crate::click::REGION_BYTES_MAX;
use crate::config::Config;
use crate::machine::{Machine, parse_cpu_list};
use crate::units::{format_bytes, format_duration_us, parse_bytes, parse_duration_us};

/// One value that can be set: `--name`, `TOLLGATE_NAME`, `name = ` in the file.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What it does, in one or two sentences.
    pub about: &'static str,
    kind: Kind,
    get: fn(&Config) -> Value,
    set: fn(&mut Config, Value, &Machine),
}

/// What a setting's text means and where it is bounded; bounds are inclusive.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Count {
        min: u64,
        max: u64,
    },
    CountPowerOfTwo {
        min: u64,
        max: u64,
    },
    /// In bytes, a multiple of `step`.
    Bytes {
        min: u64,
        max: u64,
        step: u64,
    },
    /// Kept in units of `unit_us` microseconds; bounds are in that unit.
    Duration {
        unit_us: u64,
        min: u64,
        max: u64,
    },
    /// `ADDRESS:PORT`.
    Address,
    Path,
    PathOrNone,
    /// A name that ends up in metric labels and in Kafka's transactional id.
    Name,
    Choice(&'static [&'static str]),
    Regions,
    Cpus,
    /// A network interface, or none.
    Nic,
    /// `host:port,host:port`.
    Brokers,
    Topic {
        optional: bool,
    },
    /// `key=value`, a line each.
    Properties,
}

/// What answers call clicks whose region is not in the set, and those that name none.
const REGIONS_TAKEN: [&str; 2] = ["other", "unknown"];

enum Value {
    Number(u64),
    Text(String),
}

impl Value {
    fn number(self) -> u64 {
        match self {
            Value::Number(number) => number,
            Value::Text(text) => unreachable!("a numeric setting parsed to the text {text:?}"),
        }
    }

    fn text(self) -> String {
        match self {
            Value::Text(text) => text,
            Value::Number(number) => unreachable!("a text setting parsed to the number {number}"),
        }
    }
}

/// A value that is refused: what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl Setting {
    pub fn named(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The environment variable: `--recv-buffers` is `TOLLGATE_RECV_BUFFERS`.
    pub fn variable(&self) -> String {
        format!("TOLLGATE_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// The value in force, as it would be written on the command line.
    pub fn show(&self, config: &Config) -> String {
        match ((self.get)(config), self.kind) {
            (Value::Text(text), _) => text,
            (Value::Number(number), Kind::Bytes { .. }) => format_bytes(number),
            (Value::Number(number), Kind::Duration { unit_us, .. }) => format_duration_us(number * unit_us),
            (Value::Number(number), _) => number.to_string(),
        }
    }

    /// Puts `text` into `config`, or says what it must be.
    pub fn put(&self, config: &mut Config, text: &str, machine: &Machine) -> Result<(), Refused> {
        let value = self.kind.parse(text).map_err(|limit| match limit {
            Limit::Form(form) => Refused(format!("{form}; {}", self.bounds())),
            Limit::Said(why) => Refused(why),
            Limit::Bounds => Refused(format!("must be {}", self.bounds())),
        })?;
        (self.set)(config, value, machine);
        Ok(())
    }

    /// The bounds in words: `16KiB to 16MiB, a multiple of 4KiB`.
    pub fn bounds(&self) -> String {
        match self.kind {
            Kind::Count { min, max } => format!("{min} to {max}"),
            Kind::CountPowerOfTwo { min, max } => format!("a power of two from {min} to {max}"),
            Kind::Bytes { min, max, step: 1 } => format!("{} to {}", format_bytes(min), format_bytes(max)),
            Kind::Bytes { min, max, step } => {
                format!("{} to {}, a multiple of {}", format_bytes(min), format_bytes(max), format_bytes(step))
            }
            Kind::Duration { unit_us, min, max } => {
                format!("{} to {}", format_duration_us(min * unit_us), format_duration_us(max * unit_us))
            }
            Kind::Address => "an address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::PathOrNone => "a path, or nothing".to_owned(),
            Kind::Name => "1 to 64 letters, digits, dots, dashes and underscores".to_owned(),
            Kind::Choice(names) => format!("one of {}", names.join(", ")),
            Kind::Regions => {
                format!(
                    "up to 1000 names of 1 to {REGION_BYTES_MAX} letters, digits, dashes and underscores, none of them other or unknown"
                )
            }
            Kind::Cpus => "CPU numbers, ascending, such as 3 or 0-2,8".to_owned(),
            Kind::Nic => "the name of a network interface, such as eth0".to_owned(),
            Kind::Brokers => "host:port, separated by commas".to_owned(),
            Kind::Topic { .. } => "1 to 249 letters, digits, dots, dashes and underscores".to_owned(),
            Kind::Properties => "key=value, of those that librdkafka has and the protocol does not decide".to_owned(),
        }
    }

    /// What was said, as a message may show it: without secrets.
    pub fn quoted(&self, text: &str) -> String {
        match self.kind {
            Kind::Properties => properties::quoted(text),
            _ => format!("{text:?}"),
        }
    }

    /// Said several times it is a list, instead of a contradiction.
    pub fn repeats(&self) -> bool {
        matches!(self.kind, Kind::Properties)
    }

    /// The word for the value in the help.
    pub fn placeholder(&self) -> &'static str {
        match self.kind {
            Kind::Count { .. } | Kind::CountPowerOfTwo { .. } => "N",
            Kind::Bytes { .. } => "BYTES",
            Kind::Duration { .. } => "TIME",
            Kind::Address => "ADDRESS",
            Kind::Path => "PATH",
            Kind::PathOrNone => "FILE",
            Kind::Name | Kind::Nic | Kind::Choice(_) | Kind::Topic { .. } => "NAME",
            Kind::Regions | Kind::Cpus | Kind::Brokers => "LIST",
            Kind::Properties => "KEY=VALUE",
        }
    }
}

/// Why a text is no value: its form is wrong, and this is what it must look like; or it is outside the bounds; or more.
enum Limit {
    Form(&'static str),
    /// This is all that is to be said.
    Said(String),
    Bounds,
}

impl Kind {
    fn parse(self, text: &str) -> Result<Value, Limit> {
        let number = |number: u64, good: bool| if good { Ok(Value::Number(number)) } else { Err(Limit::Bounds) };
        let checked = |good: bool| if good { Ok(Value::Text(text.to_owned())) } else { Err(Limit::Bounds) };
        let count = || text.parse::<u64>().map_err(|_| Limit::Form("must be a whole number"));
        match self {
            Kind::Count { min, max } => count().and_then(|n| number(n, (min..=max).contains(&n))),
            Kind::CountPowerOfTwo { min, max } => {
                count().and_then(|n| number(n, (min..=max).contains(&n) && n.is_power_of_two()))
            }
            Kind::Bytes { min, max, step } => {
                let n = parse_bytes(text).map_err(Limit::Form)?;
                number(n, (min..=max).contains(&n) && n % step == 0)
            }
            Kind::Duration { unit_us, min, max } => {
                let us = parse_duration_us(text).map_err(Limit::Form)?;
                number(us / unit_us, us % unit_us == 0 && (min..=max).contains(&(us / unit_us)))
            }
            Kind::Address => checked(text.parse::<std::net::SocketAddr>().is_ok()),
            Kind::Path => checked(!text.is_empty() && !text.contains('\0')),
            Kind::PathOrNone => checked(!text.contains('\0')),
            Kind::Name => checked(is_name(text, 64, b"._-")),
            Kind::Choice(names) => checked(names.contains(&text)),
            Kind::Regions => {
                let names = names_sorted(text);
                let taken = |name: &&String| REGIONS_TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken));
                if let Some(name) = names.iter().find(taken) {
                    return Err(Limit::Said(format!(
                        "{name:?} cannot name a region: counts have other for what is none of the names, and unknown for what names none; \
                         leave it out or call it otherwise"
                    )));
                }
                checked(names.len() <= 1000 && names.iter().all(|name| is_name(name, REGION_BYTES_MAX, b"_-")))
            }
            Kind::Cpus => checked(parse_cpu_list(text).is_some()),
            // A name is part of a path below /sys, and bounded by the kernel's IFNAMSIZ.
            Kind::Nic => checked(text.is_empty() || is_name(text, 15, b"._-@") && !text.starts_with('.')),
            Kind::Brokers => checked(text.split(',').all(is_broker)),
            Kind::Topic { optional } => {
                let dots = text.bytes().all(|byte| byte == b'.');
                checked(optional && text.is_empty() || is_name(text, 249, b"._-") && !dots)
            }
            Kind::Properties => match refusal(text) {
                Some(why) => Err(Limit::Said(why)),
                None => Ok(Value::Text(text.to_owned())),
            },
        }
    }
}

fn is_broker(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    !host.is_empty() && !host.contains([' ', '/']) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_name(text: &str, bytes_max: usize, beside: &[u8]) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || beside.contains(&byte);
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(good)
}

fn names_sorted(text: &str) -> Vec<String> {
    let mut names: Vec<String> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// As many CPUs as asked for; where the mask has fewer, numbers that it lacks, so that the check over the machine refuses.
fn first_cpus(machine: &Machine, number: usize) -> Vec<usize> {
    let beyond = machine.cpus.last().map_or(0, |last| last + 1);
    machine.cpus.iter().copied().chain(beyond..).take(number).collect()
}

fn join<T: ToString>(values: impl Iterator<Item = T>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
}
