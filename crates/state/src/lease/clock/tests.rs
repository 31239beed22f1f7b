//! The clock by the rules for leases, and against a model that scans.

use std::collections::BTreeMap;

use super::*;
use crate::lease::random::Random;

const RETRY_MS: u64 = 7_000;

fn clock(checkpoints: bool) -> LeaseClock {
    LeaseClock::new(ClockConfig {
        retry_ms: RETRY_MS,
        checkpoints,
    })
}

fn leader(checkpoints: bool) -> LeaseClock {
    let mut clock = clock(checkpoints);
    clock.promote(0, 1_000);
    clock
}

#[test]
fn a_lease_expires_after_its_time_and_is_handed_out_until_it_is_revoked() {
    let mut clock = leader(false);
    clock.on_granted(7, 2, 100);
    assert!(clock.due(2_099).expired.is_empty());
    assert_eq!(clock.remaining_ms(7, 2_099), Some(1));
    assert!(clock.due(2_499).expired.is_empty());
    assert_eq!(clock.due(2_500).expired, [7]);
    assert_eq!(clock.remaining_ms(7, 2_500), Some(-400));
    assert_eq!(clock.renew(7, 2_500), Renewal::Expired);
    assert!(clock.due(9_000).expired.is_empty());
    assert_eq!(clock.due(9_500).expired, [7]);
    assert!(clock.on_revoked(7));
    assert!(!clock.on_revoked(7));
    assert_eq!(clock.renew(7, 9_500), Renewal::Unknown);
    assert!(clock.due(60_000).expired.is_empty());
}

#[test]
fn a_renewal_counts_from_its_moment() {
    let mut clock = leader(false);
    clock.on_granted(7, 10, 0);
    for second in 1..100 {
        assert_eq!(clock.renew(7, second * 5_000), Renewal::Renewed(10));
        assert!(clock.due(second * 5_000).expired.is_empty());
    }
    assert!(clock.due(504_500).expired.is_empty());
    assert_eq!(clock.due(505_000).expired, [7]);
}

#[test]
fn an_id_that_is_granted_again_has_its_own_time() {
    let mut clock = leader(false);
    clock.on_granted(7, 2, 0);
    assert!(!clock.on_revoked(7));
    clock.on_granted(7, 2, 200);
    assert!(clock.due(2_100).expired.is_empty());
    assert_eq!(clock.due(2_600).expired, [7]);
    clock.on_revoked(7);
    clock.on_granted(7, 5, 2_700);
    assert!(clock.due(7_600).expired.is_empty());
    assert_eq!(clock.due(8_000).expired, [7]);
}

#[test]
fn time_counts_only_on_the_leader_and_starts_anew_there() {
    let mut clock = clock(false);
    clock.restore(1, 10, 0);
    clock.restore(2, 100, 4);
    clock.on_granted(3, 2, 0);
    assert_eq!(clock.renew(1, 0), Renewal::NotLeader);
    assert_eq!(clock.remaining_ms(1, 0), None);
    assert!(clock.due(1_000_000).expired.is_empty());
    assert_eq!(clock.by_expiry(), [1, 2, 3]);

    clock.promote(1_000_000, 1_000);
    assert_eq!(clock.by_expiry(), [3, 2, 1]);
    assert_eq!(clock.remaining_ms(1, 1_000_000), Some(11_000));
    assert_eq!(clock.remaining_ms(2, 1_000_000), Some(5_000));
    assert_eq!(clock.due(1_003_000).expired, [3]);
    clock.demote();
    assert!(clock.due(1_020_000).expired.is_empty());
    assert!(!clock.on_revoked(3));
    clock.promote(1_020_000, 1_000);
    assert_eq!(clock.renew(1, 1_020_500), Renewal::Renewed(10));
    assert_eq!(clock.due(1_025_000).expired, [2]);
    assert_eq!(clock.due(1_030_500).expired, [1]);
}

#[test]
fn only_so_many_expire_in_a_tick() {
    let mut clock = leader(false);
    (1..=1_200).for_each(|id| clock.on_granted(id, 2, 0));
    let counts: Vec<usize> = [2_000, 2_100, 2_500, 3_000, 3_500]
        .map(|now_ms| clock.due(now_ms).expired.len())
        .into();
    assert_eq!(counts, [500, 0, 500, 200, 0]);
}

