//! The one question that the safe interface of librdkafka does not answer: under which generation and member id a
//! consumer is in its group. Not here: what to make of it (`member`).
//! Invariant: nothing obtained here outlives the call.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no getters for the generation and member id of group metadata")]

use std::ffi::CStr;

use rdkafka::bindings::{
    rd_kafka_consumer_group_metadata, rd_kafka_consumer_group_metadata_destroy,
    rd_kafka_consumer_group_metadata_generation_id, rd_kafka_consumer_group_metadata_member_id,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// Generation and member id at this moment; `None` for a consumer without a group.
pub(crate) fn generation_and_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(i32, String)> {
    // SAFETY: the client lives as long as the borrow of `consumer`. The metadata object is ours from here on, is
    // not used after it is destroyed, and the member id, which points into it, is copied before that.
    unsafe {
        let metadata = rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = rd_kafka_consumer_group_metadata_member_id(metadata);
        let member =
            if member.is_null() { String::new() } else { CStr::from_ptr(member).to_string_lossy().into_owned() };
        rd_kafka_consumer_group_metadata_destroy(metadata);
        Some((generation, member))
    }
}
