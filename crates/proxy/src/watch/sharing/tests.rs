use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use api::pb::mvccpb::KeyValue;

use super::*;

/// An outlet that takes as many answers as it is told.
#[derive(Clone, Default)]
struct Answers(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    queue: VecDeque<WatchResponse>,
    limit: usize,
    starved: bool,
}

impl Answers {
    fn limited(limit: usize) -> Self {
        let answers = Self::default();
        answers.0.borrow_mut().limit = limit;
        answers
    }

    fn take(&self) -> Vec<WatchResponse> {
        self.0.borrow_mut().queue.drain(..).collect()
    }
}

impl Outlet for Answers {
    fn has_room(&mut self) -> bool {
        let mut state = self.0.borrow_mut();
        let has_room = state.queue.len() < state.limit;
        state.starved |= !has_room;
        has_room
    }

    fn push(&mut self, answer: WatchResponse, _bytes: usize) {
        self.0.borrow_mut().queue.push_back(answer);
    }
}

fn sharing() -> Sharing<Answers> {
    Sharing::new(Arc::default())
}

fn header(revision: i64) -> ResponseHeader {
    ResponseHeader {
        revision,
        ..ResponseHeader::default()
    }
}

fn put(revision: i64) -> Event {
    Event {
        kv: Some(KeyValue {
            key: "k".into(),
            value: revision.to_string().into(),
            mod_revision: revision,
            ..KeyValue::default()
        }),
        prev_kv: Some(KeyValue::default()),
        ..Event::default()
    }
}

fn deletion(revision: i64) -> Event {
    Event {
        r#type: EventType::Delete.into(),
        ..put(revision)
    }
}

fn events(revisions: &[i64], now: i64) -> WatchEvent {
    WatchEvent {
        header: Some(header(now)),
        events: revisions.iter().map(|revision| put(*revision)).collect(),
        ..WatchEvent::default()
    }
}

fn created(now: i64) -> WatchEvent {
    WatchEvent {
        header: Some(header(now)),
        created: true,
        ..WatchEvent::default()
    }
}

fn progress(now: i64, requested: bool) -> WatchEvent {
    WatchEvent {
        header: Some(header(now)),
        requested,
        ..WatchEvent::default()
    }
}

fn from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: "k".into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

const A: StreamId = StreamId(1);
const B: StreamId = StreamId(2);

fn caller(token: &str) -> Caller {
    Caller {
        token: Some(token.parse().unwrap()),
        ..Caller::default()
    }
}

/// A machine with two clients.
fn two() -> (Sharing<Answers>, Answers, Answers) {
    let (mut sharing, a, b) = (sharing(), Answers::limited(10), Answers::limited(10));
    sharing.open(A, caller("a"), a.clone());
    sharing.open(B, caller("b"), b.clone());
    (sharing, a, b)
}

/// The broadcasts that were begun, and where.
fn opened(sharing: &mut Sharing<Answers>) -> Vec<(BroadcastId, i64)> {
    let opened = |effect| match effect {
        Effect::Open(id, _, request) => Some((id, request.start_revision)),
        _ => None,
    };
    sharing
        .take_effects()
        .into_iter()
        .filter_map(opened)
        .collect()
}

fn closed(sharing: &mut Sharing<Answers>) -> Vec<BroadcastId> {
    let closed = |effect| match effect {
        Effect::Close(id) => Some(id),
        _ => None,
    };
    sharing
        .take_effects()
        .into_iter()
        .filter_map(closed)
        .collect()
}

/// Revision of the header and of the events of each answer.
fn seen(answers: &Answers) -> Vec<(i64, Vec<i64>)> {
    let seen = |answer: WatchResponse| {
        let revisions = answer.events.iter().map(revision).collect();
        (answer.header.unwrap().revision, revisions)
    };
    answers.take().into_iter().map(seen).collect()
}

#[test]
fn watchers_from_now_share_one_watch() {
    let (mut sharing, a, b) = two();
    sharing.create(A, from(0), header(5));
    let [(id, 0)] = opened(&mut sharing)[..] else {
        panic!("one watch from now on")
    };
    sharing.create(B, from(0), header(5));
    sharing.on_answer(id, created(5));
    // The store was at 7 when this one asked, and the shared watch is not there yet.
    sharing.create(A, from(0), header(7));
    sharing.on_answer(id, events(&[6], 6));
    sharing.on_answer(id, events(&[7, 8], 8));
    assert_eq!(opened(&mut sharing), []);
    assert_eq!(seen(&b), [(5, vec![]), (6, vec![6]), (8, vec![7, 8])]);
    let late = a.take().into_iter().filter(|answer| answer.watch_id == 1);
    let late: Vec<_> = late
        .map(|it| (it.created, it.header.unwrap().revision, it.events.len()))
        .collect();
    assert_eq!(late, [(true, 7, 0), (false, 8, 1)]);
    assert_eq!(sharing.metrics.watchers_coalescing.load(Relaxed), 2);
    sharing.close(A);
    assert_eq!(sharing.metrics.watchers_coalescing.load(Relaxed), 0);
    assert_eq!(closed(&mut sharing), []);
    sharing.cancel(B, 0);
    assert_eq!(closed(&mut sharing), [id]);
}

