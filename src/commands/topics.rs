//! `tollgate topics`: makes Kafka's topics as the protocol needs them, and looks at those there are.

use std::io::Write;

use super::wal::CommandError;
use crate::config::KafkaConfig;
use crate::exit::Exit;
use crate::export::SinkError;
use crate::export::kafka::{Client, TopicFinding, TopicsPlan, check_topics, create_topics};

pub fn create(kafka: &KafkaConfig, plan: &TopicsPlan, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let client = client(kafka)?;
    let (made, other) = create_topics(&client, plan).map_err(failed)?;
    for topic in &made {
        writeln!(out, "made: {topic}")?;
    }
    if made.is_empty() {
        writeln!(out, "all topics were there; nothing was changed")?;
    }
    report(&client, other, out)
}

pub fn check(kafka: &KafkaConfig, out: &mut dyn Write) -> Result<Exit, CommandError> {
    report(&client(kafka)?, Vec::new(), out)
}

/// Of every topic, after what was found before.
fn report(client: &Client, mut findings: Vec<TopicFinding>, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let all = client.reads_all().map_err(failed)?;
    findings.extend(check_topics(client, &all).map_err(failed)?);
    for TopicFinding { topic, refused, text } in &findings {
        writeln!(out, "{} {topic}: {text}", if *refused { "REFUSED" } else { "warning" })?;
    }
    if findings.is_empty() {
        writeln!(out, "the topics are as they should be")?;
    }
    let refused = findings.iter().any(|finding| finding.refused);
    Ok(if refused { Exit::Difference } else { Exit::Clean })
}

fn client(kafka: &KafkaConfig) -> Result<Client, CommandError> {
    Client::new(kafka).map_err(|error| CommandError::Refused(error.to_string()))
}

fn failed(error: SinkError) -> CommandError {
    let (SinkError::Unreachable(text) | SinkError::Broken(text) | SinkError::Foreign(text)) = error;
    CommandError::Halted(Exit::Kafka, text)
}
