//! axum with one record of Kafka a click: a request is acknowledged when the broker has acknowledged all of its records. This is
//! what a collector in front of a raw topic does; duplicates are still in it.

use crate::axum_server::{id_of, lines, reply, serve};
use crate::null_http::Args as ListenArgs;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::post};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Until the producer's queue, when it is full, is tried again.
const QUEUE_PAUSE: Duration = Duration::from_millis(1);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    #[arg(long)]
    kafka_brokers: String,
    #[arg(long, default_value = "bench.clicks")]
    kafka_topic: String,
}

/// A request whose records are on their way.
struct Waiting {
    left: AtomicUsize,
    failed: AtomicBool,
    done: Mutex<Option<oneshot::Sender<bool>>>,
}

impl Waiting {
    fn settle(&self, failed: bool) {
        self.failed.fetch_or(failed, Ordering::Relaxed);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let done = self.done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            // Nobody waits for it where the connection is gone.
            let _ = done.map(|done| done.send(!self.failed.load(Ordering::Relaxed)));
        }
    }
}

#[derive(Clone)]
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Arc<Waiting>) {
        waiting.settle(result.is_err());
    }
}

#[derive(Clone)]
struct Sink {
    producer: Arc<ThreadedProducer<Deliveries>>,
    topic: Arc<str>,
}

pub fn run(args: &Args) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.kafka_brokers).set("acks", "all").set("enable.idempotence", "true");
    // As good as it gets: large batches, and no longer waited for than tollgate waits for a frame.
    config.set("linger.ms", "1").set("batch.size", "1000000").set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<Deliveries> =
        config.create_with_context(Deliveries).map_err(|error| error.to_string())?;
    let metadata = producer.client().fetch_metadata(Some(&args.kafka_topic), METADATA_TIMEOUT);
    metadata.map_err(|error| format!("asking {} for {}: {error}", args.kafka_brokers, args.kafka_topic))?;
    let sink = Sink { producer: Arc::new(producer), topic: args.kafka_topic.as_str().into() };
    serve(&args.listen, Router::new().route("/v1/clicks", post(take)).with_state(sink))
}

async fn take(State(sink): State<Sink>, body: Bytes) -> Response {
    let good: Vec<(&[u8], _)> = lines(&body).filter_map(|line| Some((line, id_of(line)?))).collect();
    let rejected = lines(&body).count() - good.len();
    if good.is_empty() {
        return reply(0, rejected).into_response();
    }
    let (sender, done) = oneshot::channel();
    let waiting = Arc::new(Waiting {
        left: AtomicUsize::new(good.len()),
        failed: AtomicBool::new(false),
        done: Mutex::new(Some(sender)),
    });
    for (line, id) in &good {
        let mut record = BaseRecord::with_opaque_to(&sink.topic, waiting.clone()).key(id.as_bytes()).payload(*line);
        loop {
            match sink.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => record = again,
                Err((_, refused)) => {
                    refused.delivery_opaque.settle(true);
                    break;
                }
            }
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
    }
    match done.await {
        Ok(true) => reply(good.len(), rejected).into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
    }
}
