// A conversation with an etcd server through its Go client: every call that the client offers
// to a program, each with the answer that it must get.
//
// Usage: conversation <endpoint> [step]... Prints one line for each step and ends with the first
// failure; the named steps are left out.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// The longest that any one answer may take.
const patience = 20 * time.Second

// talk is one conversation; a step that finds something wrong panics with a failure.
type talk struct {
	endpoint string
	skipped  []string
	client   *clientv3.Client
	ctx      context.Context
}

type failure struct{ text string }

// step runs one step and prints its line.
func (t *talk) step(name string, run func()) {
	if slices.Contains(t.skipped, name) {
		fmt.Printf("skipped %s\n", name)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t.ctx = ctx
	defer func() {
		if cause := recover(); cause != nil {
			found, known := cause.(failure)
			if !known {
				panic(cause)
			}
			fmt.Printf("FAILED %s: %s\n", name, found.text)
			os.Exit(1)
		}
	}()
	run()
	fmt.Printf("ok %s\n", name)
}

func fail(format string, words ...any) { panic(failure{fmt.Sprintf(format, words...)}) }

// must returns the answer of a call that may not fail.
func must[T any](answer T, err error) T {
	check(err)
	return answer
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func same[T comparable](what string, came, wanted T) {
	if came != wanted {
		fail("%s is %v, not %v", what, came, wanted)
	}
}

func refused(err, wanted error) {
	if !errors.Is(err, wanted) && (err == nil || err.Error() != wanted.Error()) {
		fail("the error is %v, not %v", err, wanted)
	}
}

func text(what string, came []byte, wanted string) {
	if !bytes.Equal(came, []byte(wanted)) {
		fail("%s is %q, not %q", what, came, wanted)
	}
}

// await looks until the condition holds.
func (t *talk) await(what string, holds func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-t.ctx.Done():
			fail("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: conversation <endpoint> [step]...")
		os.Exit(2)
	}
	// Refusals are asked for on purpose; the client's own log of them would hide the steps.
	config := clientv3.Config{
		Endpoints:   []string{os.Args[1]},
		DialTimeout: patience,
		Logger:      zap.NewNop(),
	}
	client, err := clientv3.New(config)
	if err != nil {
		fmt.Printf("FAILED connect: %v\n", err)
		os.Exit(1)
	}
	t := &talk{endpoint: os.Args[1], skipped: os.Args[2:], client: client}
	t.kv()
	t.ranges()
	t.transactions()
	t.compaction()
	t.watches()
	t.leases()
	t.sessions()
	t.wrappers()
	t.naming()
	t.maintenance()
	t.step("close", func() { check(client.Close()) })
}
