use super::super::{Cell, Probe};
use super::*;

fn turn(throughput: f64, p50_us: f64) -> Turn {
    let figures = Figures {
        throughput,
        p50_us,
        ..Figures::default()
    };
    let shape = Shape {
        connections: 1,
        streams: 1,
    };
    let probe = Probe {
        written_p50: 80.0,
        written_p99: 120.0,
        growing_p50: 150.0,
        growing_p99: 300.0,
    };
    Turn {
        cells: vec![Cell {
            row: "put",
            shape,
            figures,
        }],
        probe,
        loaded_mib: 50.0,
    }
}

#[test]
fn medians_are_taken_over_rounds() {
    let turns = [turn(10.0, 200.0), turn(30.0, 180.0), turn(20.0, 190.0)];
    assert_eq!(medians(&turns, 0).throughput, 20.0);
    assert_eq!(median(vec![1.0, 3.0]), 2.0);
    assert_eq!(median(Vec::new()), 0.0);
    assert_eq!(put_over_sync(&turns[1]), Some(100.0));
}

#[test]
fn the_table_and_the_json_show_the_ratio() {
    let side = || Side {
        version: "etcd 1".into(),
        loaded_mib: 50.0,
        written_p50: 80.0,
        written_p99: 120.0,
        growing_p50: 150.0,
        growing_p99: 300.0,
        put_over_sync: None,
    };
    let report = Report {
        machine: machine(),
        members: 1,
        rounds: 1,
        seconds: 1.0,
        lines: vec![Line {
            row: "put",
            shape: Shape {
                connections: 200,
                streams: 1,
            },
            ours: medians(&[turn(60_000.0, 1.0)], 0),
            reference: medians(&[turn(20_000.0, 2.0)], 0),
        }],
        sides: [side(), side()],
    };
    assert!(
        report
            .markdown()
            .contains("| put | 200×1 | 60.0k / 20.0k = **3.00** ")
    );
    let json = report.json();
    assert_eq!(
        json["lines"][0]["ours_by_reference"]["throughput_per_s"],
        3.0
    );
    assert!(json["lines"][0]["ours_by_reference"]["server_cpu_us"].is_null());
}

#[test]
fn lagging_watchers_are_compared_with_none() {
    let line = |row, ours, reference| Line {
        row,
        shape: Shape {
            connections: 1,
            streams: 10,
        },
        ours: medians(&[turn(ours, 100.0)], 0),
        reference: medians(&[turn(reference, 100.0)], 0),
    };
    let side = || Side {
        version: "etcd 1".into(),
        loaded_mib: 50.0,
        written_p50: 80.0,
        written_p99: 120.0,
        growing_p50: 150.0,
        growing_p99: 300.0,
        put_over_sync: None,
    };
    let report = Report {
        machine: machine(),
        members: 1,
        rounds: 1,
        seconds: 1.0,
        lines: vec![
            line(BESIDE_NONE, 100.0, 50.0),
            line("put beside 100 that lag and wait", 95.0, 0.0),
        ],
        sides: [side(), side()],
    };
    let line = report.markdown();
    assert!(line.contains("| put beside 100 that lag and wait | 1×10 | 0.95 |"));
    let [beside] = &report.beside()[..] else {
        panic!("one row lags");
    };
    assert_eq!(beside.throughput, [Some(0.95), Some(0.0)]);
    assert_eq!(beside.p99[1], None);
}

#[test]
fn what_was_not_measured_is_not_shown_as_zero() {
    let line = Line {
        row: "put",
        shape: Shape {
            connections: 1,
            streams: 1,
        },
        ours: medians(&[turn(100.0, 50.0)], 0),
        reference: medians(&[turn(0.0, f64::NAN)], 0),
    };
    let mut out = String::new();
    line.write_markdown(&mut out).unwrap();
    assert!(
        out.starts_with("| put | 1×1 | 100 / 0.00| 50.0 / –|"),
        "{out}"
    );
}
