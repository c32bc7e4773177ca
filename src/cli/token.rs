//! The command line of `tollgate token`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tollgate_global::{Draft, RATE_DEFAULT, RATE_MAX, Scope};

use super::environment;
use crate::flags::UsageError;

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The data directory of `tollgate up`, `serve` or `global`, which may be running [env: TOLLGATE_DATA_DIR]
    #[arg(long, value_name = "PATH", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a token and prints it, once: only its hash is kept
    Create(TokenCreateArgs),
    /// Every token that was made: id, name, what it may see, how often it may ask
    List {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// A token is refused from now on, within two seconds; named by its id, or its name
    Revoke { token: String },
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("sees").required(true).multiple(true).args(["campaign", "advertiser", "all"])))]
pub struct TokenCreateArgs {
    /// The token sees clicks of this campaign; may be repeated
    #[arg(long, value_name = "ID")]
    campaign: Vec<String>,
    /// The token sees clicks of this advertiser; may be repeated
    #[arg(long, value_name = "ID")]
    advertiser: Vec<String>,
    /// The token sees everything
    #[arg(long, conflicts_with_all = ["campaign", "advertiser"])]
    all: bool,
    /// What people call it [default: none]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Requests a second that it may ask, such as 20 or 20/s [default: 100] [bounds: 1 to 100000]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<u32>,
    /// The directory is one that nothing was started on yet; it is made where it is missing
    #[arg(long)]
    pub new: bool,
}

impl TokenArgs {
    /// No default: an edge's directory and the global tier's have different ones.
    pub fn data_dir(&self) -> Result<PathBuf, UsageError> {
        let named = self.data_dir.clone().or_else(|| environment().remove("TOLLGATE_DATA_DIR").map(PathBuf::from));
        let text =
            "say --data-dir: the directory of `tollgate up`, `serve` or `global`, whose query port the token is for";
        named.ok_or_else(|| UsageError(text.to_owned()))
    }
}

impl TokenCreateArgs {
    pub fn draft(&self) -> Draft {
        let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
        let scope = Scope { campaigns: set(&self.campaign), advertisers: set(&self.advertiser) };
        Draft {
            name: self.name.clone(),
            scope: (!self.all).then_some(scope),
            rate_per_s: self.rate.unwrap_or(RATE_DEFAULT),
        }
    }
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<u32>().ok();
    number.filter(|rate| (1..=RATE_MAX).contains(rate)).ok_or_else(|| format!("must be 1 to {RATE_MAX} a second"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, Read, read_command_line};

    fn draft(line: &str) -> Result<Draft, UsageError> {
        match read_command_line(format!("tollgate token create {line}").split(' ').map(Into::into))? {
            Read::Command(Command::Token(args)) => match args.command {
                TokenCommand::Create(args) => Ok(args.draft()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_token_may_see_is_always_said() {
        let drawn = draft("--campaign a --campaign b --advertiser x --name n --rate 7/s").expect("good");
        let scope = drawn.scope.expect("scoped");
        assert_eq!((scope.campaigns.len(), scope.advertisers.len(), drawn.rate_per_s), (2, 1, 7));
        assert!(draft("--all --data-dir d").expect("good").scope.is_none());
        for (line, words) in [
            ("--name n", "--campaign"),
            ("--all --campaign a", "cannot be used with"),
            ("--all --rate 0", "1 to 100000"),
            ("--all --rate 7/m", "1 to 100000"),
        ] {
            let refused = draft(line).expect_err(line).to_string();
            assert!(refused.contains(words) && !refused.contains('\n'), "{line}: {refused}");
        }
    }
}