#[test]
fn one_that_is_behind_joins_when_it_has_caught_up() {
    let (mut sharing, a, b) = two();
    sharing.create(A, from(0), header(5));
    let live = opened(&mut sharing)[0].0;
    sharing.on_answer(live, created(5));
    sharing.create(B, from(3), header(5));
    let [(behind, 3)] = opened(&mut sharing)[..] else {
        panic!("a watch of its own")
    };
    sharing.on_answer(behind, created(5));
    sharing.on_answer(live, events(&[6], 6));
    assert!(sharing.is_catching_up());
    // It has not yet had what the live one gives no more.
    sharing.on_answer(behind, events(&[3, 4], 6));
    assert_eq!(closed(&mut sharing), []);
    sharing.on_answer(behind, events(&[6], 6));
    assert_eq!(closed(&mut sharing), [behind]);
    assert!(!sharing.is_catching_up());
    sharing.on_answer(live, events(&[7], 7));
    assert_eq!(
        seen(&b),
        [(5, vec![]), (6, vec![3, 4]), (6, vec![6]), (7, vec![7])]
    );
    assert_eq!(seen(&a), [(5, vec![]), (6, vec![6]), (7, vec![7])]);
}

#[test]
fn one_that_finds_no_events_learns_by_asking() {
    let (mut sharing, _a, b) = two();
    sharing.create(A, from(0), header(9));
    let live = opened(&mut sharing)[0].0;
    sharing.on_answer(live, created(9));
    sharing.create(B, from(3), header(9));
    let behind = opened(&mut sharing)[0].0;
    sharing.on_answer(behind, created(9));
    sharing.on_tick();
    let asked = sharing.take_effects();
    assert!(
        asked
            .iter()
            .any(|it| matches!(it, Effect::Ask(id) if *id == behind))
    );
    sharing.on_answer(behind, progress(9, true));
    assert_eq!(closed(&mut sharing), [behind]);
    // Nobody on the stream has asked.
    assert_eq!(seen(&b), [(9, vec![])]);
    sharing.on_answer(live, events(&[10], 10));
    assert_eq!(seen(&b), [(10, vec![10])]);
}

#[test]
fn one_that_lists_first_joins_at_once() {
    let (mut sharing, _a, b) = two();
    sharing.create(A, from(0), header(5));
    let live = opened(&mut sharing)[0].0;
    sharing.on_answer(live, created(5));
    sharing.on_answer(live, events(&[6], 6));
    sharing.create(B, from(7), header(9));
    assert_eq!(opened(&mut sharing), []);
    assert_eq!(seen(&b), [(9, vec![])]);
    // What lies in the future comes from the same watch.
    sharing.create(B, from(12), header(9));
    sharing.on_answer(live, events(&[10], 10));
    sharing.on_answer(live, events(&[12], 12));
    let ids: Vec<_> = b
        .take()
        .iter()
        .map(|it| (it.watch_id, it.events.len()))
        .collect();
    assert_eq!(ids, [(1, 0), (0, 1), (0, 1), (1, 1)]);
}

#[test]
fn a_watch_from_the_future_is_not_one_from_now() {
    let (mut sharing, a, _b) = two();
    sharing.create(B, from(100), header(5));
    let future = opened(&mut sharing)[0].0;
    sharing.on_answer(future, created(5));
    sharing.create(A, from(0), header(5));
    let [(live, 0)] = opened(&mut sharing)[..] else {
        panic!("a watch from now on")
    };
    sharing.on_answer(live, created(5));
    sharing.on_answer(live, events(&[6], 6));
    assert_eq!(seen(&a), [(5, vec![]), (6, vec![6])]);
    // The one in the future may go with the live one.
    sharing.on_answer(future, progress(6, true));
    assert_eq!(closed(&mut sharing), [future]);
}

