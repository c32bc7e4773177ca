//! Pure. What was found of one thing of the host, and what would be better.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// It works, and costs speed.
    Advice,
    /// tollgate does not start, or what it promises does not hold.
    Problem,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Advice => "advice",
            Level::Problem => "PROBLEM",
        }
    }
}

/// A value of a file of the kernel's that `--apply` sets, with the one to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Below the root, without the first slash.
    pub path: String,
    pub old: String,
    pub new: String,
}

impl Change {
    /// For a shell.
    pub fn command(&self) -> String {
        echo(&self.new, &self.path)
    }

    /// For a shell: as it was.
    pub fn undo(&self) -> String {
        echo(&self.old, &self.path)
    }
}

fn echo(value: &str, path: &str) -> String {
    let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || ",-_".contains(c));
    if plain { format!("echo {value} > /{path}") } else { format!("echo '{value}' > /{path}") }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub area: &'static str,
    pub name: String,
    pub level: Level,
    pub found: String,
    /// What would be set, or done.
    pub wanted: Option<String>,
    pub why: String,
    /// What `--apply` sets, where it may.
    pub changes: Vec<Change>,
}

impl Finding {
    /// Nothing is to be done; `why` may be empty.
    pub fn ok(
        area: &'static str,
        name: impl Into<String>,
        found: impl Into<String>,
        why: impl Into<String>,
    ) -> Finding {
        let (name, found, why) = (name.into(), found.into(), why.into());
        Finding { area, name, level: Level::Ok, found, wanted: None, why, changes: Vec::new() }
    }

    pub fn advice(self, wanted: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding { level: Level::Advice, wanted: Some(wanted.into()), why: why.into(), ..self }
    }

    pub fn problem(self, wanted: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding { level: Level::Problem, wanted: Some(wanted.into()), why: why.into(), ..self }
    }

    pub fn changing(self, changes: Vec<Change>) -> Finding {
        Finding { changes, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_a_command() {
        let change = |old: &str| Change { path: "proc/sys/x".to_owned(), old: old.to_owned(), new: "3".to_owned() };
        assert_eq!(change("0-1,4").undo(), "echo 0-1,4 > /proc/sys/x");
        assert_eq!(change("").undo(), "echo '' > /proc/sys/x");
        assert_eq!(change("22 23").undo(), "echo '22 23' > /proc/sys/x");
        assert_eq!(change("").command(), "echo 3 > /proc/sys/x");
    }
}
