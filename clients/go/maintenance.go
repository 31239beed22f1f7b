package main

import (
	"bytes"
	"crypto/sha256"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

func (t *talk) wrappers() {
	t.step("namespace", func() {
		kv := namespace.NewKV(t.client, "space/")
		watch := namespace.NewWatcher(t.client, "space/").Watch(t.ctx, "a", clientv3.WithCreatedNotify())
		t.next(watch)
		must(kv.Put(t.ctx, "a", "1"))
		text("key", must(kv.Get(t.ctx, "a")).Kvs[0].Key, "a")
		text("real key", must(t.client.Get(t.ctx, "space/a")).Kvs[0].Value, "1")
		same("events", t.events(watch, 1), "PUT a 1")
		same("deleted", must(kv.Delete(t.ctx, "", clientv3.WithPrefix())).Deleted, 1)
	})
	t.step("ordering", func() {
		never := func(clientv3.Op, clientv3.OpResponse, int64) error {
			return rpctypes.ErrGRPCNoLeader
		}
		kv := ordering.NewKV(t.client.KV, never)
		must(t.client.Put(t.ctx, "order", "1"))
		for range 20 {
			must(kv.Get(t.ctx, "order", clientv3.WithSerializable()))
		}
	})
	t.step("leasing", func() {
		kv, end, err := leasing.NewKV(t.client, "leasing/")
		check(err)
		defer end()
		must(kv.Put(t.ctx, "cached", "1"))
		text("value", must(kv.Get(t.ctx, "cached")).Kvs[0].Value, "1")
		must(kv.Put(t.ctx, "cached", "2"))
		text("value", must(kv.Get(t.ctx, "cached")).Kvs[0].Value, "2")
	})
	t.step("mirror", func() {
		must(t.client.Put(t.ctx, "mirror/a", "1"))
		syncer := mirror.NewSyncer(t.client, "mirror/", 0)
		answers, errors := syncer.SyncBase(t.ctx)
		count := 0
		for answer := range answers {
			count += len(answer.Kvs)
		}
		check(<-errors)
		same("keys", count, 1)
		updates := syncer.SyncUpdates(t.ctx)
		must(t.client.Put(t.ctx, "mirror/b", "1"))
		same("events", t.events(updates, 1), "PUT mirror/b 1")
	})
}

func (t *talk) maintenance() {
	t.step("status", func() {
		status := must(t.client.Status(t.ctx, t.endpoint))
		same("leader", status.Leader, status.Header.MemberId)
		same("no errors", len(status.Errors), 0)
		same("learner", status.IsLearner, false)
		if status.DbSize <= 0 || status.DbSizeInUse > status.DbSize || status.RaftTerm == 0 ||
			status.RaftAppliedIndex == 0 || status.Version == "" {
			fail("status %v", status)
		}
	})
	t.step("members", func() {
		members := must(t.client.MemberList(t.ctx)).Members
		same("members", len(members), 1)
		same("client URL", members[0].ClientURLs[0], t.endpoint)
		check(t.client.Sync(t.ctx))
		same("endpoints", t.client.Endpoints()[0], t.endpoint)
	})
	t.step("hashes", func() {
		hash := must(t.client.HashKV(t.ctx, t.endpoint, 0))
		again := must(t.client.HashKV(t.ctx, t.endpoint, hash.HashRevision))
		same("hash of the same revision", again.Hash, hash.Hash)
	})
	t.step("alarms", func() {
		same("alarms", len(must(t.client.AlarmList(t.ctx)).Alarms), 0)
		// Nothing raises one here; taking an unknown one back is no error.
		must(t.client.AlarmDisarm(t.ctx, &clientv3.AlarmMember{}))
	})
	t.step("defragment", func() {
		must(t.client.Defragment(t.ctx, t.endpoint))
		text("value", must(t.client.Get(t.ctx, "compact/a")).Kvs[0].Value, "2")
	})
	t.step("snapshot", func() {
		reader := must(t.client.Snapshot(t.ctx))
		content := must(io.ReadAll(reader))
		check(reader.Close())
		body, sum := content[:len(content)-sha256.Size], content[len(content)-sha256.Size:]
		wanted := sha256.Sum256(body)
		same("the checksum holds", bytes.Equal(sum, wanted[:]), true)
		same("whole pages", len(body)%512, 0)
		versioned := must(t.client.SnapshotWithVersion(t.ctx))
		defer versioned.Snapshot.Close()
		same("version is told", versioned.Version != "", true)
		must(io.Copy(io.Discard, versioned.Snapshot))
	})
	t.step("range stream", t.rangeStream)
	t.step("unknown members", func() {
		_, err := t.client.MoveLeader(t.ctx, 404)
		refused(err, rpctypes.ErrBadLeaderTransferee)
		_, err = t.client.MemberRemove(t.ctx, 404)
		refused(err, rpctypes.ErrMemberNotFound)
	})
}

// rangeStream reads a range in pieces where the client has that call.
func (t *talk) rangeStream() {
	stream := must(pb.NewKVClient(t.client.ActiveConnection()).RangeStream(t.ctx,
		&pb.RangeRequest{Key: []byte("range/"), RangeEnd: []byte("range0")}))
	count := 0
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			break
		}
		check(err)
		count += len(answer.RangeResponse.Kvs)
	}
	same("keys", count, 10)
}
