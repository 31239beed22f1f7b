//! Every scenario of the directory, each as a test of its own.

use std::path::Path;

async fn play(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scenarios")
        .join(name);
    if let Err(error) = e2e::scenario::run(&path).await {
        panic!("{name}: {error}");
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                play(concat!(stringify!($name), ".txt")).await;
            }
        )*

        #[test]
        fn every_file_is_played() {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
            let mut found: Vec<String> = std::fs::read_dir(directory)
                .expect("the directory is checked in")
                .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
                .collect();
            found.sort();
            let mut named = vec![$(concat!(stringify!($name), ".txt")),*];
            named.sort_unstable();
            assert_eq!(found, named);
        }
    };
}

scenarios! {
    auth
    auto_compaction
    cluster
    http
    json_auth
    json_http
    json_kv
    json_lease
    json_maintenance
    json_services
    json_watch
    kv_compaction
    kv_lease
    kv_put_delete
    kv_range
    kv_txn
    lease_time
    limits
    maintenance
    quota
    restart
    unknown
}
