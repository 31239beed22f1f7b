use super::*;

#[test]
fn a_bucket_holds_its_lowest_value_and_is_narrow() {
    for value in [
        0,
        1,
        63,
        64,
        65,
        127,
        128,
        1_000,
        123_456,
        10_000_000_000,
        u64::MAX,
    ] {
        let bucket = bucket_of(value);
        assert!(bucket < BUCKETS);
        let lowest = lowest_of(bucket);
        assert!(
            lowest <= value && value - lowest <= value / STEPS,
            "{value} in {lowest}"
        );
        assert_eq!(bucket_of(lowest), bucket);
    }
}

#[test]
fn quantiles_of_a_known_list() {
    let mut histogram = Histogram::new();
    for microseconds in 1..=100 {
        histogram.record(microseconds * 1000);
    }
    assert!((histogram.quantile_us(0.5) - 50.0).abs() < 1.0);
    assert!((histogram.quantile_us(0.99) - 99.0).abs() < 2.0);
    histogram.clear();
    assert_eq!(histogram.quantile_us(0.5), 0.0);
}
