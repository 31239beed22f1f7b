"""A conversation through the Python client etcd3gw, which speaks JSON to the gateway."""

import base64
import queue
import threading

import etcd3gw
from etcd3gw.exceptions import Etcd3Exception

from steps import PATIENCE, Steps, address, await_until, holds, refused, same

step = Steps()
host, port = address()


def coded(text):
    return base64.b64encode(text.encode()).decode()


def decoded(text):
    return base64.b64decode(text)


def names(answer):
    return " ".join(kv["key"].decode() for _, kv in answer)


def words(event):
    kv = event["kv"]
    # An event of the first kind does not name it: it is the default.
    kind, value = event.get("type", "PUT"), kv.get("value", b"")
    return f"{kind} {kv['key'].decode()} {value.decode()}".strip()


class Watching:
    """The events of a watch, taken with a deadline."""

    def __init__(self, iterator, cancel):
        self.cancel = cancel
        self.found = queue.Queue()
        self.thread = threading.Thread(target=self.read, args=(iterator,), daemon=True)
        self.thread.start()

    def read(self, iterator):
        for event in iterator:
            self.found.put(words(event))

    def events(self, count):
        return ", ".join(self.found.get(timeout=PATIENCE) for _ in range(count))


@step
def put_and_get(client):
    same("put", client.put("kv/a", "one"), True)
    same("value", client.get("kv/a"), [b"one"])
    (value, kv), = client.get("kv/a", metadata=True)
    same("version", kv["version"], "1")
    same("revisions", kv["create_revision"], kv["mod_revision"])
    client.put("kv/a", "two")
    same("old value", client.get("kv/a", revision=int(kv["mod_revision"])), [b"one"])
    same("nothing", client.get("kv/none"), [])


@step
def conditional_writes(client):
    same("created", client.create("kv/c", "1"), True)
    same("created again", client.create("kv/c", "2"), False)
    same("replaced", client.replace("kv/c", "1", "3"), True)
    same("replaced again", client.replace("kv/c", "1", "4"), False)
    same("value", client.get("kv/c"), [b"3"])


@step
def large_values(client):
    client.put("kv/b", "x" * 1_000_000)
    same("value", client.get("kv/b"), [b"x" * 1_000_000])


@step
def what_is_refused(client):
    refused(Etcd3Exception, "etcdserver: key is not provided", lambda: client.put("", "x"))
    refused(
        Etcd3Exception,
        "etcdserver: requested lease not found",
        lambda: client.put("x", "x", lease=etcd3gw.Lease(404, client)),
    )
    refused(
        Etcd3Exception,
        "etcdserver: mvcc: required revision is a future revision",
        lambda: client.get("kv/a", revision=1 << 40),
    )
    refused(
        Etcd3Exception,
        "invalid value for bytes field key",
        lambda: client.post(client.get_url("/kv/put"), json={"key": "%"}),
    )


@step
def delete(client):
    same("deleted", client.delete("kv/a"), True)
    same("deleted again", client.delete("kv/a"), False)
    for number in range(3):
        client.put(f"del/{number}", "x")
    same("deleted", client.delete_prefix("del/"), True)
    same("left", client.get_prefix("del/"), [])


@step
def ranges(client):
    for number in range(10):
        client.put(f"range/{number}", str(9 - number))
    same("prefix", len(client.get_prefix("range/")), 10)
    middle = client.get("range/3", metadata=True, range_end="range/5")
    same("range", names(middle), "range/3 range/4")
    for target in ("key", "value", "create", "mod", "version"):
        up = client.get_prefix("range/", sort_order="ascend", sort_target=target)
        same(target, names(up)[:7], "range/9" if target == "value" else "range/0")
    first = client.get("range/", metadata=True, range_end="range0", limit=2)
    same("limit", names(first), "range/0 range/1")
    bare = client.get("range/1", metadata=True, keys_only=True)
    same("keys only", bare[0][0], b"")
    same("serializable", client.get("range/1", serializable=True), [b"8"])
    holds("all keys are more", len(client.get_all()) > 10)


@step
def transactions(client):
    def txn(value):
        return client.transaction(
            {
                "compare": [
                    {
                        "key": coded("txn/a"),
                        "target": "VALUE",
                        "result": "EQUAL",
                        "value": coded(value),
                    }
                ],
                "success": [
                    {"request_range": {"key": coded("txn/a")}},
                    {"request_delete_range": {"key": coded("txn/b"), "prev_kv": True}},
                ],
                "failure": [
                    {"request_put": {"key": coded("txn/a"), "value": coded(value)}},
                    {"request_put": {"key": coded("txn/b"), "value": coded(value)}},
                ],
            }
        )

    same("succeeded", txn("1").get("succeeded", False), False)
    answer = txn("1")
    same("succeeded", answer["succeeded"], True)
    found, gone = answer["responses"]
    same("value", decoded(found["response_range"]["kvs"][0]["value"]), b"1")
    same("deleted", gone["response_delete_range"]["deleted"], "1")
    inner = {"success": [{"request_put": {"key": coded("txn/in"), "value": coded("x")}}]}
    answer = client.transaction({"success": [{"request_txn": inner}]})
    same("nested", answer["responses"][0]["response_txn"]["succeeded"], True)
    same("value", client.get("txn/in"), [b"x"])


