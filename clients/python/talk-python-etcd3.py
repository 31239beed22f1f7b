"""A conversation through the Python client etcd3."""

import io
import hashlib
import threading

import etcd3
import grpc

from steps import PATIENCE, Steps, address, await_until, holds, refused, same

step = Steps()
host, port = address()


def connect():
    # One of the steps carries values of a megabyte.
    return etcd3.client(host=host, port=port, timeout=PATIENCE)


def names(answer):
    return " ".join(metadata.key.decode() for _, metadata in answer)


def words(event):
    kind = "PUT" if isinstance(event, etcd3.events.PutEvent) else "DELETE"
    return f"{kind} {event.key.decode()} {event.value.decode()}".strip()


class Watching:
    """The events of one watch, taken with a deadline."""

    def __init__(self, client, key, **options):
        self.condition = threading.Condition()
        self.answers = []
        self.id = client.add_watch_callback(key, self.on_answer, **options)

    def on_answer(self, answer):
        with self.condition:
            self.answers.append(answer)
            self.condition.notify_all()

    def next(self):
        with self.condition:
            holds("an answer", self.condition.wait_for(lambda: self.answers, PATIENCE))
            return self.answers.pop(0)

    def events(self, count):
        found = []
        while len(found) < count:
            answer = self.next()
            if isinstance(answer, Exception):
                raise answer
            found += answer.events
        return ", ".join(words(event) for event in found)


@step
def put_and_get(client):
    first = client.put("kv/a", "one")
    value, metadata = client.get("kv/a")
    same("value", value, b"one")
    same("version", metadata.version, 1)
    same("create revision", metadata.create_revision, first.header.revision)
    same("revision", metadata.response_header.revision, first.header.revision)
    again = client.put("kv/a", "two", prev_kv=True)
    same("previous", again.prev_kv.value, b"one")
    same("revision", again.header.revision, first.header.revision + 1)
    same("serializable", client.get("kv/a", serializable=True)[0], b"two")
    same("nothing", client.get("kv/none"), (None, None))


@step
def empty_binary_and_large_values(client):
    for value in (b"", b"\x00\xff\xfe", b"x" * 1_000_000):
        client.put("kv/b", value)
        same("value", client.get("kv/b")[0], value)


@step
def what_a_put_refuses(client):
    refused(grpc.RpcError, "etcdserver: key is not provided", lambda: client.put("", "x"))
    refused(
        grpc.RpcError,
        "etcdserver: requested lease not found",
        lambda: client.put("kv/x", "x", lease=404),
    )
    refused(
        grpc.RpcError,
        "etcdserver: request is too large",
        lambda: client.put("kv/x", "x" * 1_600_000),
    )


@step
def conditional_writes(client):
    same("created", client.put_if_not_exists("kv/c", "1"), True)
    same("created again", client.put_if_not_exists("kv/c", "2"), False)
    same("replaced", client.replace("kv/c", "1", "3"), True)
    same("replaced again", client.replace("kv/c", "1", "4"), False)
    same("value", client.get("kv/c")[0], b"3")


@step
def delete(client):
    gone = client.delete("kv/a", prev_kv=True, return_response=True)
    same("deleted", gone.deleted, 1)
    same("previous", gone.prev_kvs[0].value, b"two")
    same("deleted again", client.delete("kv/a"), False)
    for number in range(3):
        client.put(f"del/{number}", "x")
    same("deleted", client.delete_prefix("del/").deleted, 3)


@step
def ranges(client):
    for number in range(10):
        client.put(f"range/{number}", str(9 - number))
    same("prefix", len(list(client.get_prefix("range/"))), 10)
    same("range", names(client.get_range("range/3", "range/5")), "range/3 range/4")
    down = client.get_prefix("range/", sort_order="descend", sort_target="key")
    same("first", next(down)[1].key, b"range/9")
    for target in ("value", "create", "mod", "version"):
        up = client.get_prefix("range/", sort_order="ascend", sort_target=target)
        wanted = b"range/9" if target == "value" else b"range/0"
        same(target, next(up)[1].key, wanted)
    bare = client.get_prefix("range/", keys_only=True)
    same("values", {value for value, _ in bare}, {b""})
    everything = client.get_all_response()
    same("count", everything.count, len(everything.kvs))
    same("more", everything.more, False)


