"""A conversation through the Python client aetcd."""

import asyncio
import hashlib
import io

import aetcd
from aetcd.exceptions import (
    ClientError,
    DuplicateLeaseError,
    InvalidArgumentError,
    RevisionCompactedError,
    WatchTimeoutError,
)
from aetcd.rtypes import EventKind

from steps import PATIENCE, Steps, Wrong, address, holds, same

step = Steps()
host, port = address()


async def refused(kind, text, call):
    try:
        await call
    except kind as error:
        holds(f"{text!r} in {str(error)!r}", text in str(error))
        return error
    raise Wrong(f"{text!r} was expected, and nothing was refused")


def words(event):
    text = f"{event.kind} {event.kv.key.decode()} {event.kv.value.decode()}".strip()
    # Where there was no previous value this client has an empty one.
    existed = event.prev_kv is not None and event.prev_kv.key
    return text if not existed else f"{text} after {event.prev_kv.value.decode()}"


async def events(watch, count):
    """So many events of a watch, which stays open."""
    found = []

    async def collect():
        async for event in watch:
            found.append(words(event))
            if len(found) == count:
                return

    await asyncio.wait_for(collect(), PATIENCE)
    return ", ".join(found)


async def gather(iterator):
    return [one async for one in iterator]


@step
async def put_and_get(client):
    first = await client.put(b"kv/a", b"one")
    got = await client.get(b"kv/a")
    same("value", got.value, b"one")
    same("version", got.version, 1)
    same("create revision", got.create_revision, first.header.revision)
    again = await client.put(b"kv/a", b"two", prev_kv=True)
    same("previous", again.prev_kv.value, b"one")
    same("revision", again.header.revision, first.header.revision + 1)
    same("serializable", (await client.get(b"kv/a", serializable=True)).value, b"two")
    same("nothing", await client.get(b"kv/none"), None)


@step
async def empty_binary_and_large_values(client):
    for value in (b"", b"\x00\xff\xfe", b"x" * 1_000_000):
        await client.put(b"kv/b", value)
        same("value", (await client.get(b"kv/b")).value, value)


@step
async def what_a_put_refuses(client):
    await refused(
        InvalidArgumentError, "etcdserver: key is not provided", client.put(b"", b"x")
    )
    await refused(
        ClientError, "etcdserver: requested lease not found", client.put(b"x", b"x", lease=404)
    )
    await refused(
        InvalidArgumentError,
        "etcdserver: request is too large",
        client.put(b"x", b"x" * 1_600_000),
    )


@step
async def replace(client):
    await client.put(b"kv/c", b"1")
    same("replaced", await client.replace(b"kv/c", b"1", b"3"), True)
    same("replaced again", await client.replace(b"kv/c", b"1", b"4"), False)


@step
async def delete(client):
    gone = await client.delete(b"kv/a", prev_kv=True)
    same("previous", gone.prev_kv.value, b"two")
    same("deleted again", await client.delete(b"kv/a"), None)
    for number in range(5):
        await client.put(b"del/%d" % number, b"x")
    same("range", (await client.delete_range(b"del/1", b"del/3")).deleted, 2)
    gone = await client.delete_prefix(b"del/", prev_kv=True)
    same("deleted", [kv.key for kv in gone.prev_kvs], [b"del/0", b"del/3", b"del/4"])


@step
async def ranges(client):
    for number in range(10):
        await client.put(b"range/%d" % number, b"%d" % (9 - number))
    same("count", (await client.get_prefix(b"range/")).count, 10)
    middle = await client.get_range(b"range/3", b"range/5", sort_order="descend")
    same("range", [kv.key for kv in middle.kvs], [b"range/4", b"range/3"])
    for target in ("key", "value", "create", "mod", "version"):
        answer = await client.get_prefix(b"range/", sort_order="ascend", sort_target=target)
        wanted = b"range/9" if target == "value" else b"range/0"
        same(target, answer.kvs[0].key, wanted)
    bare = await client.get_prefix(b"range/", keys_only=True)
    same("values", {kv.value for kv in bare.kvs}, {b""})
    everything = await client.get_all()
    same("all keys", everything.count, len(everything.kvs))
    same("more", everything.more, False)


