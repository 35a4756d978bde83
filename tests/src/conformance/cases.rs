//! The list of all cases, and the macro that makes each of them a test of a back end.
//! Invariant: a case that is not listed here runs nowhere; the compiler says so, for then nothing uses it.

/// Makes a `#[test]` of every case for a [`Backend`](crate::conformance::Backend).
#[macro_export]
macro_rules! conformance {
    ($backend:ty) => {
        $crate::conformance! { $backend:
            append::reads_back_what_was_appended,
            append::keeps_the_order_of_each_appender,
            append::refuses_what_is_too_large,
            append::names_a_missing_topic,
            append::lists_topics,
            append::wakes_a_waiting_read,
            append::a_waker_ends_a_wait,
            batch::a_batch_appears_as_a_whole,
            batch::an_aborted_batch_stays_invisible,
            batch::an_empty_batch_can_be_decided,
            batch::a_dropped_writer_leaves_nothing,
            batch::readers_go_on_past_an_open_batch,
            batch::an_id_opened_again_shuts_out,
            batch::ends_differ_by_isolation,
            reading::reads_from_a_position,
            reading::reads_from_a_time,
            reading::a_reader_can_be_moved,
            compaction::keeps_the_newest_of_each_key,
            compaction::a_tombstone_ends_a_key,
            compaction::an_aborted_value_hides_no_older_one,
            ownership::members_share_the_shards,
            ownership::a_leaver_hands_over,
            ownership::an_append_needs_its_shards,
            ownership::an_append_is_started_and_waited_for,
            ownership::inputs_are_read_and_caught_up,
            ownership::shared_inputs_stay_when_shards_go,
            ownership::owners_are_on_record,
            ownership::an_owner_that_gave_up_comes_back,
            takeover::a_dead_members_shards_move,
            takeover::a_frozen_member_is_shut_out,
            takeover::a_thawed_member_is_told_first,
            takeover::a_stale_member_cannot_fence,
            takeover::nothing_is_decided_twice,
            claims::positions_travel_with_the_batch,
            claims::a_refused_claim_moves_nothing,
            claims::every_record_is_claimed_once,
            claims::a_stale_claim_is_refused,
            claims::who_wants_nothing_stays_a_member,
            claims::a_waiting_claimer_wakes,
            durability::a_restart_loses_nothing,
            durability::a_killed_process_leaves_what_it_acknowledged,
        }
    };
    ($backend:ty: $($group:ident :: $case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                if <$backend as $crate::conformance::Backend>::is_switched_off() {
                    return;
                }
                let mut backend = <$backend as $crate::conformance::Backend>::fresh();
                $crate::conformance::$group::$case(&mut backend);
            }
        )*
    };
}
