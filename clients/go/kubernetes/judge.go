package main

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ledger has the revision of every write that was acknowledged.
type ledger struct {
	mutex sync.Mutex
	made  map[string][]int64
}

func (l *ledger) add(resource string, revision int64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.made == nil {
		l.made = map[string][]int64{}
	}
	l.made[resource] = append(l.made[resource], revision)
}

// judge looks at everything that was seen.
func (r *run) judge() {
	for _, s := range r.servers {
		for _, store := range s.stores {
			store.settle()
		}
	}
	// From here on the caches are held as they are.
	for _, s := range r.servers {
		for _, store := range s.stores {
			store.cache.mutex.Lock()
		}
	}
	told := map[string][]int64{}
	first, last := int64(0), int64(1<<62)
	for _, resource := range cached {
		told[resource] = r.told(resource)
		for _, s := range r.servers {
			spans := s.stores[resource].cache.spans
			first = max(first, spans[0].first)
			last = min(last, spans[len(spans)-1].last)
		}
		if !r.failed() {
			r.acknowledged(resource, told[resource])
		}
	}
	if !r.failed() {
		r.without(told, first, last)
		r.counted()
		r.unwell()
	}
	// Those who sleep lie down before the first compaction, and the second is of what they saw.
	refused := r.times.counts["watches refused as compacted"]
	if r.times.counts["compactions"] > 1 && refused == 0 && !r.faults {
		r.fail("nobody met a compacted revision")
	}
}

// settle waits until the cache has everything, and compares it with a list.
func (s *store) settle() {
	for range 50 {
		kvs, revision, err := s.list(10_000)
		if err != nil || !s.cache.waitFor(s.run.watching, revision) {
			s.run.fail("%s: it cannot be compared", s)
			return
		}
		listed := map[string]item{}
		for _, kv := range kvs {
			listed[string(kv.Key)] = s.cache.item(kv)
		}
		s.cache.mutex.Lock()
		moved := s.cache.seen > revision
		differs := difference(listed, s.cache.items)
		s.cache.mutex.Unlock()
		if differs == "" {
			s.run.times.count("keys compared", int64(len(kvs)))
			return
		}
		// Leases end at any time, and then the list is old.
		if !moved {
			s.run.fail("%s: at %d: %s", s, revision, differs)
			return
		}
	}
	s.run.fail("%s: it does not come to rest", s)
}

func difference(listed, kept map[string]item) string {
	for key, one := range listed {
		if other, is := kept[key]; !is || other != one {
			return fmt.Sprintf("%s is %+v, in the cache %+v (%v)", key, one, other, is)
		}
	}
	for key := range kept {
		if _, is := listed[key]; !is {
			return fmt.Sprintf("%s is gone, but in the cache", key)
		}
	}
	return ""
}

