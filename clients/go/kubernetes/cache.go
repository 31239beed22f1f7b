package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// How often progress is asked for while somebody waits.
const progressPeriod = 100 * time.Millisecond

// Keys in one page of a cache's list.
const cachePage = 200

var sums = maphash.MakeSeed()

// item is a key as a cache has it.
type item struct {
	create, mod, version, lease int64
	sum                         uint64
	object                      object
}

// span is a stretch of revisions that somebody was told of: those of the events, without those at
// which something else was written.
type span struct {
	first, last int64
	revisions   []int64
}

// cache is a copy of one resource, filled by a list and kept by a watch.
type cache struct {
	store *store
	run   *run

	mutex sync.Mutex
	items map[string]item
	// The revision up to which everything is in it.
	seen int64
	// The watch stands.
	live    bool
	spans   []span
	changed chan struct{}
	asked   time.Time
}

func newCache(s *store) *cache {
	return &cache{store: s, run: s.run, changed: make(chan struct{})}
}

func (c *cache) item(kv *mvccpb.KeyValue) item {
	one := item{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease,
		maphash.Bytes(sums, kv.Value), object{}}
	if c.store.resource != compaction {
		o, err := decode(kv.Value)
		if err != nil {
			c.run.fail("%s: %s: %v", c.store, kv.Key, err)
		}
		one.object = o
	}
	return one
}

// keep lists and watches until the end. Without faults it does so once.
func (c *cache) keep() {
	for round := 0; c.run.watching.Err() == nil; round++ {
		if round > 0 && !c.run.faults {
			c.run.fail("%s: the watch ended", c.store)
			return
		}
		revision, err := c.list()
		if err == nil {
			c.watch(revision)
		}
	}
}

// list fills the cache anew.
func (c *cache) list() (int64, error) {
	kvs, revision, err := c.store.list(cachePage)
	if err != nil {
		return 0, err
	}
	items := map[string]item{}
	for _, kv := range kvs {
		items[string(kv.Key)] = c.item(kv)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if revision < c.seen {
		c.run.fail("%s: listed at %d after %d was seen", c.store, revision, c.seen)
	}
	c.items = items
	c.spans = append(c.spans, span{first: revision + 1, last: revision})
	c.advance(revision)
	return revision, nil
}

// advance says that everything up to the revision is in the cache, which is locked.
func (c *cache) advance(revision int64) {
	c.seen = revision
	c.spans[len(c.spans)-1].last = revision
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cache) setLive(live bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.live = live
}

// watch takes up what changes after the revision, until the watch ends.
func (c *cache) watch(revision int64) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(c.run.watching))
	defer cancel()
	defer c.setLive(false)
	answers := c.store.client.Watch(ctx, c.store.prefix, clientv3.WithRev(revision+1),
		clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithProgressNotify(),
		clientv3.WithCreatedNotify())
	for answer := range answers {
		if err := answer.Err(); err != nil {
			if c.run.faults && errors.Is(err, rpctypes.ErrCompacted) {
				// It was without a member for longer than a round of the compactors.
				c.run.times.count("caches listed again after a compaction", 1)
				return
			}
			if !c.run.excuse(err) && c.run.watching.Err() == nil {
				c.run.fail("%s: watch: %v", c.store, err)
			}
			return
		}
		c.take(&answer)
	}
}

// take puts one answer of the watch into the cache.
func (c *cache) take(answer *clientv3.WatchResponse) {
	now := time.Now()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch {
	case answer.Created:
		c.live = true
	case answer.IsProgressNotify():
		c.run.times.count("progress notices", 1)
		if answer.Header.Revision < c.seen {
			c.run.fail("%s: progress at %d after %d", c.store, answer.Header.Revision, c.seen)
		}
		c.advance(answer.Header.Revision)
	default:
		last := c.seen
		for _, event := range answer.Events {
			if event.Kv.ModRevision < last || event.Kv.ModRevision <= c.seen {
				c.run.fail("%s: event of %d at %d, %d was seen before this answer", c.store,
					event.Kv.ModRevision, last, c.seen)
			}
			last = event.Kv.ModRevision
			c.apply(event, now)
		}
		if answer.Header.Revision < last {
			c.run.fail("%s: the header says %d with an event of %d", c.store,
				answer.Header.Revision, last)
		}
		c.advance(last)
	}
}

