package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watches that begin in the past and last a moment, many of them on one stream.
type briefWatches struct {
	mutex sync.Mutex
	spans map[string][]span
}

func (b *briefWatches) add(resource string, one span) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.spans == nil {
		b.spans = map[string][]span{}
	}
	b.spans[resource] = append(b.spans[resource], one)
}

// watchBriefly watches one resource after the other, each for a moment, from what the cache has seen
// a while ago.
func (s *server) watchBriefly(number int) {
	random := s.run.random(10, uint64(s.number), uint64(number))
	for s.run.pause(time.After(time.Duration(random.IntN(500)) * time.Millisecond)) {
		resource := cached[random.IntN(len(cached))]
		own := s.stores[resource]
		own.cache.mutex.Lock()
		from := own.cache.seen
		own.cache.mutex.Unlock()
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		s.watchFrom(own, from+1, time.Duration(500+random.IntN(1500))*time.Millisecond)
	}
}

func (s *server) watchFrom(own *store, first int64, lasts time.Duration) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.run.watching))
	defer cancel()
	timer := time.AfterFunc(lasts, cancel)
	defer timer.Stop()
	seen := span{first: first, last: first - 1}
	watch := s.stores[pods].client.Watch(ctx, own.prefix, clientv3.WithPrefix(),
		clientv3.WithRev(first))
	for answer := range watch {
		err := answer.Err()
		// A cache of what seldom changes may have been told nothing for longer than a round.
		if errors.Is(err, rpctypes.ErrCompacted) && answer.CompactRevision >= first {
			s.run.times.count("brief watches refused as compacted", 1)
			return
		}
		if err != nil {
			if ctx.Err() == nil && !s.run.excuse(err) {
				s.run.fail("%s: a watch from %d: %v", own, first, err)
			}
			break
		}
		for _, event := range answer.Events {
			seen.last = event.Kv.ModRevision
			seen.revisions = append(seen.revisions, seen.last)
		}
	}
	s.run.times.count("brief watches", 1)
	s.run.watches.add(own.resource, seen)
}
