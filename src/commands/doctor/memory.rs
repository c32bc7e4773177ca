//! Memory: the pages that remembered ids lie in.

use super::Patient;
use super::finding::{Change, Finding};
use crate::config::{HUGE_PAGE_BYTES, HugePages};
use crate::host::memory::{THP, huge_page_pool, transparent_huge_pages};

const AREA: &str = "memory";

pub(super) fn findings(patient: &Patient) -> Vec<Finding> {
    vec![transparent(patient), pool(patient)]
}

fn transparent(patient: &Patient) -> Finding {
    let why = "a look into the table of ids misses the TLB with small pages: it costs up to three times as much";
    match transparent_huge_pages(patient.root) {
        None => Finding::ok(AREA, "transparent huge pages", "not there", "")
            .advice("a kernel with CONFIG_TRANSPARENT_HUGEPAGE, or --huge-pages explicit", why),
        Some(enabled) if enabled == "never" && patient.config.tuning.huge_pages != HugePages::Off => {
            let change = Change { path: THP.to_owned(), old: enabled.clone(), new: "madvise".to_owned() };
            let finding = Finding::ok(AREA, "transparent huge pages", enabled, "");
            finding.advice(change.command(), why).changing(vec![change])
        }
        Some(enabled) => Finding::ok(AREA, "transparent huge pages", enabled, ""),
    }
}

fn pool(patient: &Patient) -> Finding {
    let config = patient.config;
    let pool = huge_page_pool(patient.root);
    let found = pool.map_or("none".to_owned(), |pool| format!("{} free of {}", pool.free, pool.pages));
    let finding = Finding::ok(AREA, "pool of 2 MiB pages", found, "");
    if config.tuning.huge_pages != HugePages::Explicit {
        return finding;
    }
    let need = u64::from(config.cores()) * config.dedup_mapping_bytes_a_core() / HUGE_PAGE_BYTES;
    let (pages, free) = pool.map_or((0, 0), |pool| (pool.pages, pool.free));
    if free >= need {
        return finding;
    }
    let why = format!("--huge-pages explicit needs {need}; the kernel finds them best at boot, while memory is whole");
    finding.advice(format!("sysctl vm.nr_hugepages={}", pages + need - free), why)
}
