package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func (t *talk) session() *concurrency.Session {
	return must(concurrency.NewSession(t.client, concurrency.WithTTL(10)))
}

func (t *talk) sessions() {
	t.step("mutex: two holders in turn", func() {
		first, second := t.session(), t.session()
		defer second.Close()
		mine, other := concurrency.NewMutex(first, "lock"), concurrency.NewMutex(second, "lock")
		check(mine.Lock(t.ctx))
		same("owner", must(t.client.Txn(t.ctx).If(mine.IsOwner()).Commit()).Succeeded, true)
		refused(other.TryLock(t.ctx), concurrency.ErrLocked)
		taken := make(chan error, 1)
		go func() { taken <- other.Lock(t.ctx) }()
		waits := func() bool {
			return must(t.client.Get(t.ctx, "lock/", clientv3.WithPrefix())).Count == 2
		}
		t.await("both stand in the queue", waits)
		select {
		case err := <-taken:
			fail("locked twice: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		check(mine.Unlock(t.ctx))
		check(<-taken)
		check(first.Close())
		check(other.Unlock(t.ctx))
	})
	t.step("mutex: the lock of a closed session is free", func() {
		first, second := t.session(), t.session()
		defer second.Close()
		check(concurrency.NewMutex(first, "lock").Lock(t.ctx))
		check(first.Close())
		other := concurrency.NewMutex(second, "lock")
		check(other.Lock(t.ctx))
		check(other.Unlock(t.ctx))
	})
	t.step("mutex: many clients count", func() {
		var group sync.WaitGroup
		errors := make(chan error, 8)
		for range 8 {
			group.Go(func() { errors <- t.count(5) })
		}
		group.Wait()
		for range 8 {
			check(<-errors)
		}
		text("count", must(t.client.Get(t.ctx, "counter")).Kvs[0].Value, "40")
	})
	t.step("election: campaign, observe, hand-over", t.elect)
	t.step("stm: transfers keep the sum", func() {
		must(t.client.Put(t.ctx, "stm/a", "100"))
		must(t.client.Put(t.ctx, "stm/b", "100"))
		var group sync.WaitGroup
		errors := make(chan error, 4)
		for worker := range 4 {
			group.Go(func() { errors <- t.transfer(worker) })
		}
		group.Wait()
		for range 4 {
			check(<-errors)
		}
		a := must(strconv.Atoi(string(must(t.client.Get(t.ctx, "stm/a")).Kvs[0].Value)))
		b := must(strconv.Atoi(string(must(t.client.Get(t.ctx, "stm/b")).Kvs[0].Value)))
		same("sum", a+b, 200)
		same("transferred", a, 100-(0+1+2+3)*10)
	})
}

// count adds to a counter under the lock, without any other guard.
func (t *talk) count(times int) error {
	session, err := concurrency.NewSession(t.client, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, "counting")
	for range times {
		if err := mutex.Lock(t.ctx); err != nil {
			return err
		}
		now, err := t.client.Get(t.ctx, "counter")
		if err != nil {
			return err
		}
		count := 0
		if now.Count == 1 {
			count, _ = strconv.Atoi(string(now.Kvs[0].Value))
		}
		if _, err := t.client.Put(t.ctx, "counter", fmt.Sprint(count+1)); err != nil {
			return err
		}
		if err := mutex.Unlock(t.ctx); err != nil {
			return err
		}
	}
	return nil
}

// transfer moves ten times the worker's number from a to b.
func (t *talk) transfer(worker int) error {
	for range 10 {
		_, err := concurrency.NewSTM(t.client, func(stm concurrency.STM) error {
			a, err := strconv.Atoi(stm.Get("stm/a"))
			if err != nil {
				return err
			}
			b, err := strconv.Atoi(stm.Get("stm/b"))
			if err != nil {
				return err
			}
			stm.Put("stm/a", fmt.Sprint(a-worker))
			stm.Put("stm/b", fmt.Sprint(b+worker))
			return nil
		}, concurrency.WithAbortContext(t.ctx))
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *talk) elect() {
	first, second := t.session(), t.session()
	defer second.Close()
	mine, other := concurrency.NewElection(first, "elect"), concurrency.NewElection(second, "elect")
	_, err := mine.Leader(t.ctx)
	refused(err, concurrency.ErrElectionNoLeader)
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	seen := mine.Observe(ctx)
	expect := func(wanted string) {
		select {
		case answer := <-seen:
			text("observed", answer.Kvs[0].Value, wanted)
		case <-t.ctx.Done():
			fail("%s was not observed", wanted)
		}
	}
	check(mine.Campaign(t.ctx, "first"))
	expect("first")
	text("leader", must(other.Leader(t.ctx)).Kvs[0].Value, "first")
	won := make(chan error, 1)
	go func() { won <- other.Campaign(t.ctx, "second") }()
	check(mine.Proclaim(t.ctx, "first again"))
	expect("first again")
	waits := func() bool {
		return must(t.client.Get(t.ctx, "elect/", clientv3.WithPrefix())).Count == 2
	}
	t.await("both stand", waits)
	check(mine.Resign(t.ctx))
	check(<-won)
	expect("second")
	refused(mine.Proclaim(t.ctx, "late"), concurrency.ErrElectionNotLeader)
	check(other.Resign(t.ctx))
}
