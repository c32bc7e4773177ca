//! Drives. Where a partition's log ends, undecided transactions included, as its broker said with what was fetched last. rdkafka has no
//! call for it: the one that it has asks, and who reads what is committed is told where the first undecided transaction begins.

// One call of librdkafka, which writes two numbers.
#![allow(unsafe_code)]

use std::ffi::CString;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;

/// None: nothing was fetched of it yet.
pub fn log_end<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut first, mut end) = (-1, -1);
    // SAFETY: `client` keeps the handle alive, `name` is a string that ends with 0, and both numbers outlive the call.
    let answer = unsafe {
        sys::rd_kafka_get_watermark_offsets(client.native_ptr(), name.as_ptr(), partition, &mut first, &mut end)
    };
    (answer == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && end >= 0).then_some(end)
}
