package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compact is the compactor of one server. The servers agree by the version of a key: whoever counts
// it up compacts what it saw one round ago, so that everything is kept for one round at least.
func (s *server) compact() {
	var version, revision int64
	// The servers were there before this load: the first round is now.
	for wait := time.Duration(0); s.run.pause(time.After(wait)); wait = s.run.compaction {
		won, nextVersion, nextRevision, err := s.claim(version, revision)
		if err != nil {
			continue
		}
		if won && revision > 0 {
			err = s.run.call("compact", func(ctx context.Context) error {
				_, err := s.stores[compaction].client.Compact(ctx, revision)
				return err
			})
			if errors.Is(err, rpctypes.ErrCompacted) && !s.run.faults {
				s.run.fail("server %d: %d had been compacted before", s.number, revision)
			}
			if err == nil {
				s.run.compacted.Store(revision)
				s.run.times.count("compactions", 1)
			}
		}
		version, revision = nextVersion, nextRevision
	}
}

// claim counts the key up from a version. The answers are whether it did, the version of the key, and
// the revision now.
func (s *server) claim(version, revision int64) (won bool, now, at int64, err error) {
	err = s.run.call("claim", func(ctx context.Context) error {
		answer, err := s.stores[compaction].client.Txn(ctx).
			If(clientv3.Compare(clientv3.Version(compaction), "=", version)).
			Then(clientv3.OpPut(compaction, strconv.FormatInt(revision, 10))).
			Else(clientv3.OpGet(compaction)).
			Commit()
		if err != nil {
			return err
		}
		won, now, at = answer.Succeeded, version+1, answer.Header.Revision
		if won {
			s.run.ledger.add(compaction, at)
		} else {
			now = answer.Responses[0].GetResponseRange().Kvs[0].Version
		}
		return nil
	})
	return won, now, at, err
}
