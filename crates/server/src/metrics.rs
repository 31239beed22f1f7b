//! Prometheus metrics under etcd's names, as far as the thing that is measured exists here.
//!
//! A [`Metrics`] belongs to one member. Counting costs a few nanoseconds on any thread
//! ([`cells`]); nothing is locked, formatted or allocated until somebody scrapes. Numbers that
//! others own (revisions, file sizes, raft's indexes) are not counted here but copied into
//! gauges before a scrape, see `MemberView::refresh` in [`crate::http`].

mod cells;
mod encode;
mod grpc;
mod labelled;
mod process;

use std::fmt::Write as _;

pub use cells::{Counter, Gauge, Histogram};
pub use encode::{CONTENT_TYPE, Metric, Text};
pub use grpc::{Grpc, Method};
pub use labelled::{Counters, Gauges, Histograms, Labelled};
pub use process::{fd_limit, open_fds};

use crate::config::gates::Gates;

/// From 100 µs on; for what happens in memory.
fn quick() -> Histogram {
    Histogram::exponential(0.0001, 2.0, 20)
}

/// From 1 ms on; for what waits for a disk or a quorum.
fn waiting() -> Histogram {
    Histogram::exponential(0.001, 2.0, 14)
}

/// A family as the encoder sees it.
trait Family {
    fn write_family(&self, name: &str, help: &str, text: &mut Text);
}

impl<M: Metric> Family for M {
    fn write_family(&self, name: &str, help: &str, text: &mut Text) {
        text.family(name, M::KIND, help);
        self.write(name, "", text);
    }
}

impl<M: Metric, const N: usize> Family for Labelled<M, N> {
    fn write_family(&self, name: &str, help: &str, text: &mut Text) {
        if !self.is_empty() {
            text.family(name, M::KIND, help);
            self.write(name, text);
        }
    }
}