@step
def watch_a_prefix(client):
    watch = Watching(*client.watch_prefix("watch/"))
    client.put("watch/a", "1")
    client.put("other", "1")
    client.put("watch/b", "1")
    client.delete("watch/a")
    same("events", watch.events(3), "PUT watch/a 1, PUT watch/b 1, DELETE watch/a")
    watch.cancel()


@step
def watch_from_an_old_revision(client):
    (_, kv), = client.get("watch/b", metadata=True)
    watch = Watching(*client.watch("watch/b", start_revision=int(kv["mod_revision"])))
    same("events", watch.events(1), "PUT watch/b 1")
    client.put("watch/b", "2")
    same("and on", watch.events(1), "PUT watch/b 2")
    watch.cancel()


@step
def watch_large_values(client):
    # This client takes each chunk of the stream for a whole line.
    watch = Watching(*client.watch("watch/l"))
    for size in (1_000, 20_000, 100_000):
        client.put("watch/l", "x" * size)
        same("event", watch.events(1), "PUT watch/l " + "x" * size)
    watch.cancel()


@step
def watch_once(client):
    timer = threading.Timer(0.2, lambda: client.put("watch/o", "1"))
    timer.start()
    same("event", words(client.watch_once("watch/o", timeout=PATIENCE)), "PUT watch/o 1")
    timer.join()


@step
def leases(client):
    lease = client.lease(ttl=60)
    client.put("lease/a", "x", lease=lease)
    client.put("lease/b", "x", lease=lease)
    same("keys", sorted(lease.keys()), [b"lease/a", b"lease/b"])
    holds("most of the time is left", 50 <= lease.ttl() <= 60)
    same("refreshed", lease.refresh(), 60)
    same("revoked", lease.revoke(), True)
    same("keys", client.get_prefix("lease/"), [])
    same("ttl", lease.ttl(), -1)
    same("refreshed", lease.refresh(), -1)
    refused(Etcd3Exception, "etcdserver: requested lease not found", lease.revoke)


@step
def lease_expiry(client):
    watch = Watching(*client.watch_prefix("lease/"))
    client.put("lease/short", "x", lease=client.lease(ttl=1))
    same("events", watch.events(2), "PUT lease/short x, DELETE lease/short")
    watch.cancel()


@step
def lock_with_two_holders(client):
    first, second = client.lock("held", ttl=10), client.lock("held", ttl=10)
    same("acquired", first.acquire(), True)
    same("is acquired", first.is_acquired(), True)
    same("acquired twice", second.acquire(), False)
    same("refreshed", first.refresh(), 10)
    same("released by the wrong one", second.release(), False)
    same("released", first.release(), True)
    same("handed over", second.acquire(), True)
    same("released", second.release(), True)
    short, patient = client.lock("short", ttl=1), client.lock("short", ttl=10)
    same("acquired", short.acquire(), True)
    await_until("a dead holder's lock is free", patient.acquire)
    patient.release()


@step
def services_of_lock_and_election(client):
    lease = client.lease(ttl=60)
    post = lambda path, body: client.post(client.get_url(path), json=body)  # noqa: E731
    held = post("/lock/lock", {"name": coded("served"), "lease": lease.id})
    holds("the key is below the name", decoded(held["key"]).startswith(b"served/"))
    post("/lock/unlock", {"key": held["key"]})
    same("keys", client.get_prefix("served/"), [])
    campaign = {"name": coded("office"), "lease": lease.id, "value": coded("me")}
    leader = post("/election/campaign", campaign)["leader"]
    seen = post("/election/leader", {"name": coded("office")})
    same("leader", decoded(seen["kv"]["value"]), b"me")
    post("/election/proclaim", {"leader": leader, "value": coded("still me")})
    seen = post("/election/leader", {"name": coded("office")})
    same("leader", decoded(seen["kv"]["value"]), b"still me")
    post("/election/resign", {"leader": leader})
    text = "election: no leader"
    refused(Etcd3Exception, text, lambda: post("/election/leader", {"name": coded("office")}))


@step
def status_and_members(client):
    status = client.status()
    same("leader", status["leader"], status["header"]["member_id"])
    holds("a size", int(status["dbSize"]) > 0)
    member, = client.members()
    same("client URLs", member["clientURLs"], [f"http://{host}:{port}"])


@step
def compaction(client):
    (_, old), = client.get("kv/c", metadata=True)
    client.put("kv/c", "5")
    (_, now), = client.get("kv/c", metadata=True)
    url = client.get_url("/kv/compaction")
    client.post(url, json={"revision": now["mod_revision"], "physical": True})
    text = "etcdserver: mvcc: required revision has been compacted"
    refused(Etcd3Exception, text, lambda: client.get("kv/c", revision=int(old["mod_revision"])))


@step
def maintenance(client):
    post = lambda path, body: client.post(client.get_url(path), json=body)  # noqa: E731
    client.put("kv/d", "1")
    first = post("/maintenance/hashkv", {})
    again = post("/maintenance/hashkv", {"revision": first["hash_revision"]})
    same("hash", again["hash"], first["hash"])
    same("alarms", post("/maintenance/alarm", {}).get("alarms", []), [])
    post("/maintenance/defragment", {})
    same("value", client.get("kv/c"), [b"5"])


if __name__ == "__main__":
    step.run(etcd3gw.client(host=host, port=port, timeout=PATIENCE))
