package main

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func (t *talk) kv() {
	var first *clientv3.PutResponse
	t.step("put and get", func() {
		first = must(t.client.Put(t.ctx, "kv/a", "one"))
		got := must(t.client.Get(t.ctx, "kv/a"))
		same("count", got.Count, 1)
		text("value", got.Kvs[0].Value, "one")
		same("version", got.Kvs[0].Version, 1)
		same("create revision", got.Kvs[0].CreateRevision, first.Header.Revision)
		same("revision", got.Header.Revision, first.Header.Revision)
		same("cluster", got.Header.ClusterId, first.Header.ClusterId)
	})
	t.step("put with previous value", func() {
		second := must(t.client.Put(t.ctx, "kv/a", "two", clientv3.WithPrevKV()))
		text("previous value", second.PrevKv.Value, "one")
		same("revision", second.Header.Revision, first.Header.Revision+1)
		old := must(t.client.Get(t.ctx, "kv/a", clientv3.WithRev(first.Header.Revision)))
		text("old value", old.Kvs[0].Value, "one")
	})
	t.step("put that ignores the value", func() {
		must(t.client.Put(t.ctx, "kv/a", "", clientv3.WithIgnoreValue()))
		got := must(t.client.Get(t.ctx, "kv/a"))
		text("value", got.Kvs[0].Value, "two")
		same("version", got.Kvs[0].Version, 3)
		_, err := t.client.Put(t.ctx, "kv/none", "", clientv3.WithIgnoreValue())
		refused(err, rpctypes.ErrKeyNotFound)
	})
	t.step("empty, binary and large values", func() {
		values := []string{"", "\x00\xff\xfe", strings.Repeat("x", 1<<20)}
		for _, value := range values {
			must(t.client.Put(t.ctx, "kv/\x00\xff", value))
			got := must(t.client.Get(t.ctx, "kv/\x00\xff"))
			text("value", got.Kvs[0].Value, value)
		}
	})
	t.step("what a put refuses", func() {
		_, err := t.client.Put(t.ctx, "", "x")
		refused(err, rpctypes.ErrEmptyKey)
		_, err = t.client.Put(t.ctx, "kv/x", "x", clientv3.WithLease(404))
		refused(err, rpctypes.ErrLeaseNotFound)
		_, err = t.client.Put(t.ctx, "kv/x", strings.Repeat("x", 1<<21))
		if err == nil || !strings.Contains(err.Error(), "larger than max") &&
			!strings.Contains(err.Error(), "request is too large") {
			fail("2 MiB were answered by %v", err)
		}
	})
	t.step("delete with previous value", func() {
		gone := must(t.client.Delete(t.ctx, "kv/a", clientv3.WithPrevKV()))
		same("deleted", gone.Deleted, 1)
		text("previous value", gone.PrevKvs[0].Value, "two")
		same("deleted again", must(t.client.Delete(t.ctx, "kv/a")).Deleted, 0)
		same("count", must(t.client.Get(t.ctx, "kv/a")).Count, 0)
	})
	t.step("delete a prefix", func() {
		for number := range 5 {
			must(t.client.Put(t.ctx, fmt.Sprintf("del/%d", number), "x"))
		}
		gone := must(t.client.Delete(t.ctx, "del/1", clientv3.WithRange("del/3")))
		same("deleted", gone.Deleted, 2)
		gone = must(t.client.Delete(t.ctx, "del/", clientv3.WithPrefix(), clientv3.WithPrevKV()))
		same("deleted", gone.Deleted, 3)
		text("first", gone.PrevKvs[0].Key, "del/0")
	})
}

// keys joins the keys of an answer.
func keys(answer *clientv3.GetResponse) string {
	var names []string
	for _, kv := range answer.Kvs {
		names = append(names, string(kv.Key))
	}
	return strings.Join(names, " ")
}

