package main

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The most objects that one lease is given to.
const leaseObjects = 1000

// leases gives the same lease to many objects that end at about the same time.
type leases struct {
	store *store

	mutex   sync.Mutex
	last    clientv3.LeaseID
	ends    time.Time
	objects int
}

// take is a lease that lasts for the given time from now on, and not much longer.
func (l *leases) take(ttl time.Duration) (clientv3.LeaseID, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	now := time.Now()
	if now.Add(ttl).Before(l.ends) && l.objects < leaseObjects {
		l.objects++
		return l.last, nil
	}
	lasts := ttl + l.store.run.leaseReuse
	err := l.store.run.call("grant", func(ctx context.Context) error {
		answer, err := l.store.client.Grant(ctx, int64(lasts/time.Second))
		if err == nil {
			l.last, l.ends, l.objects = answer.ID, now.Add(lasts), 1
		}
		return err
	})
	return l.last, err
}
