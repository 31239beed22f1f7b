//! The page as a whole.

use super::*;

fn metrics() -> Metrics {
    let gates = Gates::parse("LeaseCheckpoint=true").unwrap();
    Metrics::new(&gates, Some(2 << 30), false)
}

/// Name and type of every family, in the order of the page.
fn families(page: &str) -> Vec<(&str, &str)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split_once(' ').unwrap()).collect()
}

#[test]
fn families_are_sorted_and_unique() {
    let metrics = metrics();
    for metric in [&metrics.cluster_version, &metrics.server_id] {
        metric.with(["x"]).set(1);
    }
    for metric in [&metrics.alarms, &metrics.known_peers, &metrics.healthcheck] {
        metric.with(["x", "y"]).set(1);
    }
    metrics.client_requests.with(["3.7", "unary"]).inc();
    metrics.healthchecks.with(["n", "success", "livez"]).inc();
    metrics.apply.with(["Put", "true", "v3"]).observe(0.1);
    metrics.range.with(["true"]).observe(0.1);
    metrics.request.with(["true", "Put"]).observe(0.1);
    let page = metrics.page();
    let families = families(&page);
    assert!(families.is_sorted_by(|a, b| a.0 < b.0), "{families:?}");
}

#[test]
fn golden_samples() {
    let metrics = metrics();
    metrics.puts.add(3);
    metrics.wal_fsync.observe(0.0015);
    metrics.wal_fsync.observe(100.0);
    metrics.range.with(["true"]).observe(0.25);
    let page = metrics.page();
    for want in [
        "# HELP etcd_mvcc_put_total Puts.\n# TYPE etcd_mvcc_put_total counter\n\
         etcd_mvcc_put_total 3\n",
        "# TYPE etcd_disk_wal_fsync_duration_seconds histogram\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 1\n",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 2\n\
         etcd_disk_wal_fsync_duration_seconds_sum 100.0015\n\
         etcd_disk_wal_fsync_duration_seconds_count 2\n",
        "etcd_server_range_duration_seconds_bucket{success=\"true\",le=\"52.4288\"} 1\n",
        "etcd_server_range_duration_seconds_sum{success=\"true\"} 0.25\n",
        "etcd_server_feature_enabled{name=\"AllBeta\",stage=\"BETA\"} 0\n",
        "etcd_server_feature_enabled{name=\"LeaseCheckpoint\",stage=\"ALPHA\"} 1\n",
        "etcd_server_quota_backend_bytes 2.147483648e+09\n",
        "etcd_server_version{server_version=\"3.7.1\"} 1\n",
        "promhttp_metric_handler_requests_total{code=\"200\"} 0\n",
    ] {
        assert!(page.contains(want), "{want}");
    }
    assert!(!page.contains("etcd_server_apply_duration_seconds"));
}

#[test]
fn names_and_types_are_etcds() {
    // Families of a Go etcd 3.7.1 that served a few requests.
    let reference = include_str!("families.txt");
    let metrics = metrics();
    metrics.alarms.with(["NOSPACE", "1"]).set(1);
    let known: Vec<&str> = reference.lines().collect();
    for (name, kind) in families(&metrics.page()) {
        let line = format!("{name} {kind}");
        // Appears in etcd only once an alarm was raised.
        let extra = name == "etcd_debugging_server_alarms";
        assert!(extra || known.contains(&line.as_str()), "{line}");
    }
}
