use super::*;

#[test]
fn times_are_read_behind_a_name_with_blanks() {
    let stat = "42 (a ) name) S 1 42 42 0 -1 4194304 10 0 0 0 150 50 0 0 20 0 8 0 99 1 2";
    assert_eq!(parse_cpu(stat), Some(2.0));
    assert_eq!(parse_cpu("42 (etcd"), None);
}

#[test]
fn fields_and_busy_time_are_read() {
    assert_eq!(
        parse_field("a: 1\nVmRSS:\t  2048 kB\n", "VmRSS:"),
        Some(2048.0)
    );
    assert_eq!(parse_field("a: 1\n", "VmRSS:"), None);
    assert_eq!(
        parse_busy("cpu  100 0 200 900 5 0 100 0 0 0\ncpu0 1"),
        Some(4.0)
    );
}

#[test]
fn this_process_has_a_usage() {
    let usage = Usage::of("self").unwrap();
    assert!(usage.resident > 0.0);
    assert!(machine_busy().unwrap() >= usage.cpu);
}

#[test]
fn sectors_written_are_read() {
    let text = " 254 1 vda1 1 1 1 1 1 1 1 1\n 254 0 vda 182 68 592 314 402 529 10 185 0 34 51\n";
    assert_eq!(parse_device(text, 254, 0), Some(5120.0));
    assert_eq!(parse_device(text, 8, 0), None);
}

#[test]
fn who_leads_is_read_from_metrics() {
    assert!(says_it_leads(
        "# TYPE x gauge\netcd_server_is_leader 1\nx 2\n"
    ));
    assert!(!says_it_leads("etcd_server_is_leader 0\n"));
    assert!(!says_it_leads("etcd_server_is_leader 10\n"));
}

#[test]
fn ports_of_one_request_differ() {
    let mut ports = free_ports(20).unwrap();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 20);
}
