package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The resources, by the names under which they are stored.
const (
	pods        = "pods"
	replicaSets = "replicasets"
	nodes       = "minions"
	nodeLeases  = "leases"
	events      = "events"
	configMaps  = "configmaps"
	// Not a resource: the key by which the compactors agree.
	compaction = "compact_rev_key"
)

var cached = []string{pods, replicaSets, nodes, nodeLeases, events, configMaps, compaction}

var prefixes = map[string]string{
	pods:        "/registry/pods/",
	replicaSets: "/registry/replicasets/",
	nodes:       "/registry/minions/",
	nodeLeases:  "/registry/leases/",
	events:      "/registry/events/",
	configMaps:  "/registry/configmaps/",
	compaction:  compaction,
}

// The smallest and the largest object of each resource, in bytes.
var sizes = map[string][2]int{
	pods:        {1_500, 8_000},
	replicaSets: {1_500, 5_000},
	nodes:       {8_000, 20_000},
	nodeLeases:  {500, 600},
	events:      {600, 1_500},
	configMaps:  {500, 20_000},
}

// How many there are at each server.
const (
	podControllers = 6
	setControllers = 2
	nodesEach      = 30
	sharedMaps     = 4
	briefWatchers  = 3
)

const (
	// Objects that a controller keeps, about.
	objectsEach = 40
	// A node renews its lease so often, and tells its status every fifth time.
	renewPeriod = 2 * time.Second
	// Between changes of a shared object by one server.
	sharedPeriod = 200 * time.Millisecond
	listPeriod   = 2 * time.Second
	healthPeriod = time.Second
)

// workers are all that work at one server.
func (s *server) workers() []func() {
	workers := []func(){s.list, s.sleep, s.health, s.share, s.compact}
	for number := range podControllers {
		workers = append(workers, func() { s.control(pods, number) })
	}
	for number := range setControllers {
		workers = append(workers, func() { s.control(replicaSets, number) })
	}
	for number := range nodesEach {
		workers = append(workers, func() { s.node(number) })
	}
	for number := range briefWatchers {
		workers = append(workers, func() { s.watchBriefly(number) })
	}
	return workers
}

// filling is incompressible, and taken from for every object.
var filling = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	bytes := make([]byte, 64<<10)
	for at := range bytes {
		bytes[at] = byte(random.Uint32())
	}
	return bytes
}()

func filler(random *rand.Rand, resource string) []byte {
	bounds := sizes[resource]
	size := bounds[0] + random.IntN(bounds[1]-bounds[0])
	from := random.IntN(len(filling) - size)
	return filling[from : from+size]
}

// any is one of the servers.
func (r *run) any(random *rand.Rand) *server { return r.servers[random.IntN(len(r.servers))] }

// controller creates, changes and deletes objects of its own, so that it knows what they are.
type controller struct {
	server   *server
	run      *run
	random   *rand.Rand
	resource string
	space    string
	made     int
	names    []string
	known    map[string]state
	// Those of which it does not know what became of the last change.
	unsure map[string]bool
}

func (s *server) control(resource string, number int) {
	c := &controller{server: s, run: s.run, resource: resource}
	c.random = s.run.random(uint64(s.number), uint64(len(resource)), uint64(number))
	c.space = fmt.Sprintf("%sspace-%d-%d/", prefixes[resource], s.number, number)
	c.known, c.unsure = map[string]state{}, map[string]bool{}
	controllers := s.run.plan.servers * (podControllers + setControllers)
	ticker := time.NewTicker(time.Second * time.Duration(controllers) / time.Duration(s.run.rate))
	defer ticker.Stop()
	for s.run.pause(ticker.C) {
		c.step()
	}
}

func (c *controller) step() {
	choice := c.random.IntN(100)
	if len(c.names) == 0 || choice < 15 && len(c.names) < objectsEach {
		c.create()
		return
	}
	at := c.random.IntN(len(c.names))
	key := c.names[at]
	own := c.server.stores[c.resource]
	switch {
	case choice < 55:
		c.update(own, key, c.known[key])
	case choice < 70:
		// Another server may not have heard of the last change yet.
		other := c.run.any(c.random).stores[c.resource]
		from := other.cache.state(key)
		if from.revision == 0 {
			from = c.known[key]
		}
		c.update(other, key, from)
	case choice < 80:
		found, err := c.run.any(c.random).stores[c.resource].get(key)
		c.compare("get", key, found, err)
	case choice < 90:
		found, err := c.run.any(c.random).stores[c.resource].cache.read(key)
		c.compare("a consistent read", key, found, err)
	case len(c.names) > objectsEach/2:
		c.remove(own, at)
	}
}

