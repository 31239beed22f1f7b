// A load in the shape of Kubernetes: several API servers, each with a client and a watch cache for
// every resource, store their objects as kube-apiserver does, and compact what is old.
//
// Usage: kubernetes -endpoints URL,URL,URL [options]. It is an error if any call fails, if a cache is
// told of a change twice, out of order or not at all, or if a cache is not what the store is in the
// end. With -faults, errors that clients must expect when a leader dies are counted apart.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// What kube-apiserver sets on its clients.
const (
	dialTimeout      = 20 * time.Second
	keepAliveTime    = 30 * time.Second
	keepAliveTimeout = 10 * time.Second
)

// The longest that any call may take.
const patience = 30 * time.Second

// plan is what the command line asks for.
type plan struct {
	endpoints  []string
	servers    int
	duration   time.Duration
	rate       int
	compaction time.Duration
	eventTTL   time.Duration
	leaseReuse time.Duration
	faults     bool
	seed       uint64
}

func parse() plan {
	var p plan
	endpoints := flag.String("endpoints", "", "URLs of the members, separated by commas")
	flag.IntVar(&p.servers, "servers", 3, "API servers")
	flag.DurationVar(&p.duration, "duration", 10*time.Minute, "how long the load goes on")
	flag.IntVar(&p.rate, "rate", 300, "steps of the controllers that are offered in a second")
	flag.DurationVar(&p.compaction, "compaction", 5*time.Minute, "between compactions")
	flag.DurationVar(&p.eventTTL, "event-ttl", 2*time.Minute, "how long events are kept")
	flag.DurationVar(&p.leaseReuse, "lease-reuse", time.Minute, "how long a lease is given to events")
	flag.BoolVar(&p.faults, "faults", false, "members are killed meanwhile")
	flag.Uint64Var(&p.seed, "seed", 1, "what is chosen at random follows from it")
	flag.Parse()
	p.endpoints = strings.Split(*endpoints, ",")
	if *endpoints == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	return p
}

// run is one run of the load.
type run struct {
	plan
	// Over at the end of the load, or with the first failure.
	ctx  context.Context
	stop context.CancelFunc
	// Over when the caches are no longer needed.
	watching context.Context
	unwatch  context.CancelFunc

	servers   []*server
	compacted atomic.Int64
	ledger    ledger
	times     times
	counters  counters
	watches   briefWatches

	mutex    sync.Mutex
	failures []string
	excused  map[string]int
}

// server is one API server.
type server struct {
	run    *run
	number int
	stores map[string]*store
}

// fail records what is wrong and ends the run.
func (r *run) fail(format string, words ...any) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.failures) < 10 {
		r.failures = append(r.failures, fmt.Sprintf(format, words...))
		fmt.Printf("FAILED %s\n", r.failures[len(r.failures)-1])
	}
	r.stop()
}

func (r *run) failed() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.failures) > 0
}

// random is a generator of its own for each worker.
func (r *run) random(words ...uint64) *rand.Rand {
	seed := r.seed
	for _, word := range words {
		seed = seed*1_000_003 + word + 1
	}
	return rand.New(rand.NewPCG(seed, 2379))
}

// dial makes a client of the members in this order.
func (r *run) dial(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		Logger:               zap.NewNop(),
	})
}

// start makes the servers and waits until their caches are filled.
func (r *run) start() error {
	for number := range r.plan.servers {
		at := number % len(r.endpoints)
		endpoints := append(append([]string{}, r.endpoints[at:]...), r.endpoints[:at]...)
		s := &server{run: r, number: number, stores: map[string]*store{}}
		for _, resource := range cached {
			client, err := r.dial(endpoints)
			if err != nil {
				return err
			}
			s.stores[resource] = newStore(s, resource, client)
		}
		r.servers = append(r.servers, s)
	}
	for _, s := range r.servers {
		for _, store := range s.stores {
			go store.cache.keep()
		}
	}
	for _, s := range r.servers {
		for _, store := range s.stores {
			if !store.cache.waitFor(r.ctx, 1) {
				return fmt.Errorf("%s is not listed", store)
			}
		}
	}
	return nil
}

// work lets every worker work until the time is over.
func (r *run) work() {
	var workers sync.WaitGroup
	for _, s := range r.servers {
		for _, worker := range s.workers() {
			workers.Go(worker)
		}
	}
	workers.Wait()
}

func main() {
	r := &run{plan: parse(), excused: map[string]int{}}
	r.watching, r.unwatch = context.WithCancel(context.Background())
	r.ctx, r.stop = context.WithCancel(r.watching)
	began := time.Now()
	if err := r.start(); err != nil {
		r.fail("start: %v", err)
	}
	fmt.Printf("loading after %.1f s\n", time.Since(began).Seconds())
	began = time.Now()
	timer := time.AfterFunc(r.duration, r.stop)
	r.work()
	timer.Stop()
	took := time.Since(began)
	if !r.failed() {
		r.judge()
	}
	r.unwatch()
	r.report(took)
	if r.failed() {
		os.Exit(1)
	}
	fmt.Println("ok")
}