macro_rules! families {
    ($($field:ident: $type:ty = $new:expr, $name:literal, $help:literal;)*) => {
        /// Everything that one member counts.
        pub struct Metrics {
            $(#[doc = $help] #[doc = ""] #[doc = concat!("`", $name, "`")] pub $field: $type,)*
            /// `grpc_server_*`
            pub grpc: Grpc,
            /// Scrapes being answered: `promhttp_metric_handler_requests_in_flight`
            pub scrapes_in_flight: Gauge,
            /// Scrapes answered: `promhttp_metric_handler_requests_total{code="200"}`
            pub scrapes: Counter,
        }

        impl Default for Metrics {
            fn default() -> Metrics {
                Metrics {
                    $($field: $new,)*
                    grpc: Grpc::default(),
                    scrapes_in_flight: Gauge::default(),
                    scrapes: Counter::default(),
                }
            }
        }

        impl Metrics {
            fn write_families(&self, text: &mut Text) {
                $(self.$field.write_family($name, $help, text);)*
            }
        }
    };
}

// In the order of the names, which is the order of the page.
families! {
    cluster_version: Gauges<1> = Gauges::new(["cluster_version"], Gauge::default),
        "etcd_cluster_version", "1 for the version that the cluster runs at, 0 for earlier ones.";
    auth_revision: Gauge = Gauge::default(),
        "etcd_debugging_auth_revision", "Revision of users, roles and permissions.";
    commit_rebalance: Histogram = waiting(),
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        "Time of changing the trees of the database in a commit.";
    commit_spill: Histogram = waiting(),
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        "Time of laying out new pages in a commit.";
    commit_write: Histogram = waiting(),
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        "Time of writing and syncing pages in a commit.";
    leases_granted: Counter = Counter::default(),
        "etcd_debugging_lease_granted_total", "Leases that were granted.";
    leases_renewed: Counter = Counter::default(),
        "etcd_debugging_lease_renewed_total", "Renewals of leases, on the leader.";
    leases_revoked: Counter = Counter::default(),
        "etcd_debugging_lease_revoked_total", "Leases that were revoked.";
    lease_ttl: Histogram = Histogram::exponential(1.0, 2.0, 24),
        "etcd_debugging_lease_ttl_total", "Seconds for which leases were granted.";
    compact_revision: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_compact_revision", "Revision up to which history is gone.";
    current_revision: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_current_revision", "Newest revision.";
    compaction_keys: Counter = Counter::default(),
        "etcd_debugging_mvcc_db_compaction_keys_total", "Revisions that compactions removed.";
    compaction_last: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_db_compaction_last", "Unix time of the last compaction's end.";
    compaction_pause: Histogram = Histogram::exponential(1.0, 2.0, 13),
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        "Time of one step of a compaction.";
    compaction_total: Histogram = Histogram::exponential(100.0, 2.0, 14),
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "Time of a whole compaction.";
    watch_events: Counter = Counter::default(),
        "etcd_debugging_mvcc_events_total", "Events sent to watchers.";
    index_compaction_pause: Histogram = Histogram::exponential(0.5, 2.0, 14),
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        "Time of one step of compacting the index.";
    keys: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_keys_total", "Keys in the index.";
    pending_events: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_pending_events_total",
        "Events that wait outside of their streams; always 0, since watchers are cursors.";
    slow_watchers: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_slow_watcher_total", "Watchers that have to catch up.";
    put_bytes: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values put so far.";
    watch_streams: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_watch_stream_total", "Watch streams.";
    watchers: Gauge = Gauge::default(),
        "etcd_debugging_mvcc_watcher_total", "Watchers.";
    alarms: Gauges<2> = Gauges::new(["alarm_type", "server_id"], Gauge::default),
        "etcd_debugging_server_alarms", "Alarms that are raised, by member.";
    leases_expired: Counter = Counter::default(),
        "etcd_debugging_server_lease_expired_total", "Leases that expired and were revoked.";
    watch_control: Histogram = waiting(),
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
        "Time of answering what was asked on a watch stream.";
    watch_progress: Histogram = waiting(),
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
        "Time of reporting progress on a watch stream.";
    watch_per_event: Histogram = waiting(),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
        "Time of sending a response to a watcher, by event in it.";
    watch_response: Histogram = waiting(),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        "Time of sending a response to a watcher.";
    snap_encode: Histogram = waiting(),
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "Time of putting a raft snapshot together.";
    snap_save: Histogram = waiting(),
        "etcd_debugging_snap_save_total_duration_seconds", "Time of saving a raft snapshot.";
    store_expires: Counter = Counter::default(),
        "etcd_debugging_store_expires_total", "Always 0: the v2 store is gone.";
    store_watch_requests: Counter = Counter::default(),
        "etcd_debugging_store_watch_requests_total", "Always 0: the v2 store is gone.";
    store_watchers: Gauge = Gauge::default(),
        "etcd_debugging_store_watchers", "Always 0: the v2 store is gone.";
    backend_commit: Histogram = waiting(),
        "etcd_disk_backend_commit_duration_seconds", "Time of committing the database.";
    defrag: Histogram = Histogram::exponential(0.1, 2.0, 13),
        "etcd_disk_backend_defrag_duration_seconds", "Time of defragmenting the database.";
    backend_snapshot: Histogram = Histogram::exponential(0.01, 2.0, 17),
        "etcd_disk_backend_snapshot_duration_seconds", "Time of sending the database.";
    defrag_inflight: Gauge = Gauge::default(),
        "etcd_disk_defrag_inflight", "1 while the database is being defragmented.";
    wal_fsync: Histogram = waiting(),
        "etcd_disk_wal_fsync_duration_seconds", "Time of syncing the write-ahead log.";
    wal_write_bytes: Gauge = Gauge::default(),
        "etcd_disk_wal_write_bytes_total", "Bytes written to the write-ahead log.";
    wal_write: Histogram = waiting(),
        "etcd_disk_wal_write_duration_seconds", "Time of writing to the write-ahead log.";
    proxy_cache_hits: Gauge = Gauge::default(),
        "etcd_grpc_proxy_cache_hits_total", "Serializable reads that the gRPC proxy answered itself.";
    proxy_cache_keys: Gauge = Gauge::default(),
        "etcd_grpc_proxy_cache_keys_total", "Answers that the gRPC proxy keeps.";
    proxy_cache_misses: Gauge = Gauge::default(),
        "etcd_grpc_proxy_cache_misses_total", "Serializable reads that the gRPC proxy had to pass on.";
    proxy_events_coalescing: Counter = Counter::default(),
        "etcd_grpc_proxy_events_coalescing_total", "Events that the gRPC proxy gave to several watchers.";
    proxy_watchers_coalescing: Gauge = Gauge::default(),
        "etcd_grpc_proxy_watchers_coalescing_total", "Watchers that share a watch of the gRPC proxy's.";
    open_reads: Gauge = Gauge::default(),
        "etcd_mvcc_db_open_read_transactions", "Read transactions open on the database.";
    db_bytes: Gauge = Gauge::default(),
        "etcd_mvcc_db_total_size_in_bytes", "Size of the database file.";
    db_bytes_in_use: Gauge = Gauge::default(),
        "etcd_mvcc_db_total_size_in_use_in_bytes", "Size of the database file less free pages.";
    deletes: Counter = Counter::default(),
        "etcd_mvcc_delete_total", "Deletions.";
    hash: Histogram = Histogram::exponential(0.01, 2.0, 15),
        "etcd_mvcc_hash_duration_seconds", "Time of hashing the database.";
    hash_rev: Histogram = Histogram::exponential(0.01, 2.0, 15),
        "etcd_mvcc_hash_rev_duration_seconds", "Time of hashing the keys up to a revision.";
    puts: Counter = Counter::default(),
        "etcd_mvcc_put_total", "Puts.";
    ranges: Counter = Counter::default(),
        "etcd_mvcc_range_total", "Ranges.";
    txns: Counter = Counter::default(),
        "etcd_mvcc_txn_total", "Transactions of more than one operation.";
    active_peers: Gauges<2> = Gauges::new(["Local", "Remote"], Gauge::default),
        "etcd_network_active_peers", "1 for every other member that is connected.";
    client_received_bytes: Counter = Counter::default(),
        "etcd_network_client_grpc_received_bytes_total", "Bytes of messages from gRPC clients.";
    client_sent_bytes: Counter = Counter::default(),
        "etcd_network_client_grpc_sent_bytes_total", "Bytes of messages to gRPC clients.";
    disconnected_peers: Counters<2> = Counters::new(["Local", "Remote"], Counter::default),
        "etcd_network_disconnected_peers_total", "Losses of the connection to another member.";
    known_peers: Gauges<2> = Gauges::new(["Local", "Remote"], Gauge::default),
        "etcd_network_known_peers", "1 for every member that this member knows.";
    peer_received_bytes: Counters<1> = Counters::new(["From"], Counter::default),
        "etcd_network_peer_received_bytes_total", "Bytes that other members sent.";
    peer_received_failures: Counters<1> = Counters::new(["From"], Counter::default),
        "etcd_network_peer_received_failures_total", "Messages from others that were unreadable.";
    peer_round_trip: Histograms<1> =
        Histograms::new(["To"], || Histogram::exponential(0.0001, 2.0, 16)),
        "etcd_network_peer_round_trip_time_seconds", "Time of a probe to another member and back.";
    peer_sent_bytes: Counters<1> = Counters::new(["To"], Counter::default),
        "etcd_network_peer_sent_bytes_total", "Bytes sent to other members.";
    peer_sent_failures: Counters<1> = Counters::new(["To"], Counter::default),
        "etcd_network_peer_sent_failures_total", "Messages to other members that were lost.";
    stream_failures: Counters<2> = Counters::new(["API", "Type"], Counter::default),
        "etcd_network_server_stream_failures_total",
        "Streams that broke, by what they are for and by direction.";
    snapshot_receive_failures: Counters<1> = Counters::new(["From"], Counter::default),
        "etcd_network_snapshot_receive_failures", "Databases that did not arrive.";
    snapshot_receiving: Gauges<1> = Gauges::new(["From"], Gauge::default),
        "etcd_network_snapshot_receive_inflights_total", "Databases that are arriving.";
    snapshot_receive_success: Counters<1> = Counters::new(["From"], Counter::default),
        "etcd_network_snapshot_receive_success", "Databases that arrived.";
    snapshot_receive_time: Histograms<1> =
        Histograms::new(["From"], || Histogram::exponential(0.1, 2.0, 10)),
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Time in which a database arrived.";
    snapshot_send_failures: Counters<1> = Counters::new(["To"], Counter::default),
        "etcd_network_snapshot_send_failures", "Databases that could not be sent.";
    snapshot_sending: Gauges<1> = Gauges::new(["To"], Gauge::default),
        "etcd_network_snapshot_send_inflights_total", "Databases that are being sent.";
    snapshot_send_success: Counters<1> = Counters::new(["To"], Counter::default),
        "etcd_network_snapshot_send_success", "Databases that were sent.";
    snapshot_send_time: Histograms<1> =
        Histograms::new(["To"], || Histogram::exponential(0.1, 2.0, 10)),
        "etcd_network_snapshot_send_total_duration_seconds", "Time of sending a database.";
    apply: Histograms<3> = Histograms::new(["op", "success", "version"], quick),
        "etcd_server_apply_duration_seconds", "Time of applying an entry.";
    client_requests: Counters<2> =
        Counters::new(["client_api_version", "type"], Counter::default),
        "etcd_server_client_requests_total", "Requests by the version that the client named.";
    feature_enabled: Gauges<2> = Gauges::new(["name", "stage"], Gauge::default),
        "etcd_server_feature_enabled", "1 for every feature gate that is on.";
    has_leader: Gauge = Gauge::default(),
        "etcd_server_has_leader", "1 while a leader is known.";
    health_failures: Counter = Counter::default(),
        "etcd_server_health_failures", "Health checks that failed.";
    health_success: Counter = Counter::default(),
        "etcd_server_health_success", "Health checks that passed.";
    healthcheck: Gauges<2> = Gauges::new(["name", "type"], Gauge::default),
        "etcd_server_healthcheck", "1 when the check passed last time.";
    healthchecks: Counters<3> = Counters::new(["name", "status", "type"], Counter::default),
        "etcd_server_healthchecks_total", "Single health checks by outcome.";
    heartbeat_failures: Counter = Counter::default(),
        "etcd_server_heartbeat_send_failures_total", "Heartbeats that went out too late.";
    server_id: Gauges<1> = Gauges::new(["server_id"], Gauge::default),
        "etcd_server_id", "1 with the id of this member as label.";
    is_leader: Gauge = Gauge::default(),
        "etcd_server_is_leader", "1 while this member leads.";
    is_learner: Gauge = Gauge::default(),
        "etcd_server_is_learner", "1 while this member is a learner.";
    leader_changes: Counter = Counter::default(),
        "etcd_server_leader_changes_seen_total", "Changes of leader that this member saw.";
    learner_promote_failures: Counters<1> = Counters::new(["Reason"], Counter::default),
        "etcd_server_learner_promote_failures", "Promotions that were refused, by reason.";
    learner_promote_successes: Counter = Counter::default(),
        "etcd_server_learner_promote_successes", "Learners that were promoted.";
    proposals_applied: Gauge = Gauge::default(),
        "etcd_server_proposals_applied_total", "Index of the last applied entry.";
    proposals_committed: Gauge = Gauge::default(),
        "etcd_server_proposals_committed_total", "Index of the last committed entry.";
    proposals_failed: Counter = Counter::default(),
        "etcd_server_proposals_failed_total", "Proposals that were given up.";
    proposals_pending: Gauge = Gauge::default(),
        "etcd_server_proposals_pending", "Proposals that wait for their entry to be applied.";
    quota_bytes: Gauge = Gauge::default(),
        "etcd_server_quota_backend_bytes", "Bytes that the database may have.";
    range: Histograms<1> = Histograms::new(["success"], quick),
        "etcd_server_range_duration_seconds", "Time of reading a range.";
    read_indexes_failed: Counter = Counter::default(),
        "etcd_server_read_indexes_failed_total", "Linearizable reads that were given up.";
    request: Histograms<2> = Histograms::new(["success", "type"], waiting),
        "etcd_server_request_duration_seconds", "Time from the proposal to the result.";
    slow_apply: Counter = Counter::default(),
        "etcd_server_slow_apply_total", "Entries that took long to apply.";
    slow_read_indexes: Counter = Counter::default(),
        "etcd_server_slow_read_indexes_total", "Linearizable reads that took long to confirm.";
    snapshot_applying: Gauge = Gauge::default(),
        "etcd_server_snapshot_apply_in_progress_total",
        "1 while a received database takes the state's place.";
    version: Gauges<1> = Gauges::new(["server_version"], Gauge::default),
        "etcd_server_version", "1 with the emulated etcd version as label.";
    snap_db_fsync: Histogram = waiting(),
        "etcd_snap_db_fsync_duration_seconds", "Time of syncing a received database.";
    snap_db_save: Histogram = Histogram::exponential(0.1, 2.0, 10),
        "etcd_snap_db_save_total_duration_seconds",
        "Time of receiving and keeping a database.";
    snap_fsync: Histogram = waiting(),
        "etcd_snap_fsync_duration_seconds", "Time of syncing a raft snapshot.";
}

impl Metrics {
    /// Metrics of a member whose configuration is known; `extensive` is `--metrics=extensive`.
    #[must_use]
    pub fn new(gates: &Gates, quota_bytes: Option<u64>, extensive: bool) -> Metrics {
        let metrics = Metrics {
            grpc: Grpc::new(extensive),
            ..Metrics::default()
        };
        for (gate, on) in gates.iter() {
            let gauge = metrics
                .feature_enabled
                .with([gate.name, gate.stage.label()]);
            gauge.set(i64::from(on));
        }
        metrics.version.with([api::version::SERVER]).set(1);
        metrics.quota_bytes.set_u64(quota_bytes.unwrap_or(0));
        metrics
    }

    /// The page of `/metrics`.
    #[must_use]
    pub fn page(&self) -> String {
        let mut text = Text(String::with_capacity(128 << 10));
        self.write_families(&mut text);
        self.grpc.write(&mut text);
        process::write(&mut text);
        let name = "promhttp_metric_handler_requests_in_flight";
        self.scrapes_in_flight
            .write_family(name, "Scrapes that are being answered.", &mut text);
        let name = "promhttp_metric_handler_requests_total";
        text.family(
            name,
            Counter::KIND,
            "Scrapes that were answered, by status.",
        );
        let answered = self.scrapes.value();
        for (code, count) in [("200", answered), ("500", 0), ("503", 0)] {
            let _ = writeln!(text.0, "{name}{{code=\"{code}\"}} {count}");
        }
        text.0
    }
}

#[cfg(test)]
mod tests;
