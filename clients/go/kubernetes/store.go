package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How an object begins in the store.
var magic = []byte("k8s\x00")

// object is what the load needs to know of a stored object; the rest of its bytes mean nothing.
type object struct {
	// Counts the updates.
	count uint64
	// When it was last written.
	at time.Time
}

// encode makes the bytes of an object, filled up to a size.
func encode(o object, filler []byte) []byte {
	value := append([]byte{}, magic...)
	value = binary.BigEndian.AppendUint64(value, o.count)
	value = binary.BigEndian.AppendUint64(value, uint64(o.at.UnixNano()))
	return append(value, filler...)
}

func decode(value []byte) (object, error) {
	if len(value) < len(magic)+16 || !bytes.HasPrefix(value, magic) {
		return object{}, fmt.Errorf("no object: %d bytes", len(value))
	}
	count := binary.BigEndian.Uint64(value[4:])
	at := time.Unix(0, int64(binary.BigEndian.Uint64(value[12:])))
	return object{count, at}, nil
}

// state is an object as its writer knows it; revision 0 if there is none.
type state struct {
	revision int64
	object   object
}

// store keeps one resource for one API server, through a client of its own.
type store struct {
	server   *server
	run      *run
	resource string
	prefix   string
	client   *clientv3.Client
	cache    *cache
	leases   *leases
}

func newStore(s *server, resource string, client *clientv3.Client) *store {
	own := &store{server: s, run: s.run, resource: resource, client: client}
	own.prefix = prefixes[resource]
	own.cache = newCache(own)
	own.leases = &leases{store: own}
	return own
}

func (s *store) String() string { return fmt.Sprintf("server %d's %s", s.server.number, s.resource) }

// stateOf is the state that an answer about one key shows.
func (s *store) stateOf(answer *clientv3.GetResponse) state {
	if len(answer.Kvs) == 0 {
		return state{}
	}
	kv := answer.Kvs[0]
	o, err := decode(kv.Value)
	if err != nil {
		s.run.fail("%s: %s: %v", s, kv.Key, err)
	}
	return state{kv.ModRevision, o}
}

// get reads one key, linearizably.
func (s *store) get(key string) (state, error) {
	var found state
	err := s.run.call("get", func(ctx context.Context) error {
		answer, err := s.client.Get(ctx, key)
		if err == nil {
			found = s.stateOf(answer)
		}
		return err
	})
	return found, err
}

// commit does one operation if the key was last changed at the revision, and reads it otherwise. The
// first state is what the key is now if nothing was done.
func (s *store) commit(kind, key string, from int64, op clientv3.Op) (state, int64, error) {
	var found state
	var revision int64
	err := s.run.call(kind, func(ctx context.Context) error {
		answer, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", from)).
			Then(op).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		if answer.Succeeded {
			revision = answer.Header.Revision
			s.run.ledger.add(s.resource, revision)
			return nil
		}
		found = s.stateOf((*clientv3.GetResponse)(answer.Responses[0].GetResponseRange()))
		if found.revision == from {
			s.run.fail("%s: %s is at %d, and was refused for that", s, key, from)
		}
		return nil
	})
	return found, revision, err
}

// create stores a new object. The state is what is there, and the second word whether it is new.
func (s *store) create(key string, filler []byte, ttl time.Duration) (state, bool, error) {
	o := object{at: time.Now()}
	var options []clientv3.OpOption
	if ttl > 0 {
		lease, err := s.leases.take(ttl)
		if err != nil {
			return state{}, false, err
		}
		options = append(options, clientv3.WithLease(lease))
	}
	put := clientv3.OpPut(key, string(encode(o, filler)), options...)
	found, revision, err := s.commit("create", key, 0, put)
	if err != nil || revision == 0 {
		return found, false, err
	}
	return state{revision, o}, true, nil
}

// update counts an object up from what its writer knows of it, and from what is there if that is not
// so any more. A state of revision 0 says that there is none.
func (s *store) update(key string, from state, filler []byte) (state, error) {
	for {
		if from.revision == 0 {
			return from, nil
		}
		next := object{count: from.object.count + 1, at: time.Now()}
		put := clientv3.OpPut(key, string(encode(next, filler)))
		found, revision, err := s.commit("update", key, from.revision, put)
		if err != nil {
			return state{}, err
		}
		if revision > 0 {
			return state{revision, next}, nil
		}
		s.run.times.conflict()
		from = found
	}
}

// remove deletes an object in the same way. The answer is whether it was there.
func (s *store) remove(key string, from state) (bool, error) {
	for {
		if from.revision == 0 {
			return false, nil
		}
		found, revision, err := s.commit("delete", key, from.revision, clientv3.OpDelete(key))
		if err != nil || revision > 0 {
			return revision > 0, err
		}
		s.run.times.conflict()
		from = found
	}
}
