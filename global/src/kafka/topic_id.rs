//! Drives. The id that a cluster gave a topic when it was made: a topic that was deleted and made anew has the name of the old one,
//! may have its offsets, and never its id. rdkafka has no call for it; librdkafka has, the DescribeTopics of its admin API.

// Pointers of librdkafka, each freed by its own call when what holds it goes.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

/// A pointer that librdkafka gave away, and how to give it back. Never null.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, give_back: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, KafkaError> {
        if pointer.is_null() { Err(failed(RDKafkaErrorCode::Fail)) } else { Ok(Owned(pointer, give_back)) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it is what the call that belongs to `give_back` returned, and it is given back once, here.
        unsafe { (self.1)(self.0) }
    }
}

/// The id of a topic, 22 characters of base64. None: the brokers are of before 2.8 and give none, or there is no such topic.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, KafkaError> {
    let name = CString::new(topic).map_err(|_| failed(RDKafkaErrorCode::InvalidTopic))?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let handle = client.native_ptr();
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: `client` keeps the handle alive through this function. `names` is one string that ends with 0; the collection copies
    // it. Queue, collection and options are given back by their own calls, and the request keeps what it needs of them.
    let (queue, topics, options) = unsafe {
        (
            Owned::new(sys::rd_kafka_queue_new(handle), sys::rd_kafka_queue_destroy)?,
            Owned::new(
                sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
                sys::rd_kafka_TopicCollection_destroy,
            )?,
            Owned::new(
                sys::rd_kafka_AdminOptions_new(handle, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
                sys::rd_kafka_AdminOptions_destroy,
            )?,
        )
    };
    // SAFETY: all four are alive. An answer that comes after the queue is given back is dropped by librdkafka.
    let answer = unsafe {
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(handle, topics.0, options.0, queue.0);
        sys::rd_kafka_queue_poll(queue.0, timeout_ms)
    };
    let answer =
        Owned::new(answer, sys::rd_kafka_event_destroy).map_err(|_| failed(RDKafkaErrorCode::OperationTimedOut))?;
    // SAFETY: the event is alive, and what is read of it is its own: `count` descriptions, of which the first is read.
    unsafe {
        refused(sys::rd_kafka_event_error(answer.0))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.0);
        if result.is_null() {
            return Err(failed(RDKafkaErrorCode::Fail));
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 {
            return Ok(None);
        }
        id_of(*described)
    }
}

/// # Safety
/// `description` is one of an event that is alive.
unsafe fn id_of(description: *const sys::rd_kafka_TopicDescription_t) -> Result<Option<String>, KafkaError> {
    // SAFETY: as above; the id and its text belong to the description.
    unsafe {
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(description));
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => return Ok(None),
            _ => refused(code)?,
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if sys::rd_kafka_Uuid_most_significant_bits(id) == 0 && sys::rd_kafka_Uuid_least_significant_bits(id) == 0 {
            return Ok(None);
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return Ok(None);
        }
        Ok(Some(CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}

fn refused(code: RDKafkaRespErr) -> Result<(), KafkaError> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(failed(code.into())),
    }
}

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MetadataFetch(code)
}
