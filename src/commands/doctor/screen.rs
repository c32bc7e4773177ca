//! Pure. The findings as a table for a person.

use std::fmt::Write as _;

use super::apply::Applied;
use super::finding::{Change, Finding, Level};

pub(super) fn text(findings: &[Finding], applied: &[Applied], asked_to_apply: bool) -> String {
    let mut out = String::new();
    let mut line = |text: &str| writeln!(out, "{text}").expect("writing to a string does not fail");
    for Applied { name, change, undo, error } in applied {
        match error {
            None => {
                let Change { path, old, new } = change;
                line(&format!("{name}: set /{path} from {old:?} to {new:?}; to put it back: {undo}"))
            }
            Some(error) => {
                let Change { path, old, new } = change;
                line(&format!("{name}: NOT set /{path} to {new:?}: {error}; it stays {old:?}"))
            }
        }
    }
    if asked_to_apply {
        let set = applied.iter().filter(|one| one.error.is_none()).count();
        if applied.is_empty() {
            line(
                "nothing is set: what --apply may set is as it should be, and the rest is somebody's to decide; what is now:\n",
            );
        } else {
            line(&format!("{set} of {} set, until the next boot; what is now:\n", applied.len()));
        }
    }
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            line(area);
        }
        let Finding { name, level, found, wanted, why, changes, .. } = finding;
        line(&format!("  {:<8} {name:<29} {found}", level.name()));
        if let Some(wanted) = wanted {
            let by = if changes.is_empty() { "" } else { " (or --apply)" };
            line(&format!("  {:<38} set{by}: {wanted}", ""));
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
        line(&format!(
            "--apply sets {changes} of these values, those marked with it, and prints the command that puts each back"
        ));
    }
    out
}
