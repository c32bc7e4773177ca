//! Pure. The right that is missing where a broker refuses for want of one, in the words of Kafka's kafka-acls.sh.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The group that consumers name and never join.
pub const GROUP: &str = "tollgate-reader";

pub const WRITE: &str = ": the right Write on this topic is missing (OPERATING.md, Rights)";

/// What a message about this error ends with; empty where it is of something else.
pub fn missing(error: &KafkaError) -> String {
    let right = match (error.rdkafka_error_code(), error) {
        (Some(RDKafkaErrorCode::TopicAuthorizationFailed), KafkaError::MessageConsumption(_)) => "Read on this topic",
        (Some(RDKafkaErrorCode::TopicAuthorizationFailed), KafkaError::MessageProduction(_)) => {
            return WRITE.to_owned();
        }
        (Some(RDKafkaErrorCode::TopicAuthorizationFailed), _) => "Describe on this topic, which Write and Read bring,",
        (Some(RDKafkaErrorCode::GroupAuthorizationFailed), _) => {
            return format!(": the right Describe on the group {GROUP} is missing (OPERATING.md, Rights)");
        }
        (Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed), _) => "Write on the edge's transactional id",
        _ => return String::new(),
    };
    format!(": the right {right} is missing (OPERATING.md, Rights)")
}
