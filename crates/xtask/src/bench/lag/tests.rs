use std::time::{Duration, Instant};

use super::Turns;

#[test]
fn turns_are_spread_and_come_again_after_a_pause() {
    let begin = Instant::now();
    let after = |ms| begin + Duration::from_millis(ms);
    let mut turns = Turns::new(160 << 10, 10, begin);
    let mut seen = Vec::new();
    for ms in 0..60 {
        while let Some((index, bytes)) = turns.next(after(ms)) {
            assert_eq!(bytes, 3276);
            seen.push((ms, index));
        }
    }
    let wanted: Vec<_> = (0..30).map(|turn| (2 * turn as u64, turn % 10)).collect();
    assert_eq!(seen, wanted);
    assert_eq!(turns.wait(after(59)), Duration::from_millis(1));
    assert_eq!(turns.wait(after(61)), Duration::ZERO);
}
