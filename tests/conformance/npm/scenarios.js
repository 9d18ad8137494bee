// What npm's etcd3 sees of a cluster: node scenarios.js SCENARIO ENDPOINT... prints one line of JSON.
// A scenario that talks with the test prints further lines before it and reads lines from its input.

// TLS_CA, TLS_CERT and TLS_KEY in the environment name the files for TLS.

const { readFileSync } = require('node:fs');
const readline = require('node:readline');
const { once } = require('node:events');
const { Etcd3, EtcdLockFailedError, Range } = require('etcd3');

let lines; // of standard input
const say = what => process.stdout.write(JSON.stringify(what) + '\n');
const event = async (emitter, name) => (await once(emitter, name))[0];

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('was not refused');
}

const scenarios = {
  async kv(client) {
    await client.put('kv/a').value('1');
    await client.put('kv/b').value(Buffer.from([0, 255]));
    const all = client.getAll().prefix('kv/');
    const seen = {
      text: await client.get('kv/a').string(),
      number: await client.get('kv/a').number(),
      bytes: [...(await client.get('kv/b').buffer())],
      missing: await client.get('kv/c').string(),
      descending: await client.getAll().prefix('kv/').sort('Key', 'Descend').keys(),
      limited: await client.getAll().prefix('kv/').limit(1).strings(),
      count: await all.count(),
      deleted: (await client.delete().prefix('kv/')).deleted,
    };
    return { ...seen, left: await client.getAll().prefix('kv/').keys() };
  },

  async txn(client) {
    const buy = () =>
      client
        .if('txn/stock', 'Value', '==', '1')
        .and('txn/buyer', 'Create', '==', 0)
        .then(client.put('txn/buyer').value('me'), client.delete().key('txn/stock'))
        .else(client.get('txn/buyer'))
        .commit();
    await client.put('txn/stock').value('1');
    const [won, lost] = [await buy(), await buy()];
    return {
      succeeded: [won.succeeded, lost.succeeded],
      deleted: won.responses[1].response_delete_range.deleted,
      buyer: lost.responses[0].response_range.kvs[0].value.toString(),
    };
  },

  async stm(client) {
    await client.put('stm/counter').value(0);
    const add = () =>
      client.stm({ retries: 100 }).transact(async tx => {
        const count = await tx.get('stm/counter').number();
        await tx.put('stm/counter').value(count + 1);
      });
    await Promise.all(Array.from({ length: 10 }, add));
    return client.get('stm/counter').number();
  },

  async watch(client) {
    const { header } = await client.put('watch/a').value('old');
    const seen = [];
    const note = kind => (kv, before) => {
      seen.push([kind, kv.key.toString(), kv.value.toString(), before ? before.value.toString() : null]);
    };
    const deletions = await client.watch().prefix('watch/').only('delete').create();
    const deleted = event(deletions, 'delete');
    const watcher = client.watch().prefix('watch/').withPreviousKV().startRevision(header.revision).watcher();
    watcher.on('put', note('put')).on('delete', note('delete'));
    const last = new Promise(resolve => watcher.on('put', kv => kv.key.toString() === 'watch/last' && resolve()));
    await client.put('watch/a').value('new');
    await client.delete().key('watch/a');
    await client.put('elsewhere').value('unseen');
    await client.put('watch/last').value('');
    const filtered = (await deleted).key.toString();
    await last;
    await Promise.all([watcher.cancel(), deletions.cancel()]);
    await client.put('watch/a').value('after the end');
    return { seen, filtered };
  },

  async lease(client) {
    const lease = client.lease(3);
    await lease.put('lease/a').value('1');
    const renewed = await event(lease, 'keepaliveSucceeded'); // by itself, after a third of the TTL
    const attached = (await client.get('lease/a').exec()).kvs[0].lease === (await lease.grant());
    const once = (await lease.keepaliveOnce()).TTL;
    await lease.revoke();
    const short = client.lease(2, { autoKeepAlive: false });
    const watcher = await client.watch().key('lease/short').create();
    await short.put('lease/short').value('1');
    await event(watcher, 'delete');
    const lost = client.lease(3);
    const told = event(lost, 'lost');
    await client.leaseClient.leaseRevoke({ ID: await lost.grant() });
    const failure = (await told).constructor.name;
    return { renewed: renewed.TTL, once, attached, left: await client.getAll().prefix('lease/').keys(), failure };
  },

  async lock(client, endpoints) {
    const other = new Etcd3({ hosts: endpoints });
    const mine = await client.lock('lock/a').ttl(10).acquire();
    const failure = await refused(other.lock('lock/a').acquire());
    await mine.release();
    const result = await other.lock('lock/a').do(() => 'done');
    other.close();
    return { refused: failure instanceof EtcdLockFailedError, result, left: await client.getAll().prefix('lock/').keys() };
  },

  async election(client) {
    const election = client.election('npm', 10);
    const first = election.campaign('first');
    await first.wait();
    const observer = await election.observe();
    const leaders = [observer.leader()];
    observer.on('change', leader => leaders.push(leader));
    const changed = () => event(observer, 'change');
    const second = election.campaign('second');
    const elected = second.wait();
    await event(second, '_isWaiting');
    const proclaimed = changed();
    await first.proclaim('still first');
    await proclaimed;
    await first.resign();
    await elected;
    while (leaders.at(-1) !== 'second') await changed();
    const asked = await election.leader();
    await observer.cancel();
    await second.resign();
    return { leaders: leaders.filter(leader => leader !== undefined), asked, left: (await election.leader()) ?? null };
  },

  async candidate(client) {
    const campaign = client.election('mixed', 10).campaign('from npm');
    await event(campaign, '_isWaiting');
    say('waiting');
    await campaign.wait();
    say('elected');
    await lines.next();
    await campaign.resign();
    return 'resigned';
  },

  async volume(client) {
    const value = Buffer.alloc(1_000_000, 'x');
    const names = Array.from({ length: 500 }, (_, number) => `volume/small/${number}`);
    await Promise.all(names.map(name => client.put(name).value(name)));
    const read = await Promise.all(names.map(name => client.get(name).string()));
    const large = Array.from({ length: 3 }, (_, number) => `volume/large/${number}`);
    await Promise.all(large.map(name => client.put(name).value(value)));
    const found = await client.getAll().prefix('volume/large/').buffers();
    return {
      small: read.every((text, number) => text === names[number]),
      large: Object.values(found).filter(bytes => bytes.equals(value)).length,
    };
  },

  async errors(client) {
    const future = await refused(client.getAll().prefix('a').revision('999999').exec());
    const empty = await refused(client.put('').value('1').exec());
    const unknown = await refused(client.leaseClient.leaseRevoke({ ID: '12345' }));
    return [future, empty, unknown].map(error => [error.constructor.name, error.message]);
  },

  async cluster(client) {
    const { members } = await client.cluster.memberList({});
    const { leader, version } = await client.maintenance.status({});
    return { members: members.map(member => member.clientURLs), leads: leader !== '0', version: version.split('.')[0] };
  },

  async users(client, endpoints) {
    const role = client.role('reader');
    await role.create();
    await role.grant({ permission: 'Read', range: Range.prefix('open/') });
    const user = client.user('reader');
    await user.create('secret');
    await user.addRole('reader');
    const root = client.user('root');
    await root.create('secret');
    await client.role('root').create();
    await root.addRole('root');
    await client.auth.authEnable();
    const open = (username, password) => new Etcd3({ hosts: endpoints, auth: { username, password } });
    const [reader, wrong, admin] = [open('reader', 'secret'), open('reader', 'wrong'), open('root', 'secret')];
    await admin.put('open/a').value('1');
    const seen = await reader.get('open/a').string();
    const failures = [await refused(reader.put('open/a').value('2').exec()), await refused(wrong.get('open/a').string())];
    await admin.auth.authDisable();
    for (const each of [reader, wrong, admin]) each.close();
    return { seen, failures: failures.map(error => error.message) };
  },

  // For each line of input a put, answered when the watcher has seen it: nodes may die in between.
  async relay(client) {
    const watcher = await client.watch().prefix('relay/').create();
    const seen = [];
    watcher.on('put', kv => {
      seen.push(kv.value.toString());
      say(kv.value.toString());
    });
    say('ready');
    for await (const line of lines) {
      for (let written = false; !written; ) {
        try {
          await client.put(`relay/${line}`).value(line);
          written = true;
        } catch (error) {
          process.stderr.write(`${line}: ${error}\n`);
        }
      }
    }
    return seen;
  },
};

async function main([scenario, ...endpoints]) {
  const input = readline.createInterface({ input: process.stdin });
  lines = input[Symbol.asyncIterator]();
  const file = name => readFileSync(process.env[name]);
  const credentials = process.env.TLS_CA
    ? { rootCertificate: file('TLS_CA'), certChain: file('TLS_CERT'), privateKey: file('TLS_KEY') }
    : undefined;
  const client = new Etcd3({ hosts: endpoints, credentials });
  const outcome = JSON.stringify(await scenarios[scenario](client, endpoints));
  client.close();
  process.stdout.write(`${outcome}\n`, () => process.exit(0)); // a revoked lease of this client may leave its timer running
}

main(process.argv.slice(2)).catch(error => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
