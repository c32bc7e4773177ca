//! Pure. The findings as a table for a person.

use std::fmt::Write as _;

use super::apply::Applied;
use super::finding::{Finding, Level};

pub(super) fn text(findings: &[Finding], applied: &[Applied], asked_to_apply: bool) -> String {
    let mut out = String::new();
    let mut line = |text: &str| writeln!(out, "{text}").expect("writing to a string does not fail");
    for Applied { change, undo, error } in applied {
        match error {
            None => {
                line(&format!("set /{} from {:?} to {:?}; to put it back: {undo}", change.path, change.old, change.new))
            }
            Some(error) => {
                line(&format!("NOT set /{} to {:?}: {error}; it stays {:?}", change.path, change.new, change.old))
            }
        }
    }
    if asked_to_apply {
        let set = applied.iter().filter(|one| one.error.is_none()).count();
        line(&format!("{set} of {} set, until the next boot; what is now:\n", applied.len()));
    }
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            line(area);
        }
        let Finding { name, level, found, wanted, why, .. } = finding;
        line(&format!("  {:<8} {name:<29} {found}", level.name()));
        if let Some(wanted) = wanted {
            line(&format!("  {:<38} set: {wanted}", ""));
        }
        if !why.is_empty() {
            line(&format!("  {:<38} ({why})", ""));
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, advice) = (count(Level::Problem), count(Level::Advice));
    line(&format!("\n{problems} problems, {advice} pieces of advice"));
    let changes = findings.iter().map(|finding| finding.changes.len()).sum::<usize>();
    if changes > 0 && !asked_to_apply {
        line(&format!("--apply sets {changes} of these values, and prints the command that puts each back"));
    }
    out
}