// told is every revision at which anybody was told of a change of the resource. Whoever watched at
// that time must have been told, and once for each key.
func (r *run) told(resource string) []int64 {
	all := []int64{}
	for _, s := range r.servers {
		for _, one := range s.stores[resource].cache.spans {
			all = append(all, one.revisions...)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for _, s := range r.servers {
		for _, one := range s.stores[resource].cache.spans {
			r.heard(s.stores[resource].String(), all, one)
		}
	}
	for _, one := range r.watches.spans[resource] {
		r.heard("a brief watch of "+resource, all, one)
	}
	return all
}

// heard compares what one was told with what all were told.
func (r *run) heard(who string, all []int64, one span) {
	from, _ := slices.BinarySearch(all, one.first)
	to, _ := slices.BinarySearch(all, one.last+1)
	if !slices.Equal(all[from:max(from, to)], slices.Compact(slices.Clone(one.revisions))) {
		r.fail("%s: told of %d changes from %d to %d, of %d", who, len(one.revisions), one.first,
			one.last, to-from)
	}
}

// acknowledged looks for every acknowledged write among what the caches were told.
func (r *run) acknowledged(resource string, told []int64) {
	uncovered := r.uncovered(resource)
	for _, revision := range r.ledger.made[resource] {
		if _, found := slices.BinarySearch(told, revision); !found && !uncovered(revision) {
			r.fail("LOST: %s at %d was acknowledged, and no cache was told", resource, revision)
			return
		}
	}
}

// uncovered tells whether no cache of the resource watched when a revision was made.
func (r *run) uncovered(resource string) func(int64) bool {
	spans := []span{}
	for _, s := range r.servers {
		spans = append(spans, s.stores[resource].cache.spans...)
	}
	return func(revision int64) bool {
		return !slices.ContainsFunc(spans, func(one span) bool {
			return one.first <= revision && revision <= one.last
		})
	}
}

// without looks for revisions of which nobody was told: each is a change of some resource.
func (r *run) without(told map[string][]int64, first, last int64) {
	all := []int64{}
	for _, revisions := range told {
		all = append(all, revisions...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	blind := []func(int64) bool{}
	for _, resource := range cached {
		blind = append(blind, r.uncovered(resource))
	}
	for revision := first; revision <= last; revision++ {
		if _, found := slices.BinarySearch(all, revision); found {
			continue
		}
		excused := func(one func(int64) bool) bool { return one(revision) }
		if !slices.ContainsFunc(blind, excused) {
			r.fail("revision %d of %d to %d is a change that nobody was told of", revision, first,
				last)
			return
		}
	}
	r.times.count("revisions followed", last-first+1)
}

// counted compares the shared objects with the changes that were acknowledged.
func (r *run) counted() {
	for key, done := range r.counters.done {
		found, err := r.servers[0].stores[configMaps].get(key)
		maybe := r.counters.maybe[key]
		if err != nil || found.object.count < done || found.object.count > done+maybe {
			r.fail("%s is %d after %d changes and %d of which nobody knows (%v)", key,
				found.object.count, done, maybe, err)
		}
	}
}

// unwell looks for alarms, and for events that should be gone.
func (r *run) unwell() {
	own := r.servers[0].stores[events]
	var alarms *clientv3.AlarmResponse
	err := r.call("alarms", func(ctx context.Context) (err error) {
		alarms, err = own.client.AlarmList(ctx)
		return err
	})
	if err == nil && len(alarms.Alarms) > 0 {
		r.fail("alarms: %v", alarms.Alarms)
	}
	longest := r.eventTTL + r.leaseReuse + patience
	for key, one := range own.cache.items {
		if age := time.Since(one.object.at); age > longest {
			r.fail("%s is there after %v", key, age)
		}
	}
}

// times has what calls took, and counts of what was seen.
type times struct {
	mutex     sync.Mutex
	took      map[string][]time.Duration
	counts    map[string]int64
	conflicts int
}

func (t *times) add(kind string, took time.Duration) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.took == nil {
		t.took = map[string][]time.Duration{}
	}
	t.took[kind] = append(t.took[kind], took)
}

func (t *times) count(what string, number int64) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.counts == nil {
		t.counts = map[string]int64{}
	}
	t.counts[what] += number
}

func (t *times) conflict() { t.count("conflicts", 1) }

// report prints what it was like.
func (r *run) report(took time.Duration) {
	r.times.mutex.Lock()
	defer r.times.mutex.Unlock()
	fmt.Printf("%-20s %9s %8s %9s %9s %9s\n", "", "calls", "a second", "p50 ms", "p99 ms", "max ms")
	for _, kind := range sorted(r.times.took) {
		all := r.times.took[kind]
		slices.Sort(all)
		at := func(part float64) float64 {
			return float64(all[int(part*float64(len(all)-1))].Microseconds()) / 1000
		}
		fmt.Printf("%-20s %9d %8.1f %9.2f %9.2f %9.1f\n", kind, len(all),
			float64(len(all))/took.Seconds(), at(0.5), at(0.99), at(1))
	}
	for _, what := range sorted(r.times.counts) {
		fmt.Printf("%d %s\n", r.times.counts[what], what)
	}
	writes := 0
	for _, made := range r.ledger.made {
		writes += len(made)
	}
	fmt.Printf("%d writes in %.0f s, compacted at %d\n", writes, took.Seconds(),
		r.compacted.Load())
	for _, why := range sorted(r.excused) {
		fmt.Printf("%d calls were in vain: %s\n", r.excused[why], why)
	}
	fmt.Printf("%d errors\n", len(r.failures))
}

func sorted[T any](words map[string]T) []string {
	keys := []string{}
	for key := range words {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
