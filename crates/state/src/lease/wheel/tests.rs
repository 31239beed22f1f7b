//! The wheel against a sorted map.

use std::collections::BTreeMap;

use super::*;
use crate::lease::random::Random;

#[test]
fn items_fall_due_at_their_tick_as_in_a_sorted_map() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let start = random.below(1 << 40);
        let mut wheel = Wheel::new(start);
        let mut model: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut now = start;
        for item in 0..2_000 {
            let reach = 1 << random.below(22);
            let at = wheel.insert((now + random.below(reach)).saturating_sub(3), item);
            assert!(at > now);
            model.entry(at).or_default().push(item);
            if random.below(8) == 0 {
                let step = 1 << random.below(14);
                now += random.below(step);
                let mut due = Vec::new();
                wheel.advance(now, &mut due);
                let later = model.split_off(&(now + 1));
                let mut want: Vec<(u64, u32)> = std::mem::replace(&mut model, later)
                    .into_iter()
                    .flat_map(|(at, items)| items.into_iter().map(move |item| (at, item)))
                    .collect();
                assert!(due.is_sorted_by_key(|(at, _)| *at), "seed {seed}");
                due.sort_unstable();
                want.sort_unstable();
                assert_eq!(due, want, "seed {seed}");
            }
        }
        assert_eq!(wheel.len, model.values().map(Vec::len).sum::<usize>());
    }
}

#[test]
fn items_beyond_the_highest_level_come_in_time() {
    let far = 1 << (DIGIT_BITS * LEVELS as u32);
    let mut wheel = Wheel::new(far - 5);
    let late = wheel.insert(far + 70, 'a');
    assert_eq!(late, far + 70);
    let mut due = Vec::new();
    wheel.advance(far + 69, &mut due);
    assert!(due.is_empty());
    wheel.advance(far + 70, &mut due);
    assert_eq!(due, [(far + 70, 'a')]);
}

#[test]
fn an_empty_wheel_leaps() {
    let mut wheel = Wheel::<()>::new(0);
    wheel.advance(u64::MAX - 1, &mut Vec::new());
    assert_eq!(wheel.insert(3, ()), u64::MAX);
}