// apply puts one event into the cache. What the event says of the key before it must be what the
// cache has.
func (c *cache) apply(event *clientv3.Event, now time.Time) {
	key := string(event.Kv.Key)
	before, was := c.items[key]
	if was != (event.PrevKv != nil) {
		c.run.fail("%s: %s at %d: it was there: %v, with previous value: %v", c.store, key,
			event.Kv.ModRevision, was, event.PrevKv != nil)
		return
	}
	if was && before != c.item(event.PrevKv) {
		c.run.fail("%s: %s at %d: the cache has %+v, the event %+v", c.store, key,
			event.Kv.ModRevision, before, c.item(event.PrevKv))
	}
	own := &c.spans[len(c.spans)-1]
	own.revisions = append(own.revisions, event.Kv.ModRevision)
	if event.Type == clientv3.EventTypeDelete {
		c.run.times.count("deletions seen", 1)
		delete(c.items, key)
		c.gone(key, before, now)
		return
	}
	after := c.item(event.Kv)
	c.items[key] = after
	wanted := [2]int64{after.mod, 1}
	if was {
		wanted = [2]int64{before.create, before.version + 1}
	}
	if wanted != [2]int64{after.create, after.version} || event.IsCreate() == was {
		c.run.fail("%s: %s at %d: after %+v comes %+v", c.store, key, after.mod, before, after)
	}
	if c.store.resource != compaction {
		c.run.times.add("watch event", now.Sub(after.object.at))
	}
}

// gone looks at a deletion: events go when their time is over, and nobody deletes them.
func (c *cache) gone(key string, before item, now time.Time) {
	if c.store.resource != events {
		return
	}
	c.run.times.count("events expired", 1)
	age := now.Sub(before.object.at)
	if age < c.run.eventTTL {
		c.run.fail("%s: %s is gone after %v", c.store, key, age)
	}
}

// waitFor waits until everything up to the revision is in the cache, and asks for progress
// meanwhile.
func (c *cache) waitFor(ctx context.Context, revision int64) bool {
	end := time.After(patience)
	for {
		c.mutex.Lock()
		seen, changed := c.seen, c.changed
		asks := c.live && time.Since(c.asked) >= progressPeriod
		if asks && seen < revision {
			c.asked = time.Now()
		}
		c.mutex.Unlock()
		if seen >= revision {
			return true
		}
		if asks {
			c.ask()
		}
		select {
		case <-ctx.Done():
			return false
		case <-end:
			c.run.fail("%s: %d is not reached, but %d", c.store, revision, seen)
			return false
		case <-changed:
		case <-time.After(progressPeriod):
		}
	}
}

// ask asks for a progress notice; the watch may have ended meanwhile.
func (c *cache) ask() {
	c.run.times.count("progress asked for", 1)
	err := c.store.client.RequestProgress(clientv3.WithRequireLeader(c.run.watching))
	if err != nil && !c.run.faults && c.run.watching.Err() == nil {
		c.run.fail("%s: asking for progress: %v", c.store, err)
	}
}

// state is what the cache has of a key.
func (c *cache) state(key string) state {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	one := c.items[key]
	return state{one.mod, one.object}
}

// read is a consistent read from the cache: it shows what was written before it began.
func (c *cache) read(key string) (state, error) {
	began := time.Now()
	var revision int64
	err := c.run.call("get", func(ctx context.Context) error {
		answer, err := c.store.client.Get(ctx, c.store.prefix, clientv3.WithPrefix(),
			clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err == nil {
			revision = answer.Header.Revision
		}
		return err
	})
	if err != nil || !c.waitFor(c.run.watching, revision) {
		return state{}, errUnknown
	}
	c.run.times.add("consistent read", time.Since(began))
	return c.state(key), nil
}

// page reads up to a limit of keys below the prefix, from a key on, at a revision or now.
func (s *store) page(from string, limit, revision int64) (*clientv3.GetResponse, error) {
	var page *clientv3.GetResponse
	err := s.run.call("list page", func(ctx context.Context) error {
		answer, err := s.client.Get(ctx, from, clientv3.WithLimit(limit), clientv3.WithRev(revision),
			clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix)))
		page = answer
		return err
	})
	if err != nil {
		return nil, err
	}
	last := ""
	for _, kv := range page.Kvs {
		if key := string(kv.Key); key < from || key <= last {
			s.run.fail("%s: %q after %q in a list from %q", s, key, last, from)
		}
		last = string(kv.Key)
	}
	whole := int64(len(page.Kvs)) == page.Count
	if page.More == whole || !whole && int64(len(page.Kvs)) != limit {
		s.run.fail("%s: a page of %d with %d of %d keys says more: %v", s, limit, len(page.Kvs),
			page.Count, page.More)
	}
	return page, nil
}

// list reads everything below the prefix in pages, all of them at the revision of the first.
func (s *store) list(limit int64) ([]*mvccpb.KeyValue, int64, error) {
	first, err := s.page(s.prefix, limit, 0)
	if err != nil {
		return nil, 0, err
	}
	revision, kvs, page := first.Header.Revision, first.Kvs, first
	for page.More {
		page, err = s.page(string(kvs[len(kvs)-1].Key)+"\x00", limit, revision)
		if errors.Is(err, rpctypes.ErrCompacted) {
			s.run.times.count("lists begun again", 1)
			return s.list(limit)
		}
		if err != nil {
			return nil, 0, err
		}
		if int64(len(kvs))+page.Count != first.Count {
			s.run.fail("%s: %d keys and %d more at %d, not %d", s, len(kvs), page.Count, revision,
				first.Count)
		}
		kvs = append(kvs, page.Kvs...)
	}
	return kvs, revision, nil
}
