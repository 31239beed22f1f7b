package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func (t *talk) leases() {
	var lease *clientv3.LeaseGrantResponse
	t.step("lease: grant, keys, time to live", func() {
		lease = must(t.client.Grant(t.ctx, 60))
		same("ttl", lease.TTL, 60)
		for _, key := range []string{"lease/a", "lease/b"} {
			must(t.client.Put(t.ctx, key, "x", clientv3.WithLease(lease.ID)))
		}
		left := must(t.client.TimeToLive(t.ctx, lease.ID, clientv3.WithAttachedKeys()))
		same("granted ttl", left.GrantedTTL, 60)
		if left.TTL < 50 || left.TTL > 60 {
			fail("%d of 60 s are left", left.TTL)
		}
		slices.SortFunc(left.Keys, bytes.Compare)
		same("keys", fmt.Sprintf("%s", left.Keys), "[lease/a lease/b]")
		same("key's lease", must(t.client.Get(t.ctx, "lease/a")).Kvs[0].Lease, int64(lease.ID))
	})
	t.step("lease: list", func() {
		leases := must(t.client.Leases(t.ctx)).Leases
		is := func(one clientv3.LeaseStatus) bool { return one.ID == lease.ID }
		listed := slices.ContainsFunc(leases, is)
		same("listed", listed, true)
	})
	t.step("lease: keep alive", func() {
		same("ttl", must(t.client.KeepAliveOnce(t.ctx, lease.ID)).TTL, 60)
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		answers := must(t.client.KeepAlive(ctx, lease.ID))
		answer, open := <-answers
		same("the channel is open", open, true)
		same("ttl", answer.TTL, 60)
	})
	t.step("lease: put keeps or drops it", func() {
		must(t.client.Put(t.ctx, "lease/a", "y", clientv3.WithIgnoreLease()))
		same("lease", must(t.client.Get(t.ctx, "lease/a")).Kvs[0].Lease, int64(lease.ID))
		must(t.client.Put(t.ctx, "lease/b", "y"))
		left := must(t.client.TimeToLive(t.ctx, lease.ID, clientv3.WithAttachedKeys()))
		same("keys", fmt.Sprintf("%s", left.Keys), "[lease/a]")
	})
	t.step("lease: revoke removes its keys", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		watch := t.client.Watch(ctx, "lease/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		t.next(watch)
		must(t.client.Revoke(t.ctx, lease.ID))
		same("events", t.events(watch, 1), "DELETE lease/a")
		same("keys", keys(must(t.client.Get(t.ctx, "lease/", clientv3.WithPrefix()))), "lease/b")
		_, err := t.client.Revoke(t.ctx, lease.ID)
		refused(err, rpctypes.ErrLeaseNotFound)
		_, err = t.client.KeepAliveOnce(t.ctx, lease.ID)
		refused(err, rpctypes.ErrLeaseNotFound)
		same("ttl", must(t.client.TimeToLive(t.ctx, lease.ID)).TTL, -1)
	})
	t.step("lease: expiry removes its keys", func() {
		short := must(t.client.Grant(t.ctx, 1))
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		watch := t.client.Watch(ctx, "lease/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		t.next(watch)
		must(t.client.Put(t.ctx, "lease/short", "x", clientv3.WithLease(short.ID)))
		same("events", t.events(watch, 2), "PUT lease/short x, DELETE lease/short")
		same("ttl", must(t.client.TimeToLive(t.ctx, short.ID)).TTL, -1)
	})
	t.step("lease: a kept one outlives its time", func() {
		short := must(t.client.Grant(t.ctx, 1))
		must(t.client.Put(t.ctx, "lease/kept", "x", clientv3.WithLease(short.ID)))
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		answers := must(t.client.KeepAlive(ctx, short.ID))
		for range 6 {
			if answer, open := <-answers; !open || answer.TTL < 1 {
				fail("the keep-alive ended")
			}
		}
		same("count", must(t.client.Get(t.ctx, "lease/kept")).Count, 1)
		cancel()
		gone := func() bool { return must(t.client.Get(t.ctx, "lease/kept")).Count == 0 }
		t.await("the key is gone", gone)
	})
}