func (c *controller) create() {
	c.made++
	key := fmt.Sprintf("%sobject-%06d", c.space, c.made)
	own := c.server.stores[c.resource]
	made, isNew, err := own.create(key, filler(c.random, c.resource), 0)
	if err != nil {
		c.resolve(key)
		return
	}
	if !isNew {
		c.run.fail("%s: %s was there before: %+v", own, key, made)
	}
	c.names = append(c.names, key)
	c.known[key] = made
	c.server.tell(c.random, key)
}

func (c *controller) update(through *store, key string, from state) {
	after, err := through.update(key, from, filler(c.random, c.resource))
	if err != nil {
		c.resolve(key)
		return
	}
	before := c.known[key]
	if !c.unsure[key] && after.object.count != before.object.count+1 {
		c.run.fail("%s: %s became %+v after %+v", through, key, after, before)
	}
	if after.revision == 0 {
		c.forget(key)
		return
	}
	c.known[key] = after
	delete(c.unsure, key)
}

func (c *controller) remove(own *store, at int) {
	key := c.names[at]
	was, err := own.remove(key, c.known[key])
	if err != nil {
		c.resolve(key)
		return
	}
	if !was && !c.unsure[key] {
		c.run.fail("%s: %s was gone before it was deleted", own, key)
	}
	c.forget(key)
	c.server.tell(c.random, key)
}

func (c *controller) forget(key string) {
	for at, name := range c.names {
		if name == key {
			c.names = append(c.names[:at], c.names[at+1:]...)
		}
	}
	delete(c.known, key)
	delete(c.unsure, key)
}

// compare looks at what a read found, which must be what this controller wrote last.
func (c *controller) compare(how, key string, found state, err error) {
	if err != nil || c.unsure[key] {
		return
	}
	known := c.known[key]
	if found.revision != known.revision || found.object.count != known.object.count {
		c.run.fail("%s of %s found %+v, not %+v", how, key, found, known)
	}
}

// resolve reads a key of which nobody knows what became of its last change.
func (c *controller) resolve(key string) {
	for c.run.ctx.Err() == nil {
		found, err := c.run.any(c.random).stores[c.resource].get(key)
		if err != nil {
			continue
		}
		c.forget(key)
		if found.revision > 0 {
			c.names = append(c.names, key)
			c.known[key] = found
			c.unsure[key] = true
		}
		return
	}
}

// tell stores an event about an object; now and then it is counted up with a new lease.
func (s *server) tell(random *rand.Rand, about string) {
	own := s.stores[events]
	name := about[len("/registry/"):]
	key := fmt.Sprintf("%s%s.%016x", own.prefix, name, random.Uint64())
	made, isNew, err := own.create(key, filler(random, events), s.run.eventTTL)
	if err != nil {
		return
	}
	if !isNew {
		s.run.fail("%s: %s was there before", own, key)
	}
	if random.IntN(4) == 0 {
		lease, err := own.leases.take(s.run.eventTTL)
		if err != nil {
			return
		}
		next := object{count: 1, at: time.Now()}
		put := clientv3.OpPut(key, string(encode(next, filler(random, events))),
			clientv3.WithLease(lease))
		if _, revision, err := own.commit("update", key, made.revision, put); err == nil &&
			revision == 0 {
			s.run.fail("%s: somebody changed %s", own, key)
		}
	}
}

// node renews its lease and tells its status.
func (s *server) node(number int) {
	random := s.run.random(7, uint64(s.number), uint64(number))
	name := fmt.Sprintf("node-%d-%03d", s.number, number)
	keys := map[string]string{
		nodes:      prefixes[nodes] + name,
		nodeLeases: prefixes[nodeLeases] + "kube-node-lease/" + name,
	}
	if !s.run.pause(time.After(time.Duration(random.Int64N(int64(renewPeriod))))) {
		return
	}
	ticker := time.NewTicker(renewPeriod)
	defer ticker.Stop()
	for round := 0; ; round++ {
		s.refresh(random, nodeLeases, keys[nodeLeases])
		if round%5 == 0 {
			s.refresh(random, nodes, keys[nodes])
		}
		if !s.run.pause(ticker.C) {
			return
		}
	}
}

// refresh counts an object up, from what the cache has of it, or makes it.
func (s *server) refresh(random *rand.Rand, resource, key string) {
	own := s.stores[resource]
	from := own.cache.state(key)
	if from.revision == 0 {
		// Whoever was first made it.
		found, _, err := own.create(key, filler(random, resource), 0)
		if err != nil {
			return
		}
		from = found
	}
	after, err := own.update(key, from, filler(random, resource))
	if err == nil && after.revision == 0 {
		s.run.fail("%s: %s is gone", own, key)
	}
	if resource == configMaps {
		s.run.counters.add(key, err)
	}
}