#[test]
fn slow_clients_leave_and_come_back_without_a_gap() {
    let mut sharing = sharing();
    let (slow, quick) = (Answers::limited(2), Answers::limited(100));
    sharing.open(A, Caller::default(), slow.clone());
    sharing.open(B, Caller::default(), quick.clone());
    sharing.create(A, from(0), header(1));
    sharing.create(B, from(0), header(1));
    let live = opened(&mut sharing)[0].0;
    sharing.on_answer(live, created(1));
    for revision in 2..6 {
        sharing.on_answer(live, events(&[revision], revision));
    }
    assert_eq!(seen(&quick).len(), 5);
    assert!(slow.0.borrow().starved);
    assert_eq!(seen(&slow), [(1, vec![]), (2, vec![2])]);
    sharing.on_room(A);
    let [(behind, 3)] = opened(&mut sharing)[..] else {
        panic!("from what it was not given")
    };
    // It was told long ago that its watcher is there.
    sharing.on_answer(behind, created(5));
    sharing.on_answer(behind, events(&[3, 4, 5], 5));
    assert_eq!(closed(&mut sharing), [behind]);
    sharing.on_answer(live, events(&[6], 6));
    assert_eq!(seen(&slow), [(5, vec![3, 4, 5]), (6, vec![6])]);
}

#[test]
fn filters_and_previous_values_are_each_watchers_own() {
    let (mut sharing, a, b) = two();
    let filters = |kind: FilterType| vec![kind.into(), 77];
    sharing.create(
        A,
        WatchCreateRequest {
            filters: filters(FilterType::Noput),
            ..from(0)
        },
        header(1),
    );
    sharing.create(
        B,
        WatchCreateRequest {
            filters: filters(FilterType::Nodelete),
            prev_kv: true,
            ..from(0)
        },
        header(1),
    );
    let live = opened(&mut sharing)[0].0;
    sharing.on_answer(live, created(1));
    let answer = WatchEvent {
        events: vec![put(2), deletion(3)],
        ..events(&[], 3)
    };
    sharing.on_answer(live, answer);
    sharing.on_answer(live, events(&[4], 4));
    let (a, b) = (a.take(), b.take());
    // All of it was filtered out: nothing is said.
    assert_eq!(a.len(), 2);
    assert_eq!(revision(&a[1].events[0]), 3);
    assert_eq!(a[1].events[0].prev_kv, None);
    assert_eq!(b.len(), 3);
    assert_eq!(revision(&b[1].events[0]), 2);
    assert!(b[1].events[0].prev_kv.is_some());
}

#[test]
fn ids_are_those_that_a_server_gives() {
    let (mut sharing, a, _b) = two();
    let with_id = |watch_id| WatchCreateRequest {
        watch_id,
        ..from(0)
    };
    for id in [0, 7, 0, 7] {
        sharing.create(A, with_id(id), header(1));
    }
    let live = opened(&mut sharing)[0].0;
    sharing.on_answer(live, created(1));
    let ids: Vec<_> = a
        .take()
        .iter()
        .map(|it| (it.watch_id, it.canceled))
        .collect();
    assert_eq!(ids, [(-1, true), (0, false), (7, false), (8, false)]);
    let empty = WatchCreateRequest {
        range_end: "a".into(),
        ..from(0)
    };
    sharing.create(A, empty, header(1));
    assert_eq!(a.take()[0].cancel_reason, EMPTY_RANGE);
    // One that is not there is not spoken of.
    sharing.cancel(A, 99);
    sharing.cancel(A, 7);
    let cancelled: Vec<_> = a
        .take()
        .iter()
        .map(|it| (it.watch_id, it.canceled))
        .collect();
    assert_eq!(cancelled, [(7, true)]);
}

#[test]
fn compaction_ends_those_that_lost_something() {
    let (mut sharing, a, b) = two();
    sharing.create(A, from(3), header(9));
    let id = opened(&mut sharing)[0].0;
    sharing.on_answer(id, created(9));
    sharing.create(B, from(8), header(9));
    assert_eq!(opened(&mut sharing), []);
    let gone = WatchEvent {
        cancelled: Some(Cancellation::Compacted(6)),
        ..WatchEvent::default()
    };
    sharing.on_answer(id, gone);
    let last = a.take().pop().unwrap();
    assert_eq!((last.canceled, last.compact_revision), (true, 6));
    assert_eq!(last.header.unwrap().revision, 0);
    // The other one has lost nothing.
    assert_eq!(opened(&mut sharing).len(), 1);
    assert_eq!(b.take().len(), 1);
}