#[test]
fn a_new_leader_spreads_many_leases() {
    let mut clock = clock(false);
    (1..1_000).for_each(|id| clock.restore(id, 30, 0));
    clock.promote(0, 1_000);
    assert_eq!(clock.leases[&999].deadline, 31_000);
    (1_000..=5_000).for_each(|id| clock.restore(id, if id % 2 == 0 { 30 } else { 31 }, 0));
    clock.promote(0, 1_000);
    let mut deadlines: Vec<u64> = clock.leases.values().map(|lease| lease.deadline).collect();
    deadlines.sort_unstable();
    assert_eq!(deadlines[0], 31_000);
    assert_eq!(deadlines[4_999], 31_000 + 4_999 / 750 * 1_000);
    for window in deadlines.windows(SPREAD_PER_SECOND + 1) {
        assert!(window[SPREAD_PER_SECOND] - window[0] >= 1_000);
    }
    for (id, lease) in &clock.leases {
        assert!(lease.deadline >= 1_000 + lease.full_ms(), "lease {id}");
    }
}

#[test]
fn long_leases_are_checkpointed() {
    let mut clock = leader(true);
    clock.on_granted(1, 300, 0);
    clock.on_granted(2, 1_000, 0);
    assert!(clock.due(299_500).checkpoints.is_empty());
    assert_eq!(clock.due(300_000).checkpoints, [(2, 700)]);
    clock.on_checkpointed(2, 700, 300_100);
    assert_eq!(clock.renew(2, 400_000), Renewal::Checkpointed);
    clock.on_checkpointed(2, 0, 400_000);
    assert_eq!(clock.renew(2, 400_000), Renewal::Renewed(1_000));
    assert!(clock.due(699_500).checkpoints.is_empty());
    assert_eq!(clock.due(700_000).checkpoints, [(2, 700)]);
    clock.on_checkpointed(2, 700, 700_000);
    clock.promote(800_000, 1_000);
    assert_eq!(clock.remaining_ms(2, 800_000), Some(701_000));
}

/// Remaining time after k changes of leader is at most what it was, and one checkpoint interval
/// and one election more for each.
#[test]
fn checkpoints_bound_how_long_changes_of_leader_stretch_a_lease() {
    let mut clock = leader(true);
    let ttl_ms = 2_000_000;
    clock.on_granted(1, 2_000, 0);
    let mut changes = 0;
    let mut now_ms = 0;
    loop {
        now_ms += 500;
        let due = clock.due(now_ms);
        if due.expired == [1] {
            break;
        }
        for (id, left) in due.checkpoints {
            clock.on_checkpointed(id, left, now_ms);
        }
        if now_ms % 450_000 == 0 {
            clock.promote(now_ms, 1_000);
            changes += 1;
        }
        assert!(now_ms <= ttl_ms + changes * (CHECKPOINT_MS + 1_000) + 1_000);
    }
    assert!(now_ms >= ttl_ms);
}

#[test]
fn the_clock_equals_a_model_that_scans() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut clock = leader(false);
        let mut model: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
        let mut now_ms = 0;
        for _ in 0..4_000 {
            let id = random.below(60) as i64;
            match random.below(5) {
                0 if !model.contains_key(&id) => {
                    let ttl = 2 + random.below(40) as i64;
                    clock.on_granted(id, ttl, now_ms);
                    model.insert(id, (now_ms + ttl as u64 * 1000, ttl));
                }
                1 => {
                    let want = match model.get_mut(&id) {
                        None => Renewal::Unknown,
                        Some((deadline, _)) if *deadline <= now_ms => Renewal::Expired,
                        Some((deadline, ttl)) => {
                            *deadline = now_ms + *ttl as u64 * 1000;
                            Renewal::Renewed(*ttl)
                        }
                    };
                    assert_eq!(clock.renew(id, now_ms), want, "seed {seed}");
                }
                2 if random.below(4) == 0 => {
                    clock.on_revoked(id);
                    model.remove(&id);
                }
                3 if random.below(200) == 0 => {
                    clock.promote(now_ms, 1_000);
                    for (deadline, ttl) in model.values_mut() {
                        *deadline = now_ms + 1_000 + *ttl as u64 * 1000;
                    }
                }
                _ => now_ms += random.below(1_500),
            }
            for id in clock.due(now_ms).expired {
                let (deadline, _) = model.remove(&id).expect("it exists");
                assert!(
                    deadline <= now_ms,
                    "seed {seed}: lease {id} is revoked early"
                );
                clock.on_revoked(id);
            }
            let late = now_ms.saturating_sub(TICK_MS);
            assert!(
                model.values().all(|(deadline, _)| *deadline > late),
                "seed {seed}"
            );
            let mut known: Vec<i64> = clock.by_expiry();
            known.sort_unstable();
            assert!(known.iter().eq(model.keys()));
        }
    }
}
