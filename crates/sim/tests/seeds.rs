//! A few seeds in the ordinary tests; the many are run by the binary.

use sim::run::run;
use sim::{Trace, cluster};

#[test]
fn a_run_repeats_itself() {
    for seed in 0..8 {
        let (mut first, mut second) = (Trace::on(), Trace::on());
        let outcomes = (run(seed, &mut first), run(seed, &mut second));
        assert_eq!(outcomes.0, outcomes.1);
        assert_eq!(first.lines(), second.lines(), "seed {seed}");
    }
}

#[test]
fn a_cluster_repeats_itself_and_keeps_every_promise() {
    for seed in 0..12 {
        let (mut first, mut second) = (Trace::on(), Trace::on());
        let outcomes = (
            cluster::run(seed, &mut first),
            cluster::run(seed, &mut second),
        );
        assert_eq!(outcomes.0, outcomes.1);
        assert_eq!(first.lines(), second.lines(), "seed {seed}");
        if let Err(broken) = outcomes.0 {
            panic!("seed {seed}: {}", broken.0);
        }
    }
}

#[test]
fn thirty_seeds_keep_every_promise() {
    for seed in 0..30 {
        if let Err(broken) = run(seed, &mut Trace::off()) {
            panic!("seed {seed}: {}", broken.0);
        }
    }
}