func (t *talk) ranges() {
	var revision int64
	t.step("ten keys", func() {
		for number := range 10 {
			key, value := fmt.Sprintf("range/%d", number), fmt.Sprint(9-number)
			revision = must(t.client.Put(t.ctx, key, value)).Header.Revision
		}
	})
	get := func(key, wanted string, options ...clientv3.OpOption) *clientv3.GetResponse {
		answer := must(t.client.Get(t.ctx, key, options...))
		same("keys", keys(answer), wanted)
		return answer
	}
	t.step("prefix, range and from a key", func() {
		same("count", must(t.client.Get(t.ctx, "range/", clientv3.WithPrefix())).Count, 10)
		get("range/3", "range/3 range/4", clientv3.WithRange("range/5"))
		get("range/8", "range/8 range/9", clientv3.WithFromKey())
		everything := must(t.client.Get(t.ctx, "", clientv3.WithFromKey(), clientv3.WithKeysOnly()))
		same("all keys", everything.Count, int64(len(everything.Kvs)))
	})
	t.step("limit and more", func() {
		answer := get("range/", "range/0 range/1", clientv3.WithPrefix(), clientv3.WithLimit(2))
		same("more", answer.More, true)
		same("count", answer.Count, 10)
		last := get("range/8", "range/8 range/9", clientv3.WithFromKey(), clientv3.WithLimit(2))
		same("more", last.More, false)
	})
	t.step("sorted by each target", func() {
		sort := func(target clientv3.SortTarget, order clientv3.SortOrder, wanted string) {
			get("range/", wanted, clientv3.WithPrefix(), clientv3.WithLimit(2),
				clientv3.WithSort(target, order))
		}
		sort(clientv3.SortByKey, clientv3.SortDescend, "range/9 range/8")
		sort(clientv3.SortByValue, clientv3.SortAscend, "range/9 range/8")
		sort(clientv3.SortByModRevision, clientv3.SortDescend, "range/9 range/8")
		sort(clientv3.SortByCreateRevision, clientv3.SortAscend, "range/0 range/1")
		must(t.client.Put(t.ctx, "range/4", "5"))
		sort(clientv3.SortByVersion, clientv3.SortDescend, "range/4 range/0")
		get("range/", "range/9", clientv3.WithLastKey()...)
		get("range/", "range/0", clientv3.WithFirstCreate()...)
		get("range/", "range/4", clientv3.WithLastRev()...)
	})
	t.step("count only and keys only", func() {
		count := get("range/", "", clientv3.WithPrefix(), clientv3.WithCountOnly())
		same("count", count.Count, 10)
		bare := get("range/1", "range/1", clientv3.WithKeysOnly())
		text("value", bare.Kvs[0].Value, "")
	})
	t.step("bounds on revisions", func() {
		get("range/", "range/9 range/4", clientv3.WithPrefix(),
			clientv3.WithMinModRev(revision),
			clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend))
		get("range/", "range/0 range/1", clientv3.WithPrefix(), clientv3.WithMaxCreateRev(revision-8))
	})
	t.step("at a revision", func() {
		old := get("range/", "range/0 range/1 range/2 range/3 range/4",
			clientv3.WithPrefix(), clientv3.WithRev(revision-5))
		text("value", old.Kvs[4].Value, "5")
		_, err := t.client.Get(t.ctx, "range/", clientv3.WithRev(revision+1000))
		refused(err, rpctypes.ErrFutureRev)
	})
	t.step("serializable", func() {
		get("range/1", "range/1", clientv3.WithSerializable())
	})
	t.step("many keys in one answer", func() {
		value := strings.Repeat("v", 1000)
		for batch := range 50 {
			var ops []clientv3.Op
			for number := range 100 {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("many/%02d%02d", batch, number), value))
			}
			must(t.client.Txn(t.ctx).Then(ops...).Commit())
		}
		answer := must(t.client.Get(t.ctx, "many/", clientv3.WithPrefix()))
		same("keys", len(answer.Kvs), 5000)
		for number, kv := range answer.Kvs {
			same("key", string(kv.Key), fmt.Sprintf("many/%04d", number))
		}
		same("deleted", must(t.client.Delete(t.ctx, "many/", clientv3.WithPrefix())).Deleted, 5000)
	})
}

