//! Java processes from what `scripts/kafka-jars` put into target/kafka.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `java`, ready for a subcommand of the reader.
pub fn reader(flags: &[&str]) -> Command {
    let mut command = Command::new("java");
    // An archive that is missing or of another Java costs time, not the run; nor is it spoken of.
    command.args(["-XX:+UseSerialGC", "-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr"]);
    command.arg(format!("-XX:SharedArchiveFile={}", kafka_folder().join("classes.jsa").display())).args(flags);
    command.arg("-cp").arg(class_path()).arg("tollgate.Main");
    command
}

fn class_path() -> String {
    let folder = kafka_folder();
    let (libs, reader) = (folder.join("libs"), folder.join("reader.jar"));
    // `sources` is written last, when all is there.
    let whole = folder.join("sources").exists() && libs.is_dir() && reader.exists();
    assert!(whole, "the broker's jars are not in {}: run scripts/kafka-jars", folder.display());
    format!("{}:{}/*", reader.display(), libs.display())
}

fn kafka_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka")
}