@step
def transactions(client):
    of = client.transactions
    for wanted in (True, False):
        done, answers = client.transaction(
            compare=[of.create("txn/a") == 0],
            success=[of.put("txn/a", "1"), of.put("txn/b", "2")],
            failure=[of.get("txn/a"), of.delete("txn/b", prev_kv=True)],
        )
        same("succeeded", done, wanted)
    same("value", answers[0][0][0], b"1")
    same("deleted", answers[1].response_delete_range.prev_kvs[0].value, b"2")
    done, _ = client.transaction(
        compare=[of.value("txn/a") == "1", of.version("txn/a") > 0, of.mod("txn/a") < 1 << 40],
        success=[],
        failure=[],
    )
    same("succeeded", done, True)
    done, _ = client.transaction(compare=[of.value("txn/a") != "1"], success=[], failure=[])
    same("succeeded", done, False)
    inner = of.txn(compare=[of.value("txn/a") == "1"], success=[of.put("txn/in", "x")], failure=[])
    client.transaction(compare=[], success=[inner], failure=[])
    same("nested", client.get("txn/in")[0], b"x")
    refused(
        grpc.RpcError,
        "etcdserver: duplicate key given in txn request",
        lambda: client.transaction(
            compare=[], success=[of.put("x", ""), of.put("x", "")], failure=[]
        ),
    )


@step
def watch_a_prefix(client):
    watching = Watching(client, "watch/", range_end="watch0")
    first = client.put("watch/a", "1")
    client.put("other", "1")
    client.put("watch/b", "1")
    client.delete("watch/a")
    same("events", watching.events(3), "PUT watch/a 1, PUT watch/b 1, DELETE watch/a")
    client.cancel_watch(watching.id)
    old = Watching(
        client, "watch/a", start_revision=first.header.revision, prev_kv=True
    )
    answer = old.next()
    same("events", [words(event) for event in answer.events], ["PUT watch/a 1", "DELETE watch/a"])
    same("previous", answer.events[1].prev_value, b"1")
    client.put("watch/a", "2")
    same("and on", old.events(1), "PUT watch/a 2")
    client.cancel_watch(old.id)


@step
def watch_by_the_iterator(client):
    events, cancel = client.watch_prefix("watch/")
    client.put("watch/c", "1")
    same("event", words(next(events)), "PUT watch/c 1")
    cancel()
    same("events after the cancel", list(events), [])
    timer = threading.Timer(0.2, lambda: client.put("watch/d", "1"))
    timer.start()
    same("once", words(client.watch_once("watch/d", timeout=PATIENCE)), "PUT watch/d 1")
    timer.join()


@step
def progress_by_interval(client):
    written = client.put("elsewhere", "1").header.revision
    watching = Watching(client, "watch/quiet", progress_notify=True)
    answer = watching.next()
    same("events", list(answer.events), [])
    same("revision", answer.header.revision, written)
    client.cancel_watch(watching.id)


@step
def compaction(client):
    old = client.put("compact/a", "1").header.revision
    now = client.put("compact/a", "2").header.revision
    client.compact(now, physical=True)
    refused(
        grpc.RpcError,
        "etcdserver: mvcc: required revision has been compacted",
        lambda: client.compact(old),
    )
    watching = Watching(client, "compact/a", start_revision=old)
    error = watching.next()
    same("the end", type(error), etcd3.exceptions.RevisionCompactedError)
    same("compacted revision", error.compacted_revision, now)