@step
async def transactions(client):
    of = client.transactions
    for wanted in (True, False):
        done, answers = await client.transaction(
            compare=[of.create(b"txn/a") == 0],
            success=[of.put(b"txn/a", b"1"), of.put(b"txn/b", b"2")],
            failure=[of.get(b"txn/a"), of.delete(b"txn/b", prev_kv=True)],
        )
        same("succeeded", done, wanted)
    same("value", answers[0][0][0], b"1")
    same("deleted", answers[1].response_delete_range.prev_kvs[0].value, b"2")
    done, _ = await client.transaction(
        compare=[of.value(b"txn/a") == b"1", of.version(b"txn/a") > 0, of.mod(b"txn/a") < 1 << 40],
        success=[],
        failure=[],
    )
    same("succeeded", done, True)
    inner = of.txn(
        compare=[of.value(b"txn/a") != b"1"], success=[], failure=[of.put(b"txn/in", b"x")]
    )
    await client.transaction(compare=[], success=[inner], failure=[])
    same("nested", (await client.get(b"txn/in")).value, b"x")
    await refused(
        InvalidArgumentError,
        "etcdserver: duplicate key given in txn request",
        client.transaction(
            compare=[], success=[of.put(b"x", b""), of.put(b"x", b"")], failure=[]
        ),
    )


@step
async def watch_a_prefix(client):
    watch = await client.watch_prefix(b"watch/")
    first = await client.put(b"watch/a", b"1")
    await client.put(b"other", b"1")
    await client.put(b"watch/b", b"1")
    await client.delete(b"watch/a")
    same("events", await events(watch, 3), "PUT watch/a 1, PUT watch/b 1, DELETE watch/a")
    await watch.cancel()
    begin = first.header.revision
    old = await client.watch(b"watch/a", start_revision=begin, prev_kv=True)
    same("events", await events(old, 2), "PUT watch/a 1, DELETE watch/a after 1")
    await client.put(b"watch/a", b"2")
    same("and on", await events(old, 1), "PUT watch/a 2")
    await old.cancel()
    puts = await client.watch_prefix(b"watch/", start_revision=begin, kind=EventKind.PUT)
    same("puts", await events(puts, 3), "PUT watch/a 1, PUT watch/b 1, PUT watch/a 2")
    await puts.cancel()
    deletes = await client.watch_prefix(b"watch/", start_revision=begin, kind=EventKind.DELETE)
    same("deletes", await events(deletes, 1), "DELETE watch/a")
    await deletes.cancel()


@step
async def watch_with_fragments(client):
    watch = await client.watch(b"watch/n", fragment=True)
    await client.put(b"watch/n", b"1")
    same("events", await events(watch, 1), "PUT watch/n 1")
    await watch.cancel()


@step
async def watch_once(client):
    waiting = asyncio.create_task(client.watch_once(b"watch/o", timeout=PATIENCE))
    while not waiting.done():
        await client.put(b"watch/o", b"1")
        await asyncio.sleep(0.02)
    same("event", words(await waiting), "PUT watch/o 1")
    await refused(WatchTimeoutError, "", client.watch_once(b"watch/never", timeout=1))


@step
async def compaction(client):
    old = (await client.put(b"compact/a", b"1")).header.revision
    now = (await client.put(b"compact/a", b"2")).header.revision
    await client.compact(now, physical=True)
    text = "etcdserver: mvcc: required revision has been compacted"
    await refused(ClientError, text, client.compact(old))
    watch = await client.watch(b"compact/a", start_revision=old)
    error = await refused(RevisionCompactedError, "", events(watch, 1))
    same("compacted revision", error.compacted_revision, now)


