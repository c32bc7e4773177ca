//! Drives. Up to where a partition has records, committed or not, as the broker said with what was read last. rdkafka has no call for it;
//! librdkafka has, and asks nobody.

#![allow(unsafe_code)]

use std::ffi::CString;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;

/// None: nothing was read of it yet.
pub fn high<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: `client` keeps the handle alive through this call, which copies the two numbers, and keeps no pointer.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(client.native_ptr(), name.as_ptr(), partition, &raw mut low, &raw mut high)
    };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
