package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// The names of services below which the steps put addresses.
const (
	ownService  = "naming/own"
	toolService = "naming/tool"
)

// naming resolves services by the addresses that stand in etcd: put by Go's own manager, and by
// `etcdctl service advertise` if ETCDCTL names one that has it.
func (t *talk) naming() {
	servers := map[string]*grpc.Server{}
	var addresses []string
	t.step("naming: two servers of one service", func() {
		for range 2 {
			listener := must(net.Listen("tcp", "127.0.0.1:0"))
			server := grpc.NewServer()
			healthpb.RegisterHealthServer(server, health.NewServer())
			go func() { _ = server.Serve(listener) }()
			servers[listener.Addr().String()] = server
			addresses = append(addresses, listener.Addr().String())
		}
		slices.Sort(addresses)
	})
	t.step("naming: addresses of Go's manager are resolved", func() {
		manager := must(endpoints.NewManager(t.client, ownService))
		for _, address := range addresses {
			endpoint := endpoints.Endpoint{Addr: address, Metadata: map[string]string{"zone": "a"}}
			check(manager.AddEndpoint(t.ctx, ownService+"/"+address, endpoint))
		}
		same("listed", len(must(manager.List(t.ctx))), 2)
		t.reaches(ownService, addresses)
		check(manager.DeleteEndpoint(t.ctx, ownService+"/"+addresses[0]))
		t.reaches(ownService, addresses[1:])
	})
	if etcdctl := os.Getenv("ETCDCTL"); etcdctl != "" {
		t.step("naming: addresses of etcdctl service advertise are resolved", func() {
			t.advertised(etcdctl, addresses)
		})
	}
	for _, server := range servers {
		server.Stop()
	}
}

// advertised has etcdctl advertise every address, and stop again.
func (t *talk) advertised(etcdctl string, addresses []string) {
	var running []*exec.Cmd
	for _, address := range addresses {
		words := []string{"--endpoints=" + t.endpoint, "service", "advertise", toolService, address}
		command := exec.Command(etcdctl, words...)
		command.Stderr = os.Stderr
		check(command.Start())
		running = append(running, command)
	}
	defer func() {
		for _, command := range running {
			_ = command.Process.Kill()
		}
	}()
	t.reaches(toolService, addresses)
	list := func() string {
		words := []string{"--endpoints=" + t.endpoint, "service", "list", toolService}
		return string(must(exec.Command(etcdctl, words...).Output()))
	}
	same("listed", list(), strings.Join(addresses, "\n")+"\n")
	key := must(t.client.Get(t.ctx, toolService+"/"+addresses[0])).Kvs[0]
	left := must(t.client.TimeToLive(t.ctx, clientv3.LeaseID(key.Lease)))
	same("granted ttl", left.GrantedTTL, 10)
	check(running[0].Process.Signal(syscall.SIGTERM))
	check(running[0].Wait())
	same("listed", list(), addresses[1]+"\n")
	t.reaches(toolService, addresses[1:])
	// One that vanishes without a word is forgotten when its lease ends.
	check(running[1].Process.Kill())
	t.await("the lease has ended", func() bool { return list() == "" })
}

// reaches dials the service until calls went to exactly these addresses.
func (t *talk) reaches(service string, addresses []string) {
	builder := must(resolver.NewBuilder(t.client))
	balance := `{"loadBalancingConfig":[{"round_robin":{}}]}`
	connection := must(grpc.NewClient("etcd:///"+service,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(balance)))
	defer func() { check(connection.Close()) }()
	client := healthpb.NewHealthClient(connection)
	wanted := fmt.Sprint(addresses)
	t.await("calls go to "+wanted, func() bool {
		seen := map[string]bool{}
		for range 4 * len(addresses) {
			seen[t.served(client)] = true
		}
		var found []string
		for address := range seen {
			found = append(found, address)
		}
		slices.Sort(found)
		return fmt.Sprint(found) == wanted
	})
}

// served makes one call and tells which server answered.
func (t *talk) served(client healthpb.HealthClient) string {
	var server peer.Peer
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	request := &healthpb.HealthCheckRequest{}
	must(client.Check(ctx, request, grpc.Peer(&server), grpc.WaitForReady(true)))
	return server.Addr.String()
}
