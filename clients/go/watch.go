package main

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// next is the next answer of a watch that is not empty.
func (t *talk) next(answers clientv3.WatchChan) clientv3.WatchResponse {
	select {
	case answer, open := <-answers:
		if !open {
			fail("the watch ended")
		}
		return answer
	case <-t.ctx.Done():
		fail("no answer of the watch")
	}
	panic("not reached")
}

// events collects so many events as words: PUT key value, or DELETE key.
func (t *talk) events(answers clientv3.WatchChan, count int) string {
	var words []string
	for len(words) < count {
		answer := t.next(answers)
		check(answer.Err())
		for _, event := range answer.Events {
			word := fmt.Sprintf("%s %s", event.Type, event.Kv.Key)
			if len(event.Kv.Value) > 0 {
				word += " " + string(event.Kv.Value)
			}
			if event.PrevKv != nil {
				word += " after " + string(event.PrevKv.Value)
			}
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

func (t *talk) watches() {
	var begin int64
	t.step("watch a prefix", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		watch := t.client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		same("created", t.next(watch).Created, true)
		begin = must(t.client.Put(t.ctx, "watch/a", "1")).Header.Revision
		must(t.client.Put(t.ctx, "other", "1"))
		must(t.client.Put(t.ctx, "watch/b", "1"))
		must(t.client.Delete(t.ctx, "watch/a"))
		same("events", t.events(watch, 3), "PUT watch/a 1, PUT watch/b 1, DELETE watch/a")
	})
	t.step("watch from an old revision, with previous values", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		watch := t.client.Watch(ctx, "watch/a", clientv3.WithRev(begin), clientv3.WithPrevKV())
		same("events", t.events(watch, 2), "PUT watch/a 1, DELETE watch/a after 1")
		must(t.client.Put(t.ctx, "watch/a", "2"))
		same("and on", t.events(watch, 1), "PUT watch/a 2")
	})
	t.step("watch with filters", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		puts := t.client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithRev(begin),
			clientv3.WithFilterDelete())
		same("puts", t.events(puts, 3), "PUT watch/a 1, PUT watch/b 1, PUT watch/a 2")
		deletes := t.client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithRev(begin),
			clientv3.WithFilterPut())
		same("deletes", t.events(deletes, 1), "DELETE watch/a")
	})
	t.step("events of one txn come together", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		watch := t.client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		t.next(watch)
		must(t.client.Txn(t.ctx).Then(clientv3.OpPut("watch/x", "1"),
			clientv3.OpPut("watch/y", "1")).Commit())
		answer := t.next(watch)
		same("events", len(answer.Events), 2)
		same("one revision", answer.Events[0].Kv.ModRevision, answer.Events[1].Kv.ModRevision)
	})
	t.step("progress on request", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		watch := t.client.Watch(ctx, "watch/quiet", clientv3.WithCreatedNotify())
		t.next(watch)
		revision := must(t.client.Put(t.ctx, "elsewhere", "1")).Header.Revision
		reached := func() bool {
			check(t.client.RequestProgress(ctx))
			answer := t.next(watch)
			same("is progress", answer.IsProgressNotify(), true)
			return answer.Header.Revision >= revision
		}
		t.await("progress reaches the last write", reached)
	})
	t.step("progress by interval", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		revision := must(t.client.Put(t.ctx, "elsewhere", "2")).Header.Revision
		watch := t.client.Watch(ctx, "watch/quiet", clientv3.WithProgressNotify())
		answer := t.next(watch)
		same("is progress", answer.IsProgressNotify(), true)
		same("revision", answer.Header.Revision, revision)
	})
	t.step("cancel ends the channel", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		watch := t.client.Watch(ctx, "watch/a", clientv3.WithCreatedNotify())
		t.next(watch)
		cancel()
		for answer := range watch {
			same("events after the cancel", len(answer.Events), 0)
		}
	})
	t.step("many watches, fragmented answers", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		var watches []clientv3.WatchChan
		for range 100 {
			watch := t.client.Watch(ctx, "fan/", clientv3.WithPrefix(), clientv3.WithFragment(),
				clientv3.WithCreatedNotify())
			t.next(watch)
			watches = append(watches, watch)
		}
		value := strings.Repeat("v", 800_000)
		must(t.client.Put(t.ctx, "fan/a", value))
		must(t.client.Txn(t.ctx).Then(clientv3.OpPut("fan/b", "1"),
			clientv3.OpPut("fan/c", "1")).Commit())
		for _, watch := range watches {
			same("events", t.events(watch, 3), "PUT fan/a "+value+", PUT fan/b 1, PUT fan/c 1")
		}
	})
	t.step("watch from a compacted revision", func() {
		now := must(t.client.Put(t.ctx, "watch/a", "3")).Header.Revision
		must(t.client.Compact(t.ctx, now))
		watch := t.client.Watch(t.ctx, "watch/a", clientv3.WithRev(begin))
		answer := t.next(watch)
		refused(answer.Err(), rpctypes.ErrCompacted)
		same("compacted revision", answer.CompactRevision, now)
		_, open := <-watch
		same("the channel is open", open, false)
	})
	t.step("watch a future revision", func() {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		now := must(t.client.Put(t.ctx, "watch/a", "4")).Header.Revision
		watch := t.client.Watch(ctx, "watch/a", clientv3.WithRev(now+2), clientv3.WithCreatedNotify())
		t.next(watch)
		must(t.client.Put(t.ctx, "watch/a", "5"))
		must(t.client.Put(t.ctx, "watch/a", "6"))
		same("events", t.events(watch, 1), "PUT watch/a 6")
	})
}
