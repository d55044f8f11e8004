//! The contract of `src/store.rs`, sentence by sentence, for every store.
//!
//! Owns: the list of tests and of backends. Never: names a backend inside a test. Invariant: each test runs on each backend, on a store
//! of its own.
//!
//! A backend is one line below: its name, and an async function that answers a migrated store with whatever must live as long.

use std::any::Any;
use std::sync::Arc;
use tallykeeper::store::{NodeStore, Store};

mod appending;
mod blobs;
mod committing;
mod creating;
mod facts;
pub(crate) mod fixture;
mod nodes;
mod outbox;
mod reading;
mod results;
mod retrying;
mod snapshots;
mod tickets;
mod tokens;

/// A migrated, empty store.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn Store>,
    /// Dropped after the store.
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}

macro_rules! stamp {
    ($open:path; $($suite:ident: [$($test:ident),* $(,)?])*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let fresh = $open().await;
                crate::conformance::$suite::$test(fresh.store.clone()).await;
            }
        )*)*
    };
}

macro_rules! backends {
    ($($backend:ident => $open:path),* $(,)?) => {
        $(mod $backend {
            stamp! { $open;
                nodes: [
                    migrating_again_runs_nothing,
                    the_clock_does_not_run_backwards,
                    a_second_living_incarnation_conflicts,
                    a_dead_or_gone_incarnation_is_replaced_without_asking,
                    fm55_a_replaced_incarnation_finds_out_and_takes_nothing,
                    registering_again_is_no_conflict,
                    taking_a_named_queue_creates_it,
                    taking_takes_what_nobody_owns_and_answers_everything_owned,
                    taking_again_keeps_the_epoch,
                    a_new_incarnation_takes_its_own_queues_back,
                    a_dead_owners_queues_are_taken_and_a_living_ones_are_not,
                    a_released_node_is_gone_and_its_queues_are_free,
                    nodes_are_listed_with_their_signs_of_life,
                    a_heartbeat_says_where_the_node_is_reached,
                    one_queue_or_all_are_released_by_their_owner_only,
                    a_drain_is_announced_until_the_node_registers_again,
                    a_census_shows_the_living_and_what_they_own,
                    the_secret_stays_what_it_is,
                ]
                creating: [
                    a_created_job_reads_back_as_answered,
                    a_job_is_created_pending_running_or_ended,
                    duplicate_keys_are_rejected_and_nothing_is_written,
                    many_inline_tasks_are_numbered_densely,
                    an_idempotency_key_names_one_job,
                    an_idempotency_key_with_another_body_is_a_mismatch,
                    a_key_belongs_to_its_scope,
                    concurrent_creators_with_one_key_make_one_job,
                    jobs_of_one_queue_share_its_id,
                ]
                appending: [
                    tasks_are_numbered_densely_in_order,
                    duplicates_in_the_chunk_and_in_the_job_are_dropped,
                    a_chunk_of_known_keys_adds_nothing,
                    a_wrong_first_task_writes_nothing,
                    concurrent_appends_let_one_through,
                    fm55_an_append_without_ownership_is_fenced,
                    appending_to_no_job_is_not_found,
                ]
                committing: [
                    answers_come_in_the_order_of_the_batches,
                    outcomes_are_inserted_once,
                    fm16_committing_again_changes_nothing,
                    fm31_a_success_replaces_a_failure_and_never_the_other_way,
                    attempts_are_inserted_once,
                    late_results_are_kept_and_a_success_replaces_a_failure,
                    fm06_a_change_of_state_is_written_whole,
                    fm58_an_update_judged_on_too_few_tasks_changes_nothing,
                    fm03_an_update_from_another_state_is_fenced_whole,
                    an_update_from_another_run_is_fenced,
                    a_lost_update_leaves_the_other_jobs_alone,
                    our_own_update_replayed_is_committed,
                    two_racing_updates_let_one_through,
                    fm02_fm03_a_final_state_stays_within_its_run,
                    fm55_another_epoch_is_refused_whole_and_others_are_not,
                    fm55_a_taken_over_queue_refuses_its_old_owner,
                    a_batch_for_another_queues_job_changes_nothing,
                    an_empty_commit_answers_nothing,
                ]
                retrying: [
                    a_retry_promotes_late_successes_of_standing_runs,
                    promoting_again_changes_nothing,
                    late_results_of_runs_that_do_not_stand_stay_late,
                    the_latest_late_success_is_promoted,
                    a_standing_success_is_not_promoted_over,
                ]
                snapshots: [
                    a_snapshot_reads_back,
                    only_a_larger_version_replaces,
                    fm55_a_snapshot_of_another_epoch_is_skipped,
                    an_absent_snapshot_is_none,
                ]
                reading: [
                    an_absent_job_is_none,
                    fm09_each_state_is_found_by_its_filter_and_by_no_other,
                    jobs_are_listed_newest_first_in_pages,
                    jobs_are_filtered_by_queue_label_and_name,
                    filters_combine,
                    unfinished_jobs_are_active_or_waiting_for_their_start,
                    facts_come_in_order_of_seq_in_pages,
                    tasks_come_by_number_within_a_bound_of_bytes,
                    tasks_are_found_by_their_keys,
                ]
                results: [
                    the_latest_standing_success_speaks_for_a_task,
                    only_the_current_runs_failure_counts,
                    runs_before_the_base_do_not_count,
                    a_late_result_is_marked_unless_the_task_was_decided,
                    results_are_filtered_by_verdict,
                    results_come_in_pages_within_a_bound_of_bytes,
                    a_result_carries_everything_that_was_stored,
                ]
                blobs: [
                    a_blob_reads_back_piece_by_piece,
                    a_result_refers_to_its_blob_and_knows_its_length,
                    an_old_blob_that_nobody_refers_to_is_swept,
                    fm36_a_result_whose_blob_is_gone_is_fenced_whole_and_alone,
                    a_commit_with_a_blob_replayed_is_committed,
                    discarding_gives_up_only_what_nobody_refers_to,
                    a_late_result_keeps_its_blob_and_takes_it_along_when_promoted,
                    a_deleted_jobs_blobs_are_purged,
                    a_large_result_comes_alone_in_its_page,
                ]
                outbox: [
                    fm56_an_end_leaves_an_event_that_waits_if_somebody_is_to_be_called,
                    fm56_a_replayed_end_leaves_its_event_as_it_is,
                    due_events_are_claimed_oldest_first_and_put_off,
                    fm56_a_claim_that_was_not_settled_ends_by_itself,
                    of_racing_claimers_one_gets_an_event,
                    a_receiver_gets_no_more_than_its_share,
                    a_receiver_with_fewer_calls_goes_first,
                    what_became_of_a_call_is_kept,
                    an_older_claim_settles_nothing,
                    events_are_listed_from_the_last_run,
                    an_event_is_sent_again_as_if_it_were_new,
                    fm56_the_event_of_a_deleted_job_is_sent_and_then_goes,
                ]
                facts: [
                    fm38_logs_are_appended_in_order_and_touch_no_job,
                    logs_come_in_pages_by_level_and_from_the_end,
                    entries_of_no_job_are_left_out,
                    trimming_keeps_the_newest_of_its_job,
                    failures_are_those_of_the_run_with_errors_cut,
                    last_attempts_are_the_last_of_the_run,
                    queues_are_listed_with_owner_and_jobs_by_state,
                    a_deleted_job_is_gone_and_its_rows_are_purged_in_pieces,
                    fm55_only_the_owner_deletes_a_job_and_only_as_it_ended,
                    a_deleted_jobs_idempotency_key_is_free,
                ]
                tokens: [
                    tokens_are_listed_oldest_first,
                    a_revoked_token_is_gone,
                    revoking_an_absent_token_is_not_found,
                    a_second_token_of_one_id_is_rejected,
                ]
                tickets: [
                    a_ticket_is_taken_once_and_as_it_was_made,
                    of_racing_takers_one_gets_the_ticket,
                    expired_tickets_are_forgotten_when_one_is_made,
                ]
            }
        })*
    };
}

backends! {
    postgres => crate::conformance::on_postgres,
    sqlite => crate::conformance::on_sqlite,
}

async fn on_postgres() -> Fresh {
    use tallykeeper::store::postgres::{Postgres, Settings};
    let url = crate::cluster::fresh_database().await;
    let store = Postgres::connect(&url, Settings::default())
        .await
        .expect("a fresh database answers");
    Fresh {
        store: Arc::new(store),
        _keep: Box::new(()),
    }
}

async fn on_sqlite() -> Fresh {
    use tallykeeper::store::sqlite::Sqlite;
    let scratch = crate::scratch::Scratch::new();
    let store = Sqlite::open(&scratch.path()).expect("a new file opens");
    store.migrate().await.expect("a new file migrates");
    Fresh {
        store: Arc::new(store),
        _keep: Box::new(scratch),
    }
}
