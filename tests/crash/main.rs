//! The real binary against kills, damage, signals and full disks: what was acknowledged is counted once. Every process here is
//! a child of the test, ended by its own id; ports are 0, directories temporary.
//!
//! Each exit code (src/exit.rs, the table in docs/OPERATING.md) is provoked, what its row says is done, and the count is right. By
//! these, here and in tests/kafka; tests/tidy knows whether one is missing:
//!
//! ```text
//! 0   a_stop_under_load_answers_what_was_received_and_keeps_every_count
//! 0   what_a_killed_edge_left_is_exported_without_taking_a_click_and_then_it_ends      --until-exported
//! 1   a_count_that_differs_is_found_by_audit_which_ends_with_1                         audit
//! 1   a_flipped_bit_halts_and_the_printed_commands_go_on                               wal verify
//! 1   an_edge_that_sheds_needs_somebody_and_one_that_is_gone_is_not_reached            status
//! 1   a_topic_of_checkpoints_that_is_not_compacted_ends_serve_until_it_is              topics check
//! 64  a_wrong_value_64_and_a_port_in_use_69
//! 64  a_directory_without_a_log_is_not_exported_64                                     --until-exported
//! 64  clicks_that_nobody_made_are_never_counted_beside_real_ones_64                    up --demo
//! 69  a_wrong_value_64_and_a_port_in_use_69
//! 70  a_kernel_that_refuses_the_ring_ends_the_process_with_70_and_a_start_goes_on
//! 71  a_flipped_bit_halts_and_the_printed_commands_go_on                               what is not exported: --accept-loss
//! 71  a_flipped_bit_in_what_is_exported_costs_no_count                                 --raise-horizon
//! 71  a_log_older_than_what_was_exported_is_repaired_and_counts_stay                   Kafka
//! 72  a_write_of_the_log_that_fails_72
//! 72  a_segment_that_cannot_be_prepared_72
//! 72  a_start_without_room_for_a_segment_of_each_core_ends_with_72_leaves_none_and_the_next_goes_on
//! 73  a_second_process_on_a_directory_73_and_the_first_goes_on
//! 73  a_log_that_is_there_twice_73_until_one_is_moved_away
//! 73  a_directory_that_exported_to_kafka_is_refused_by_another_sink_edge_or_topic
//! 74  a_store_of_another_directory_is_replaced_by_the_own_one_or_moved_away            and the others of halts.rs
//! 74  a_log_at_its_mark_gives_way_before_clicks_are_shed_and_a_lost_store_has_a_way_out  an empty --data-dir
//! 74  a_mirror_that_is_gone_for_good_is_found_again_in_the_topic                       and the others of adopt.rs
//! 75  a_worker_that_stands_still_ends_the_process_with_75_and_a_start_goes_on
//! 76  a_broken_store_76
//! 76  kafka_away_at_a_start_keeps_only_counts_waiting_and_costs_next_to_nothing        a stop
//! 76  a_host_is_taken_out_though_kafka_is_away                                         --until-exported and a signal
//! 76  a_stop_while_starting_ends_at_once_with_76_and_the_next_start_goes_on
//! 77  a_topic_of_checkpoints_that_is_not_compacted_ends_serve_until_it_is
//! 77  a_topic_whose_limit_no_batch_fits_ends_a_start_until_one_of_them_is_changed
//! 77  another_cluster_is_refused_with_77_before_anything_is_sent
//! ```

mod campaign;
mod client;
mod contended;
mod damage;
mod demo;
mod disk_faults;
#[path = "../sim/document.rs"]
mod document;
mod every_call;
#[path = "../sim/damage.rs"]
#[allow(dead_code, reason = "worlds use the rest")]
mod faults;
mod forgetful;
mod forgetful_tests;
#[path = "../sim/found.rs"]
mod found;
mod fresh;
mod full_disk;
mod halts;
mod idle;
mod key_rule;
mod limits;
mod metrics;
mod night;
mod power;
mod refused;
#[path = "../sim/rng.rs"]
#[allow(dead_code, reason = "worlds use the rest")]
mod rng;
mod server;
mod settings;
mod starting;
mod stopping;
mod traced;
mod ways_out;
