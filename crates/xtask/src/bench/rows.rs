//! What is measured, in the order in which it runs.

use super::lag::Pace;
use super::loader::Shape;
use super::request::Requests;

/// Keys that exist before the first row.
pub(super) const KEY_SPACE: u64 = 100_000;
/// Leases that the keep-alive row renews.
pub(super) const LEASES: u64 = 10_000;
/// Revisions by which the lagging watchers are behind.
pub(super) const LAG: u64 = 200_000;

/// The row that those with lagging watchers are compared with.
pub(super) const BESIDE_NONE: &str = "put beside no watcher";

/// Whether a row has lagging watchers.
pub(super) fn lags(name: &str) -> bool {
    let mut rows = ROWS.iter();
    rows.any(|row| row.name == name && matches!(row.scene, Scene::Beside(Some(_))))
}

/// A kind of load.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) shapes: &'static [Shape],
    pub(super) scene: Scene,
    pub(super) writes: bool,
}

/// What a row does.
#[derive(Clone, Copy)]
pub(super) enum Scene {
    /// Operations in a closed loop. Given the number of a key that no row has used yet.
    Calls(fn(u64) -> Requests),
    /// The same, after operations that are not measured.
    Prepared(fn(u64) -> Requests, Preparation),
    /// Puts and so many watchers of everything, over so many connections.
    FanOut { watchers: usize, connections: usize },
    /// Puts in order, beside watchers that lag, if any.
    Beside(Option<Pace>),
}

/// Operations that a row needs before it.
#[derive(Clone, Copy)]
pub(super) struct Preparation {
    pub(super) requests: fn() -> Requests,
    pub(super) count: u64,
}

const fn shape(connections: usize, streams: usize) -> Shape {
    Shape {
        connections,
        streams,
    }
}

const SHAPES: &[Shape] = &[
    shape(1, 1),
    shape(200, 1),
    shape(1000, 1),
    shape(1, 100),
    shape(100, 10),
];
/// One watch hears of this many puts at a time.
const FAN_OUTS: &[Shape] = &[shape(1, 1), shape(1, 10)];
const WRITERS: &[Shape] = &[shape(1, 1), shape(1, 10), shape(1, 100)];

/// Reads come first, so that each row of them sees the key space as it was loaded; what adds keys
/// and history comes last.
pub(super) const ROWS: [Row; 14] = [
    Row {
        name: "serializable get",
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::get(KEY_SPACE, true)),
        writes: false,
    },
    Row {
        name: "linearizable get",
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::get(KEY_SPACE, false)),
        writes: false,
    },
    Row {
        name: "range of 1,000",
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::range(KEY_SPACE)),
        writes: false,
    },
    Row {
        name: "txn",
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::txn(KEY_SPACE)),
        writes: true,
    },
    Row {
        name: "put",
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::put(KEY_SPACE)),
        writes: true,
    },
    Row {
        name: "keep-alive",
        shapes: SHAPES,
        scene: Scene::Prepared(
            |_| Requests::keep_alive(LEASES),
            Preparation {
                requests: Requests::grant,
                count: LEASES,
            },
        ),
        writes: false,
    },
    Row {
        name: "lease: grant, put, revoke",
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::lease()),
        writes: true,
    },
    Row {
        name: "txn if not there",
        shapes: SHAPES,
        scene: Scene::Calls(Requests::create),
        writes: true,
    },
    Row {
        name: "watch: 1 watcher",
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers: 1,
            connections: 1,
        },
        writes: true,
    },
    Row {
        name: "watch: 200 watchers",
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers: 200,
            connections: 10,
        },
        writes: true,
    },
    Row {
        name: "watch: 5,000 watchers",
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers: 5000,
            connections: 10,
        },
        writes: true,
    },
    Row {
        name: BESIDE_NONE,
        shapes: WRITERS,
        scene: Scene::Beside(None),
        writes: true,
    },
    Row {
        name: "put beside 100 that lag and wait",
        shapes: WRITERS,
        scene: Scene::Beside(Some(Pace::None)),
        writes: true,
    },
    Row {
        name: "put beside 100 that lag and read",
        shapes: WRITERS,
        scene: Scene::Beside(Some(Pace::PerSecond(160 << 10))),
        writes: true,
    },
];