@step
async def leases(client):
    lease = await client.lease(60)
    same("ttl", lease.ttl, 60)
    await client.put(b"lease/a", b"x", lease=lease)
    await client.put(b"lease/b", b"x", lease=lease)
    same("keys", sorted(await lease.keys()), [b"lease/a", b"lease/b"])
    same("granted", await lease.granted_ttl(), 60)
    holds("most of the time is left", 50 <= await lease.remaining_ttl() <= 60)
    same("refreshed", (await lease.refresh()).TTL, 60)
    same("key's lease", (await client.get(b"lease/a")).lease, lease.id)
    watch = await client.watch_prefix(b"lease/")
    await lease.revoke()
    same("events", await events(watch, 2), "DELETE lease/a, DELETE lease/b")
    await watch.cancel()
    await refused(ClientError, "etcdserver: requested lease not found", lease.revoke())
    same("id", (await client.lease(60, lease_id=4711)).id, 4711)
    await refused(DuplicateLeaseError, "", client.lease(60, lease_id=4711))


@step
async def lease_expiry(client):
    watch = await client.watch_prefix(b"lease/")
    await client.put(b"lease/short", b"x", lease=await client.lease(1))
    same("events", await events(watch, 2), "PUT lease/short x, DELETE lease/short")
    await watch.cancel()


@step
async def lock_with_two_holders(client):
    async with aetcd.Client(host=host, port=port, timeout=PATIENCE) as other:
        first, second = client.lock(b"held", ttl=10), other.lock(b"held", ttl=10)
        same("acquired", await first.acquire(timeout=PATIENCE), True)
        same("is acquired", await first.is_acquired(), True)
        same("acquired twice", await second.acquire(timeout=1), False)
        same("refreshed", (await first.refresh()).TTL, 10)
        waiting = asyncio.create_task(second.acquire(timeout=PATIENCE))
        await asyncio.sleep(0.2)
        same("released", await first.release(), True)
        same("handed over", await waiting, True)
        same("released by the wrong one", await first.release(), False)
        same("released", await second.release(), True)


@step
async def many_at_once(client):
    puts = (client.put(b"many/%03d" % number, b"x") for number in range(500))
    revisions = {answer.header.revision for answer in await asyncio.gather(*puts)}
    same("revisions", len(revisions), 500)
    same("deleted", (await client.delete_prefix(b"many/")).deleted, 500)


@step
async def status_and_members(client):
    status = await client.status()
    holds("a version", status.version.count(".") == 2)
    holds("a size", status.db_size > 0)
    holds("term and index", status.raft_term > 0 and status.raft_index > 0)
    member = (await gather(client.members()))[0]
    same("the leader is the member", status.leader.id, member.id)
    same("client URLs", list(member.client_urls), [f"http://{host}:{port}"])


@step
async def hash_and_defragment(client):
    holds("a hash", await client.hash() > 0)
    await client.defragment()
    same("value", (await client.get(b"compact/a")).value, b"2")


@step
async def alarms(client):
    same("raised", len(await client.create_alarm()), 1)
    text = "etcdserver: mvcc: database space exceeded"
    await refused(ClientError, text, client.put(b"kv/full", b"x"))
    same("disarmed", len(await client.disarm_alarm()), 1)
    await client.put(b"kv/full", b"x")


@step
async def snapshot(client):
    file = io.BytesIO()
    await client.snapshot(file)
    content = file.getvalue()
    same("checksum", hashlib.sha256(content[:-32]).digest(), content[-32:])


@step
async def unknown_member(client):
    text = "etcdserver: member not found"
    await refused(ClientError, text, client.remove_member(404))


async def main():
    async with aetcd.Client(host=host, port=port, timeout=PATIENCE) as client:
        await step.run_async(client)


if __name__ == "__main__":
    asyncio.run(main())
