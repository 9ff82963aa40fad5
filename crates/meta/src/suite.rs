//! Tests that any [`Store`] must pass, and tests of every operation over it.
//!
//! A driver runs all of them from one file in its `tests/`:
//!
//! ```ignore
//! async fn engine() -> ciderfs_meta::suite::Engine { /* an empty engine */ }
//! ciderfs_meta::suite!(engine);
//! ```
//!
//! `store` holds an engine to the contract of [`crate::store`]; `behaviour` holds [`crate::Meta`] to POSIX and to the
//! volume format; `hostile` damages records under it; `model` runs random operations against a reference.
#![allow(clippy::disallowed_methods, reason = "tests run on real clocks and threads")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assertion is the product"
)]

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use crate::store::Store;

pub mod behaviour;
mod check;
mod flaky;
pub mod hostile;
pub mod model;
mod rng;
pub mod store;
mod world;

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>;
type Hand = Box<dyn Fn(&[&[u8]]) -> Result<(), String> + Send + Sync>;

/// An empty engine and the means to open it, as often as there are clients.
pub struct Engine {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    raw: Option<Hand>,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Engine {
    /// `guard` keeps the engine alive (a server, a directory); `open` gives another, independent handle to it.
    pub fn new<F, Fut>(guard: impl Any + Send + Sync, open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Arc<dyn Store>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), raw: None, _guard: Box::new(guard) }
    }

    /// `raw` writes past the store, as somebody else may: the words of a command of Redis, or a statement of SQL with blobs for
    /// its parameters.
    #[must_use]
    pub fn with_raw(self, raw: impl Fn(&[&[u8]]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { raw: Some(Box::new(raw)), ..self }
    }

    /// A handle to the engine.
    pub async fn open(&self) -> Arc<dyn Store> {
        self.opening().await
    }

    fn opening(&self) -> Opening {
        (self.open)()
    }

    fn raw(&self, words: &[&[u8]]) -> Result<(), String> {
        self.raw.as_ref().ok_or("nobody writes past this store")?(words)
    }
}

/// One `#[tokio::test]` per case of the suite. The argument names an `async fn() -> Engine` in the same module.
#[macro_export]
macro_rules! suite {
    ($make:ident) => {
        $crate::__suite! { $make
            store {
                two_handles concurrent_increments concurrent_allocations concurrent_claims
                consistent_reads
                guards_hold guards_fail nothing_written_after_a_failed_guard truths_in_order
                listing listing_pages listing_under_change odd_names big_values
                attributes attribute_patches edges directory_emptiness symlinks xattrs parents
                chunks replaced_chunks taken_chunks slice_references delayed_slices
                counters allocation claims settings sessions sustained deleted_files detached_trees dir_stats acls
                quotas usage_without_quotas room_guards
                flocks plocks schema_twice sums_stay_in_bounds
            }
            behaviour {
                chmod chown directories_just_changed utimes access open_checks directory_times_spared
                link_counts_under_contention
                create_every_kind create_refused creation_with_a_lost_reply
                creation_that_arrives_late numbers_set_back long_names lookup symbolic_links hard_links
                ten_thousand_entries set_group_id_directories subdirectory_as_root
                write write_contended write_at_the_end write_against_a_stream truncate truncate_many_chunks compaction_wins compaction_loses
                compaction_with_trash
                fallocate fallocate_refused fallocate_many_chunks
                copies copies_with_trash copies_of_many_chunks copies_contended changes_tell_what_they_changed
                nameless nameless_linked
                clones_are_copies clones_belong_to_the_caller clones_refused clones_appear_whole clones_with_lost_replies
                clones_of_what_changes clones_of_what_is_compacted clones_killed clones_that_take_long clones_abandoned clones_of_others clones_and_acls
                unlinked_but_open replaced_but_open open_races_unlink session_ends stale_session
                heartbeat deletion_is_resumed hourly_jobs_after_a_clock_ahead shared_slices unlink_without_session read_only_client
                jobs_contended
                unlink rmdir directories_removed_under_their_holders permission_to_remove immutable_and_append_only
                record_locks flock_rules waiting_for_locks readers_let_a_writer_go_first deadlocks deadlocks_between_clients
                locks_contended
                locks_with_lost_replies locks_end_with_the_session nothing_is_written_under_lost_locks
                lost_locks_are_known_as_early_as_others_may_have_them a_late_heartbeat_does_not_hide_lost_locks
                kept_locks_survive_a_lost_row writes_beside_changing_locks
                rename_moves rename_replaces rename_hard_links rename_below_itself
                rename_race_makes_no_loop rename_refused rename_contended rename_of_the_same
                exchange_of_all_kinds exchange_refused exchange_below_itself exchange_race_makes_no_loop
                whiteouts
                flags_forbid flags_are_changed access_times far_times very_many_links
                trash_keeps trash_takes_replaced trash_and_hard_links trash_restrictions trash_and_those_who_hold
                trash_names_and_bypass trash_expires trash_contended
                trash_shows_what_was_readable trash_pages_cost_few_turns paths_are_walked_as_the_caller
                trash_gives_nothing_away
                usage usage_of_hard_links limits missing_usage_records volume_settings sparse_files_end_before_sums_do
                refused_volumes usage_records_off
                xattr_values xattr_limit xattrs_on_a_full_volume xattr_create_and_replace xattr_permissions xattr_lifetime
                xattrs_in_the_trash xattrs_of_other_clients xattr_turns xattr_turns_of_a_listing
                access_acls acls_refused default_acls acls_decide acls_contended acl_turns acls_off
                directory_quota nested_quotas moved_tree_under_change great_tree_moved_under_change
                moved_trees_under_late_change owner_quotas limits_shared_by_clients quotas_come_and_go quotas_under_change statistics_under_quotas limits_cost_no_turn
            }
            hostile {
                attributes entries chunks counters usage others number_of_cases
            }
            model {
                one_client one_client_with_trash lost_replies lost_replies_with_trash two_clients
                three_clients_with_trash two_clients_lost_replies quotas_one_client
                quotas_lost_replies_with_trash quotas_two_clients quotas_three_clients_with_trash
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($make:ident $($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::suite::$group::$case(super::$make().await).await;
                }
            )*
        })*
    };
}