func (t *talk) transactions() {
	put, get, drop := clientv3.OpPut, clientv3.OpGet, clientv3.OpDelete
	t.step("txn: both branches", func() {
		isNew := clientv3.Compare(clientv3.CreateRevision("txn/a"), "=", 0)
		for _, wanted := range []bool{true, false} {
			answer := must(t.client.Txn(t.ctx).If(isNew).
				Then(put("txn/a", "1"), put("txn/b", "2")).Else(get("txn/a")).Commit())
			same("succeeded", answer.Succeeded, wanted)
			if !wanted {
				text("value", answer.Responses[0].GetResponseRange().Kvs[0].Value, "1")
			}
		}
		got := must(t.client.Get(t.ctx, "txn/", clientv3.WithPrefix()))
		same("one revision for both", got.Kvs[0].ModRevision, got.Kvs[1].ModRevision)
	})
	t.step("txn: every comparison", func() {
		kv := must(t.client.Get(t.ctx, "txn/a")).Kvs[0]
		compares := []clientv3.Cmp{
			clientv3.Compare(clientv3.Value("txn/a"), "=", "1"),
			clientv3.Compare(clientv3.Value("txn/a"), "!=", "2"),
			clientv3.Compare(clientv3.Value("txn/a"), "<", "2"),
			clientv3.Compare(clientv3.Version("txn/a"), ">", 0),
			clientv3.Compare(clientv3.ModRevision("txn/a"), "=", kv.ModRevision),
			clientv3.Compare(clientv3.CreateRevision("txn/a"), "<", kv.CreateRevision+1),
			clientv3.Compare(clientv3.LeaseValue("txn/a"), "=", 0),
			clientv3.Compare(clientv3.Version("txn/"), ">", 0).WithPrefix(),
		}
		for number, compare := range compares {
			answer := must(t.client.Txn(t.ctx).If(compare).Commit())
			same(fmt.Sprintf("comparison %d", number), answer.Succeeded, true)
		}
		answer := must(t.client.Txn(t.ctx).If(compares...).Commit())
		same("all of them", answer.Succeeded, true)
		other := clientv3.Compare(clientv3.Value("txn/b"), "=", "1")
		answer = must(t.client.Txn(t.ctx).If(append(compares, other)...).Commit())
		same("all and a wrong one", answer.Succeeded, false)
	})
	t.step("txn: nested, reads see writes before them", func() {
		inner := clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Value("txn/a"), "=", "inner")},
			[]clientv3.Op{get("txn/a"), drop("txn/b", clientv3.WithPrevKV())},
			[]clientv3.Op{put("txn/wrong", "")},
		)
		answer := must(t.client.Txn(t.ctx).Then(get("txn/a"), put("txn/a", "inner"), inner).Commit())
		text("before", answer.Responses[0].GetResponseRange().Kvs[0].Value, "1")
		nested := answer.Responses[2].GetResponseTxn()
		// Comparisons of a nested txn are decided before anything is written.
		same("nested comparison", nested.Succeeded, false)
		same("wrong", must(t.client.Get(t.ctx, "txn/wrong")).Count, 1)
	})
	t.step("txn: what is refused", func() {
		_, err := t.client.Txn(t.ctx).Then(put("txn/a", "1"), put("txn/a", "2")).Commit()
		refused(err, rpctypes.ErrDuplicateKey)
		var many []clientv3.Op
		for number := range 129 {
			many = append(many, put(fmt.Sprintf("txn/%d", number), ""))
		}
		_, err = t.client.Txn(t.ctx).Then(many...).Commit()
		refused(err, rpctypes.ErrTooManyOps)
	})
	t.step("do: an operation as a value", func() {
		answer := must(t.client.Do(t.ctx, put("txn/do", "x", clientv3.WithPrevKV())))
		same("previous", answer.Put().PrevKv == nil, true)
	})
}

func (t *talk) compaction() {
	t.step("compaction", func() {
		old := must(t.client.Put(t.ctx, "compact/a", "1")).Header.Revision
		now := must(t.client.Put(t.ctx, "compact/a", "2")).Header.Revision
		must(t.client.Compact(t.ctx, now, clientv3.WithCompactPhysical()))
		_, err := t.client.Get(t.ctx, "compact/a", clientv3.WithRev(old))
		refused(err, rpctypes.ErrCompacted)
		got := must(t.client.Get(t.ctx, "compact/a", clientv3.WithRev(now)))
		text("value at the compacted revision", got.Kvs[0].Value, "2")
		_, err = t.client.Compact(t.ctx, old)
		refused(err, rpctypes.ErrCompacted)
		_, err = t.client.Compact(t.ctx, now+1000)
		refused(err, rpctypes.ErrFutureRev)
	})
}
