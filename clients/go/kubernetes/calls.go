package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a call says that was in vain while a leader was lost: it may have been done or not.
var errUnknown = errors.New("nobody knows whether it was done")

// call makes one call and measures it. An error ends the run, unless it must be expected.
func (r *run) call(kind string, do func(ctx context.Context) error) error {
	// A call that has begun when the time is over is finished.
	ctx, cancel := context.WithTimeout(r.watching, patience)
	defer cancel()
	began := time.Now()
	err := do(ctx)
	switch {
	case err == nil:
		r.times.add(kind, time.Since(began))
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		// Who asks for what is old must deal with it.
		return err
	case r.excuse(err):
		return errUnknown
	default:
		r.fail("%s: %v after %v", kind, err, time.Since(began))
		return err
	}
}

// excuse counts an error that clients must expect when a leader dies.
func (r *run) excuse(err error) bool {
	if !r.faults || !expected(err) {
		return false
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.excused[shape(err)]++
	return true
}

// expected tells whether the error is one of those by which a cluster says that it has no leader, or
// has just lost one, or by which the client says that its connection is gone.
func expected(err error) bool {
	known := []error{
		rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrStopped,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeout,
	}
	for _, one := range known {
		if errors.Is(err, one) || err.Error() == one.Error() {
			return true
		}
	}
	code := status.Code(err)
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		code = etcd.Code()
	}
	return code == codes.Unavailable
}

// shape is what an error says without the addresses in it.
func shape(err error) string {
	text := err.Error()
	for _, mark := range []string{"connection refused", "connection reset", "EOF", "broken pipe"} {
		if strings.Contains(text, mark) {
			return "the connection is gone: " + mark
		}
	}
	return text
}

// pause waits, and tells whether the load goes on.
func (r *run) pause(time <-chan time.Time) bool {
	select {
	case <-r.ctx.Done():
		return false
	case <-time:
		return true
	}
}

// counters are the shared objects that everybody counts up, and how often that was acknowledged.
type counters struct {
	mutex sync.Mutex
	done  map[string]uint64
	maybe map[string]uint64
}

func (c *counters) add(key string, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.done == nil {
		c.done, c.maybe = map[string]uint64{}, map[string]uint64{}
	}
	if err == nil {
		c.done[key]++
	} else {
		c.maybe[key]++
	}
}