// share counts up objects that all servers count up.
func (s *server) share() {
	random := s.run.random(8, uint64(s.number))
	ticker := time.NewTicker(sharedPeriod)
	defer ticker.Stop()
	for s.run.pause(ticker.C) {
		key := fmt.Sprintf("%skube-system/shared-%d", prefixes[configMaps], random.IntN(sharedMaps))
		s.refresh(random, configMaps, key)
	}
}

// list reads everything of a resource in pages, and at the same revision in one answer by another
// server, and counts it.
func (s *server) list() {
	random := s.run.random(9, uint64(s.number))
	ticker := time.NewTicker(listPeriod)
	defer ticker.Stop()
	for s.run.pause(ticker.C) {
		resource := []string{pods, replicaSets, events}[random.IntN(3)]
		began := time.Now()
		kvs, revision, err := s.stores[resource].list(int64(20 + random.IntN(200)))
		if err != nil {
			continue
		}
		s.run.times.add("list in pages", time.Since(began))
		other := s.run.any(random).stores[resource]
		var whole, count *clientv3.GetResponse
		at := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(revision)}
		err = s.run.call("list at a revision", func(ctx context.Context) (err error) {
			whole, err = other.client.Get(ctx, other.prefix, at...)
			return err
		})
		if err != nil {
			continue
		}
		err = s.run.call("count", func(ctx context.Context) (err error) {
			count, err = other.client.Get(ctx, other.prefix, append(at, clientv3.WithCountOnly())...)
			return err
		})
		if err != nil {
			continue
		}
		same := len(kvs) == len(whole.Kvs) && count.Count == int64(len(kvs))
		for at := 0; same && at < len(kvs); at++ {
			same = kvs[at].String() == whole.Kvs[at].String()
		}
		if !same {
			s.run.fail("%s: %d keys in pages, %d at once, %d counted at %d", other, len(kvs),
				len(whole.Kvs), count.Count, revision)
		}
	}
}

// sleep lists one page, and goes on only when what it saw has been compacted.
func (s *server) sleep() {
	// By one member, so that what is compacted for a read is so for a watch.
	client, err := s.run.dial(s.run.endpoints[s.number%len(s.run.endpoints):][:1])
	if err != nil {
		s.run.fail("dial: %v", err)
		return
	}
	defer client.Close()
	own := newStore(s, pods, client)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for s.run.pause(ticker.C) {
		page, err := own.page(own.prefix, 20, 0)
		if err != nil || !page.More {
			continue
		}
		revision := page.Header.Revision
		for s.run.compacted.Load() <= revision {
			if !s.run.pause(ticker.C) {
				return
			}
		}
		own.expires(string(page.Kvs[len(page.Kvs)-1].Key)+"\x00", revision)
	}
}

// expires goes on where a list ended, at a revision that is compacted: both the next page and a watch
// are refused, and a list from there as things are now is not.
func (s *store) expires(next string, revision int64) {
	compacted := s.run.compacted.Load()
	_, err := s.page(next, 20, revision)
	if errors.Is(err, errUnknown) {
		return
	}
	if !errors.Is(err, rpctypes.ErrCompacted) {
		s.run.fail("%s: a page at %d, compacted at %d: %v", s, revision, compacted, err)
		return
	}
	s.run.times.count("pages refused as compacted", 1)
	if page, err := s.page(next, 20, 0); err == nil && page.Header.Revision <= revision {
		s.run.fail("%s: now is %d, after %d", s, page.Header.Revision, revision)
	}
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(s.run.watching), patience)
	defer cancel()
	watch := s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	answer := <-watch
	err = answer.Err()
	if err != nil && s.run.excuse(err) || ctx.Err() != nil && s.run.faults {
		return
	}
	if !errors.Is(err, rpctypes.ErrCompacted) || answer.CompactRevision < compacted {
		s.run.fail("%s: a watch from %d, compacted at %d, at %d as the answer says: %v", s,
			revision+1, compacted, answer.CompactRevision, err)
		return
	}
	s.run.times.count("watches refused as compacted", 1)
}

// health asks what an API server asks to see whether its store is well.
func (s *server) health() {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	own := s.stores[pods]
	for round := 0; s.run.pause(ticker.C); round++ {
		_, err := own.get("/registry/health")
		if err != nil || round%10 != 0 {
			continue
		}
		for _, endpoint := range s.run.endpoints {
			var problems []string
			err := s.run.call("status", func(ctx context.Context) error {
				answer, err := own.client.Status(ctx, endpoint)
				if err == nil {
					problems = answer.Errors
				}
				return err
			})
			if err == nil && len(problems) > 0 && !s.run.faults {
				s.run.fail("%s: %v", endpoint, problems)
			}
		}
	}
}
