// A conversation with an etcd server through the npm client etcd3.
//
// Usage: node conversation.js <URL>. Prints one line for each step, ends with the first failure.
'use strict';

const { isDeepStrictEqual } = require('node:util');
const etcd = require('etcd3');

// The longest that any one answer may take, in milliseconds.
const PATIENCE = 20000;

const url = process.argv[2];
const client = new etcd.Etcd3({ hosts: url });

function same(what, came, wanted) {
  if (!isDeepStrictEqual(came, wanted)) {
    throw new Error(`${what} is ${JSON.stringify(came)}, not ${JSON.stringify(wanted)}`);
  }
}

async function refused(text, promise) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    same(`${text} in ${error.message}`, error.message.includes(text), true);
    return error;
  }
  throw new Error(`${text} was expected, not ${JSON.stringify(answer)}`);
}

// The promise, or a failure when it takes too long.
async function soon(what, promise, limit = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const pause = duration => new Promise(resolve => setTimeout(resolve, duration));

// Repeats a call until it succeeds.
async function eventually(run) {
  for (;;) {
    try {
      return await run();
    } catch {
      await pause(100);
    }
  }
}

// Collects the events of a watcher as words.
class Events {
  constructor(watcher) {
    this.found = [];
    this.waiting = () => {};
    const add = word => {
      this.found.push(word);
      this.waiting();
    };
    watcher.on('put', (kv, before) => {
      const end = before && before.key.length ? ` after ${before.value}` : '';
      add(`PUT ${kv.key} ${kv.value}${end}`);
    });
    watcher.on('delete', (kv, before) => {
      add(`DELETE ${kv.key}${before && before.key.length ? ` after ${before.value}` : ''}`);
    });
  }

  async expect(...wanted) {
    const enough = async () => {
      while (this.found.length < wanted.length) {
        await new Promise(resolve => (this.waiting = resolve));
      }
    };
    await soon(wanted.join(', '), enough());
    same('events', this.found.splice(0, wanted.length), wanted);
  }
}

const steps = [];
const step = (name, run) => steps.push([name, run]);

step('put and get', async () => {
  const first = await client.put('kv/a').value('one');
  same('value', await client.get('kv/a'), 'one');
  const answer = await client.get('kv/a').exec();
  same('create revision', answer.kvs[0].create_revision, first.header.revision);
  const before = await client.put('kv/a').value('two').getPrevious();
  same('previous', before.value.toString(), 'one');
  same('old value', await client.get('kv/a').revision(first.header.revision), 'one');
  same('nothing', await client.get('kv/none'), null);
  await client.put('kv/a').touch();
  same('version', (await client.get('kv/a').exec()).kvs[0].version, '3');
});

step('values of every kind', async () => {
  await client.put('kv/n').value(42);
  same('number', await client.get('kv/n').number(), 42);
  await client.put('kv/j').value(JSON.stringify({ a: [1] }));
  same('json', await client.get('kv/j').json(), { a: [1] });
  const bytes = Buffer.from([0, 255, 254]);
  await client.put(bytes).value(bytes);
  same('bytes', (await client.get(bytes).buffer()).equals(bytes), true);
  const large = 'x'.repeat(1_000_000);
  await client.put('kv/l').value(large);
  same('large value is equal', (await client.get('kv/l')) === large, true);
  await client.put('kv/e').value('');
  same('empty', await client.get('kv/e').string(), '');
});

step('what is refused', async () => {
  await refused('key is not provided', client.put('').value('x').exec());
  await refused('requested lease not found', client.put('x').value('x').lease('404').exec());
  await refused('request is too large', client.put('x').value('x'.repeat(1_600_000)).exec());
  await refused('required revision is a future', client.get('x').revision(2 ** 40).exec());
});

step('delete', async () => {
  const gone = await client.delete().key('kv/a').getPrevious();
  same('previous', gone.map(kv => kv.value.toString()), ['two']);
  same('deleted again', (await client.delete().key('kv/a').exec()).deleted, '0');
  for (let number = 0; number < 5; number++) {
    await client.put(`del/${number}`).value('x');
  }
  const middle = client.range({ start: 'del/1', end: 'del/3' });
  same('range', (await client.delete().range(middle)).deleted, '2');
  same('prefix', (await client.delete().prefix('del/')).deleted, '3');
});

step('ranges', async () => {
  let last;
  for (let number = 0; number < 10; number++) {
    last = await client.put(`range/${number}`).value(9 - number);
  }
  const all = () => client.getAll().prefix('range/');
  same('count', await all().count(), 10);
  same('range', await client.getAll().inRange({ start: 'range/3', end: 'range/5' }).keys(), [
    'range/3',
    'range/4',
  ]);
  same('limit', await all().limit(2).strings(), { 'range/0': '9', 'range/1': '8' });
  for (const target of ['Key', 'Create', 'Mod', 'Version', 'Value']) {
    const keys = await all().sort(target, 'Ascend').limit(1).keys();
    same(target, keys, [target === 'Value' ? 'range/9' : 'range/0']);
  }
  same('descending', await all().sort('Key', 'Descend').limit(1).keys(), ['range/9']);
  const revision = Number(last.header.revision);
  same('new ones', await all().minModRevision(revision).keys(), ['range/9']);
  same('old ones', await all().maxCreateRevision(revision - 9).keys(), ['range/0']);
  same('at a revision', await all().revision(revision - 8).count(), 2);
  same('serializable', await all().serializable(true).count(), 10);
  const more = await all().limit(1).exec();
  same('more', [more.more, more.count], [true, '10']);
});

step('transactions', async () => {
  const create = () =>
    client
      .if('txn/a', 'Create', '==', 0)
      .then(client.put('txn/a').value('1'), client.put('txn/b').value('2'))
      .else(client.get('txn/a'), client.delete().key('txn/b'))
      .commit();
  same('succeeded', (await create()).succeeded, true);
  const answer = await create();
  same('succeeded', answer.succeeded, false);
  same('value', answer.responses[0].response_range.kvs[0].value.toString(), '1');
  same('deleted', answer.responses[1].response_delete_range.deleted, '1');
  const all = await client
    .if('txn/a', 'Value', '==', '1')
    .and('txn/a', 'Value', '!=', '2')
    .and('txn/a', 'Version', '>', 0)
    .and('txn/a', 'Mod', '<', 1_000_000)
    .and('txn/a', 'Lease', '==', 0)
    .commit();
  same('every comparison', all.succeeded, true);
  await refused(
    'duplicate key given in txn request',
    client
      .if('x', 'Create', '==', 0)
      .then(client.put('x').value(1), client.put('x').value(2))
      .commit(),
  );
});

step('stm', async () => {
  await client.put('stm/a').value(100);
  await client.put('stm/b').value(100);
  const transfer = number =>
    client.stm({ retries: 50, isolation: 1 }).transact(async tx => {
      const a = await tx.get('stm/a').number();
      const b = await tx.get('stm/b').number();
      await tx.put('stm/a').value(a - number);
      await tx.put('stm/b').value(b + number);
    });
  await Promise.all([1, 2, 3, 4, 5, 6].map(transfer));
  same('a', await client.get('stm/a').number(), 79);
  same('b', await client.get('stm/b').number(), 121);
});

let begin;

step('watch a prefix', async () => {
  const watcher = await client.watch().prefix('watch/').create();
  const events = new Events(watcher);
  begin = (await client.put('watch/a').value('1')).header.revision;
  await client.put('other').value('1');
  await client.put('watch/b').value('1');
  await client.delete().key('watch/a');
  await events.expect('PUT watch/a 1', 'PUT watch/b 1', 'DELETE watch/a');
  await watcher.cancel();
});

step('watch from an old revision, with previous values', async () => {
  // What is there already may come before a promise says that the watch is made.
  const watcher = client.watch().key('watch/a').startRevision(begin).withPreviousKV().watcher();
  const events = new Events(watcher);
  await events.expect('PUT watch/a 1', 'DELETE watch/a after 1');
  await client.put('watch/a').value('2');
  await events.expect('PUT watch/a 2');
  await watcher.cancel();
});

step('watch with filters', async () => {
  const watch = () => client.watch().prefix('watch/').startRevision(begin);
  const puts = watch().only('put').watcher();
  await new Events(puts).expect('PUT watch/a 1', 'PUT watch/b 1', 'PUT watch/a 2');
  await puts.cancel();
  const deletes = watch().only('delete').watcher();
  await new Events(deletes).expect('DELETE watch/a');
  await deletes.cancel();
});

step('many watches on one stream', async () => {
  const watchers = [];
  for (let number = 0; number < 50; number++) {
    watchers.push(await client.watch().key(`fan/${number % 5}`).create());
  }
  const events = watchers.map(watcher => new Events(watcher));
  for (let number = 0; number < 5; number++) {
    await client.put(`fan/${number}`).value('x');
  }
  await Promise.all(events.map((one, index) => one.expect(`PUT fan/${index % 5} x`)));
  await Promise.all(watchers.map(watcher => watcher.cancel()));
});

step('compaction', async () => {
  const old = (await client.put('compact').value('1')).header.revision;
  const now = (await client.put('compact').value('2')).header.revision;
  await client.kv.compact({ revision: now, physical: true });
  const text = 'required revision has been compacted';
  await refused(text, client.get('compact').revision(old).exec());
  await refused(text, client.kv.compact({ revision: old }));
  const watcher = client.watch().key('compact').startRevision(old).watcher();
  const error = await soon(
    'the end of the watch',
    new Promise((resolve, reject) => {
      watcher.on('error', resolve);
      watcher.on('put', () => reject(new Error('an event that was compacted')));
    }),
  );
  // The server gives no reason but the revision, which this client does not tell.
  same('the end', error.message.startsWith('Watcher canceled'), true);
});

step('leases', async () => {
  const lease = client.lease(60, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put('lease/a').value('x');
  await client.put('lease/b').value('x').lease(id);
  await client.put('lease/b').ignoreLease().value('y');
  const left = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  same('keys', left.keys.map(String).sort(), ['lease/a', 'lease/b']);
  same('granted', left.grantedTTL, '60');
  same('refreshed', (await lease.keepaliveOnce()).TTL, '60');
  const leases = await client.leaseClient.leaseLeases();
  same('listed', leases.leases.some(one => one.ID === id), true);
  const watcher = await client.watch().prefix('lease/').create();
  const events = new Events(watcher);
  await lease.revoke();
  await events.expect('DELETE lease/a', 'DELETE lease/b');
  await watcher.cancel();
  same('ttl', (await client.leaseClient.leaseTimeToLive({ ID: id })).TTL, '-1');
  await refused('requested lease not found', client.leaseClient.leaseRevoke({ ID: id }));
});

step('lease expiry and keep-alive', async () => {
  const watcher = await client.watch().prefix('expiry/').create();
  const events = new Events(watcher);
  const kept = client.lease(2);
  await kept.put('expiry/kept').value('x');
  const left = client.lease(1, { autoKeepAlive: false });
  await left.put('expiry/left').value('x');
  await events.expect('PUT expiry/kept x', 'PUT expiry/left x', 'DELETE expiry/left');
  await pause(3000);
  same('kept', await client.get('expiry/kept'), 'x');
  await kept.revoke();
  await events.expect('DELETE expiry/kept');
  await watcher.cancel();
});

step('lock with two holders', async () => {
  const first = client.lock('held').ttl(10);
  await first.acquire();
  const second = client.lock('held').ttl(10);
  const error = await refused('', second.acquire());
  same('kind', error instanceof etcd.EtcdLockFailedError, true);
  await first.release();
  await second.acquire();
  await second.release();
  let inside = 0;
  await client.lock('held').do(async () => (inside += 1));
  same('inside', inside, 1);
});

step('election with two candidates', async () => {
  const election = client.election('office', 10);
  const observer = await election.observe();
  const changes = [];
  let changed = () => {};
  observer.on('change', value => {
    changes.push(value);
    changed();
  });
  const observed = async wanted => {
    while (observer.leader() !== wanted) {
      await soon(wanted, new Promise(resolve => (changed = resolve)));
    }
  };
  same('leader', await election.leader(), undefined);
  const first = election.campaign('first');
  await soon('the first election', first.wait());
  await observed('first');
  const second = election.campaign('second');
  await first.proclaim('still first');
  await observed('still first');
  const won = second.wait();
  await first.resign();
  await soon('the hand-over', won);
  await observed('second');
  same('leader', await election.leader(), 'second');
  await second.resign();
  await observer.cancel();
});

step('namespace', async () => {
  const space = client.namespace('space/');
  await space.put('a').value('1');
  same('keys', await space.getAll().keys(), ['a']);
  same('real key', await client.get('space/a'), '1');
});

step('status and members', async () => {
  const status = await client.maintenance.status();
  same('leader', status.leader, status.header.member_id);
  same('a size', Number(status.dbSize) > 0, true);
  const { members } = await client.cluster.memberList({});
  same('URLs', members.map(member => member.clientURLs), [[url]]);
});

step('hash, alarms, defragment', async () => {
  same('a hash', (await client.maintenance.hash()).hash > 0, true);
  await client.maintenance.alarm({ action: 'Activate', alarm: 'Nospace' });
  await refused('database space exceeded', client.put('full').value('x').exec());
  // The client leaves a server alone for a while that has refused like this.
  const disarm = () => client.maintenance.alarm({ action: 'Deactivate', alarm: 'Nospace' });
  await soon('the disarming', eventually(disarm));
  await client.put('full').value('x');
  await client.maintenance.defragment();
  same('value', await client.get('compact'), '2');
});

step('snapshot', async () => {
  const stream = await client.maintenance.snapshot();
  let bytes = 0;
  const end = new Promise((resolve, reject) => {
    stream.on('data', part => (bytes += part.blob.length));
    stream.on('end', resolve);
    stream.on('error', reject);
  });
  await soon('the end of the snapshot', end);
  same('pages and a checksum', bytes % 512, 32);
});

step('unknown member', async () => {
  await refused('member not found', client.cluster.memberRemove({ ID: '404' }));
});

async function main() {
  for (const [name, run] of steps) {
    try {
      await soon(name, run(), 3 * PATIENCE);
    } catch (error) {
      console.error(error);
      console.log(`FAILED ${name}: ${error.message}`);
      process.exit(1);
    }
    console.log(`ok ${name}`);
  }
  client.close();
}

main();