@step
def leases(client):
    lease = client.lease(60)
    same("ttl", lease.ttl, 60)
    client.put("lease/a", "x", lease=lease)
    client.put("lease/b", "x", lease=lease)
    same("keys", sorted(lease.keys), [b"lease/a", b"lease/b"])
    same("granted", lease.granted_ttl, 60)
    holds("most of the time is left", 50 <= lease.remaining_ttl <= 60)
    same("refreshed", lease.refresh()[0].TTL, 60)
    same("key's lease", client.get("lease/a")[1].lease_id, lease.id)
    watching = Watching(client, "lease/", range_end="lease0")
    lease.revoke()
    same("events", watching.events(2), "DELETE lease/a, DELETE lease/b")
    client.cancel_watch(watching.id)
    refused(grpc.RpcError, "etcdserver: requested lease not found", lease.revoke)
    own = client.lease(60, lease_id=4711)
    same("id", own.id, 4711)
    refused(etcd3.exceptions.PreconditionFailedError, "", lambda: client.lease(60, lease_id=4711))


@step
def lease_expiry(client):
    watching = Watching(client, "lease/", range_end="lease0")
    client.put("lease/short", "x", lease=client.lease(1))
    same("events", watching.events(2), "PUT lease/short x, DELETE lease/short")
    client.cancel_watch(watching.id)


@step
def lock_with_two_holders(client):
    other = connect()
    first, second = client.lock("held", ttl=10), other.lock("held", ttl=10)
    same("acquired", first.acquire(timeout=PATIENCE), True)
    same("is acquired", first.is_acquired(), True)
    same("acquired twice", second.acquire(timeout=0.5), False)
    same("refreshed", first.refresh()[0].TTL, 10)
    # Between the transaction that found the lock taken and the watch for its release, this client
    # misses the release, and sleeps for the whole of its timeout.
    watches, watch = threading.Event(), other.add_watch_callback

    def watch_and_tell(*arguments, **options):
        watch_id = watch(*arguments, **options)
        watches.set()
        return watch_id

    other.add_watch_callback = watch_and_tell
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(second.acquire(timeout=PATIENCE)))
    waiting.start()
    holds("the second one watches", watches.wait(PATIENCE))
    same("released", first.release(), True)
    waiting.join(PATIENCE)
    same("handed over", taken, [True])
    same("released by the wrong one", first.release(), False)
    same("released", second.release(), True)
    with client.lock("held", ttl=10) as lock:
        same("is acquired", lock.is_acquired(), True)


@step
def lock_of_a_holder_that_died(client):
    same("acquired", client.lock("dead", ttl=1).acquire(), True)
    second = client.lock("dead", ttl=10)
    same("acquired after the first one's time", second.acquire(timeout=PATIENCE), True)
    second.release()


@step
def status_and_members(client):
    status = client.status()
    holds("a version", status.version.count(".") == 2)
    holds("a size", status.db_size > 0)
    holds("term and index", status.raft_term > 0 and status.raft_index > 0)
    member = next(iter(client.members))
    same("the leader is the member", status.leader.id, member.id)
    same("client URLs", list(member.client_urls), [f"http://{host}:{port}"])
    same("alarms of the member", list(member.active_alarms), [])


@step
def hash_and_defragment(client):
    holds("a hash", client.hash() > 0)
    client.defragment()
    same("value", client.get("compact/a")[0], b"2")


@step
def alarms(client):
    raised = client.create_alarm()
    same("raised", len(raised), 1)
    same("listed", len(list(client.list_alarms())), 1)
    text = "etcdserver: mvcc: database space exceeded"
    refused(grpc.RpcError, text, lambda: client.put("kv/full", "x"))
    same("disarmed", len(client.disarm_alarm()), 1)
    same("listed", list(client.list_alarms()), [])
    await_until("writes go on", lambda: client.put("kv/full", "x"))


@step
def snapshot(client):
    file = io.BytesIO()
    client.snapshot(file)
    content = file.getvalue()
    same("checksum", hashlib.sha256(content[:-32]).digest(), content[-32:])


@step
def unknown_member(client):
    refused(grpc.RpcError, "etcdserver: member not found", lambda: client.remove_member(404))


if __name__ == "__main__":
    # Clients stay open: the thread of a closed one complains about that.
    step.run(connect())
