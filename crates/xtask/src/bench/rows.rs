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
    let mut rows = ALONE.iter();
    rows.any(|row| row.name == name && matches!(row.scene, Scene::Beside(Some(_))))
}

/// Which members the clients are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    Leader,
    /// All of them, the connections in turn, beginning with one that follows.
    All,
}

/// A kind of load.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) through: Through,
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

/// The rows for clusters of so many members.
pub(super) fn of(members: usize) -> &'static [Row] {
    match members {
        1 => &ALONE,
        _ => &TOGETHER,
    }
}

/// Reads come first, so that each row of them sees the key space as it was loaded; what adds keys
/// and history comes last.
const ALONE: [Row; 14] = [
    Row {
        name: "serializable get",
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::get(KEY_SPACE, true)),
        writes: false,
    },
    Row {
        name: "linearizable get",
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::get(KEY_SPACE, false)),
        writes: false,
    },
    Row {
        name: "range of 1,000",
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::range(KEY_SPACE)),
        writes: false,
    },
    Row {
        name: "txn",
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::txn(KEY_SPACE)),
        writes: true,
    },
    Row {
        name: "put",
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::put(KEY_SPACE)),
        writes: true,
    },
    Row {
        name: "keep-alive",
        through: Through::Leader,
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
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(|_| Requests::lease()),
        writes: true,
    },
    Row {
        name: "txn if not there",
        through: Through::Leader,
        shapes: SHAPES,
        scene: Scene::Calls(Requests::create),
        writes: true,
    },
    Row {
        name: "watch: 1 watcher",
        through: Through::Leader,
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers: 1,
            connections: 1,
        },
        writes: true,
    },
    Row {
        name: "watch: 200 watchers",
        through: Through::Leader,
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers: 200,
            connections: 10,
        },
        writes: true,
    },
    Row {
        name: "watch: 5,000 watchers",
        through: Through::Leader,
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers: 5000,
            connections: 10,
        },
        writes: true,
    },
    Row {
        name: BESIDE_NONE,
        through: Through::Leader,
        shapes: WRITERS,
        scene: Scene::Beside(None),
        writes: true,
    },
    Row {
        name: "put beside 100 that lag and wait",
        through: Through::Leader,
        shapes: WRITERS,
        scene: Scene::Beside(Some(Pace::None)),
        writes: true,
    },
    Row {
        name: "put beside 100 that lag and read",
        through: Through::Leader,
        shapes: WRITERS,
        scene: Scene::Beside(Some(Pace::PerSecond(160 << 10))),
        writes: true,
    },
];

const CLIENTS: &[Shape] = &[shape(1, 1), shape(200, 1), shape(1000, 1)];

/// What can differ when members work together.
const TOGETHER: [Row; 12] = [
    serializable("serializable get at the leader", Through::Leader),
    serializable("serializable get at all", Through::All),
    linearizable("linearizable get at the leader", Through::Leader),
    linearizable("linearizable get at all", Through::All),
    txn("txn at the leader", Through::Leader),
    txn("txn at all", Through::All),
    put("put at the leader", Through::Leader),
    put("put at all", Through::All),
    watch("watch: 1 watcher at the leader", Through::Leader, 1),
    watch("watch: 1 watcher at all", Through::All, 1),
    watch("watch: 200 watchers at the leader", Through::Leader, 200),
    watch("watch: 200 watchers at all", Through::All, 200),
];

const fn calls(name: &'static str, through: Through, requests: fn(u64) -> Requests) -> Row {
    Row {
        name,
        through,
        shapes: CLIENTS,
        scene: Scene::Calls(requests),
        writes: false,
    }
}

const fn serializable(name: &'static str, through: Through) -> Row {
    calls(name, through, |_| Requests::get(KEY_SPACE, true))
}

const fn linearizable(name: &'static str, through: Through) -> Row {
    calls(name, through, |_| Requests::get(KEY_SPACE, false))
}

const fn txn(name: &'static str, through: Through) -> Row {
    Row {
        writes: true,
        ..calls(name, through, |_| Requests::txn(KEY_SPACE))
    }
}

const fn put(name: &'static str, through: Through) -> Row {
    Row {
        writes: true,
        ..calls(name, through, |_| Requests::put(KEY_SPACE))
    }
}

const fn watch(name: &'static str, through: Through, watchers: usize) -> Row {
    Row {
        name,
        through,
        shapes: FAN_OUTS,
        scene: Scene::FanOut {
            watchers,
            connections: if watchers < 10 { watchers } else { 10 },
        },
        writes: true,
    }
}