#[test]
fn a_refusal_ends_those_in_whose_name_the_watch_was() {
    let (mut sharing, a, b) = two();
    sharing.create(A, from(0), header(1));
    sharing.create(B, from(0), header(1));
    let id = opened(&mut sharing)[0].0;
    sharing.on_answer(id, created(1));
    sharing.on_answer(id, events(&[2], 2));
    let refusal = WatchEvent {
        cancelled: Some(Cancellation::Refused("no".into())),
        ..WatchEvent::default()
    };
    sharing.on_answer(id, refusal.clone());
    let last = a.take().pop().unwrap();
    assert_eq!(
        (last.watch_id, last.canceled, last.cancel_reason),
        (0, true, "no".into())
    );
    let [(own, 3)] = opened(&mut sharing)[..] else {
        panic!("the other one goes on in its own name")
    };
    b.take();
    sharing.on_answer(own, refusal.clone());
    assert!(b.take()[0].canceled);
    // Before it was there, it is refused as a server does it.
    sharing.create(A, from(0), header(2));
    let id = opened(&mut sharing)[0].0;
    sharing.on_answer(id, refusal);
    let last = a.take().pop().unwrap();
    assert_eq!(
        (last.watch_id, last.created, last.canceled),
        (-1, true, true)
    );
}

#[test]
fn progress_comes_to_those_that_want_it_and_for_all_of_a_stream() {
    let (mut sharing, a, b) = two();
    sharing.ask_progress(A);
    sharing.create(
        A,
        WatchCreateRequest {
            progress_notify: true,
            ..from(0)
        },
        header(1),
    );
    sharing.create(B, from(0), header(1));
    let other = WatchCreateRequest {
        key: "other".into(),
        ..from(0)
    };
    sharing.create(B, other, header(1));
    let ids: Vec<_> = opened(&mut sharing).iter().map(|it| it.0).collect();
    // Nothing can be said while a watcher is not there.
    sharing.ask_progress(B);
    assert!(sharing.take_effects().is_empty());
    for id in &ids {
        sharing.on_answer(*id, created(1));
    }
    a.take();
    b.take();
    sharing.on_answer(ids[0], progress(5, false));
    assert_eq!(seen(&a), [(5, vec![])]);
    sharing.ask_progress(B);
    assert_eq!(sharing.take_effects().len(), 2);
    sharing.on_answer(ids[0], progress(8, true));
    assert_eq!(seen(&b), []);
    sharing.on_answer(ids[1], progress(7, true));
    let answers = b.take();
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (answers[0].watch_id, answers[0].header.unwrap().revision),
        (-1, 7)
    );
}

/// A store of one range and the watches on it.
struct Store {
    /// Which revisions changed the range; the others changed something else.
    changes: Vec<i64>,
    now: i64,
    compacted: i64,
    /// Next revision of each watch below.
    watches: BTreeMap<BroadcastId, Option<i64>>,
}

impl Store {
    fn obey(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Open(id, _, request) => {
                    let start = Some(request.start_revision).filter(|start| *start > 0);
                    self.watches.insert(id, start);
                }
                Effect::Close(id) => drop(self.watches.remove(&id)),
                Effect::Ask(_) => {}
            }
        }
    }

    /// The next thing that a watch says.
    fn step(&mut self, id: BroadcastId, known: bool, random: &mut Random) -> Option<WatchEvent> {
        let next = self.watches.get_mut(&id)?;
        if !known {
            next.get_or_insert(self.now + 1);
            return Some(created(self.now));
        }
        let reached = next.unwrap();
        if reached < self.compacted {
            return Some(WatchEvent {
                cancelled: Some(Cancellation::Compacted(self.compacted)),
                ..WatchEvent::default()
            });
        }
        let count = 1 + random.below(3);
        let missing = self.changes.iter().copied().filter(|it| *it >= reached);
        let batch: Vec<_> = missing.take(count).collect();
        match batch.last() {
            Some(last) => {
                *next = Some(last + 1);
                Some(events(&batch, self.now))
            }
            // Nothing is said of a watch from the future.
            None if reached > self.now + 1 => None,
            None => Some(progress(self.now, random.below(2) == 0)),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A watcher as its client sees it.
#[derive(Default)]
struct Client {
    /// Its events begin here; known once it was created.
    start: Option<i64>,
    asked: i64,
    seen: Vec<i64>,
    ended: bool,
}

/// Whatever the order of things, every client is told every change from where it begins, once and
/// in order, or that it was compacted.
#[test]
fn nothing_is_lost_repeated_or_out_of_order() {
    for seed in 1..400 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        run(seed, &mut random);
    }
}

fn run(seed: u64, random: &mut Random) {
    let mut sharing = sharing();
    let mut store = Store {
        changes: vec![],
        now: 1,
        compacted: 0,
        watches: BTreeMap::new(),
    };
    let mut known = HashSet::new();
    let outlets: Vec<_> = (0..3).map(|it| Answers::limited(1 + it * 3)).collect();
    let mut clients: BTreeMap<Place, Client> = BTreeMap::new();
    for (at, outlet) in outlets.iter().enumerate() {
        sharing.open(StreamId(at as u64), Caller::default(), outlet.clone());
    }
    for step in 0..400 {
        let is_over = step > 250;
        match random.below(6) {
            0 if !is_over => {
                store.now += 1;
                if random.below(2) == 0 {
                    store.changes.push(store.now);
                }
            }
            1 if !is_over && clients.len() < 12 => {
                let stream = StreamId(random.below(3) as u64);
                let choices = [
                    0,
                    1 + random.below(store.now as usize + 3) as i64,
                    store.now + 1,
                ];
                let asked = choices[random.below(3)];
                let id = clients.keys().filter(|it| it.0 == stream).count() as i64;
                clients.insert(
                    (stream, id),
                    Client {
                        asked,
                        ..Client::default()
                    },
                );
                sharing.create(stream, from(asked), header(store.now));
            }
            2 if !is_over && random.below(20) == 0 => store.compacted = store.now / 2,
            3 => sharing.on_tick(),
            4 => read(&mut sharing, &outlets, &mut clients, random.below(3)),
            _ => {}
        }
        store.obey(sharing.take_effects());
        let ids: Vec<_> = store.watches.keys().copied().collect();
        if let Some(id) = ids.get(random.below(ids.len().max(1))) {
            speak(&mut sharing, &mut store, &mut known, *id, random);
        }
    }
    // Nothing lies in the future any more.
    store.now += 10;
    store.changes.push(store.now);
    for _ in 0..200 {
        for stream in 0..3 {
            read(&mut sharing, &outlets, &mut clients, stream);
        }
        store.obey(sharing.take_effects());
        for id in store.watches.keys().copied().collect::<Vec<_>>() {
            speak(&mut sharing, &mut store, &mut known, id, random);
        }
    }
    for (place, client) in &clients {
        let start = client.start.expect("every watcher was made");
        let want: Vec<_> = store
            .changes
            .iter()
            .copied()
            .filter(|it| *it >= start)
            .collect();
        match client.ended {
            true => assert!(want.starts_with(&client.seen), "seed {seed}, {place:?}"),
            false => assert_eq!(client.seen, want, "seed {seed}, {place:?} from {start}"),
        }
    }
    let live = clients.values().filter(|client| !client.ended).count();
    assert_eq!(store.watches.len(), 1.min(live), "seed {seed}");
    let spared = sharing.metrics.watchers_coalescing.load(Relaxed);
    assert_eq!(
        spared,
        live as i64 - store.watches.len() as i64,
        "seed {seed}"
    );
}

/// A watch below says the next thing.
fn speak(
    sharing: &mut Sharing<Answers>,
    store: &mut Store,
    known: &mut HashSet<BroadcastId>,
    id: BroadcastId,
    random: &mut Random,
) {
    let Some(answer) = store.step(id, known.contains(&id), random) else {
        return;
    };
    known.insert(id);
    sharing.on_answer(id, answer);
    store.obey(sharing.take_effects());
}

/// A client reads what there is.
fn read(
    sharing: &mut Sharing<Answers>,
    outlets: &[Answers],
    clients: &mut BTreeMap<Place, Client>,
    stream: usize,
) {
    for answer in outlets[stream].take() {
        let Some(client) = clients.get_mut(&(StreamId(stream as u64), answer.watch_id)) else {
            continue;
        };
        if answer.created {
            let now = answer.header.unwrap().revision;
            client.start = Some(if client.asked == 0 {
                now + 1
            } else {
                client.asked
            });
        }
        assert!(client.start.is_some(), "events before the watcher is there");
        client.seen.extend(answer.events.iter().map(revision));
        client.ended |= answer.canceled;
    }
    if std::mem::take(&mut outlets[stream].0.borrow_mut().starved) {
        sharing.on_room(StreamId(stream as u64));
    }
}

#[test]
fn no_id_follows_the_last_one() {
    let (mut sharing, a, _) = two();
    let with_id = |watch_id| WatchCreateRequest {
        watch_id,
        ..from(5)
    };
    sharing.create(A, with_id(i64::MAX), header(4));
    sharing.create(A, with_id(0), header(4));
    sharing.create(A, with_id(0), header(4));
    let id = opened(&mut sharing)[0].0;
    sharing.on_answer(id, created(4));
    let ids: Vec<i64> = a.take().iter().map(|it| it.watch_id).collect();
    assert_eq!(ids, [0, 1, i64::MAX]);
}
