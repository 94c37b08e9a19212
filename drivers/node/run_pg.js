// node-postgres (pg), with its cursors, streams and COPY.
'use strict';
const fs = require('node:fs');
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const pg = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');
const copy = require('pg-copy-streams');
const { LARGE, tell, feature, expect, finish, soon } = require('./common');

async function connected(work, options = {}) {
  const client = new pg.Client({ connectionTimeoutMillis: 20000, ...options });
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const rows = async (client, text, values) => (await client.query({ text, values, rowMode: 'array' })).rows;

const values = [
  ['smallint', 32767], ['integer', 2147483647], ['bigint', '-9223372036854775808'], ['numeric', '12345678901234567890.0123456789'],
  ['double precision', 0.1], ['text', "naïve ☕ 日本 'quoted' \\ \t \n end"], ['bytea', Buffer.from([0, 1, 127, 128, 255])], ['boolean', true],
  ['date', '2024-02-29'], ['time', '12:34:56.000789'], ['timestamp', '2024-02-29 12:34:56'], ['timestamptz', new Date(1709210096789)],
  ['interval', '3 days 04:00:00'], ['uuid', '00000000-0000-4000-8000-000000000001'], ['json', JSON.stringify({ a: [1, 'é'] })],
  ['jsonb', { b: null }], ['integer[]', [1, null, 3]], ['text[]', ['a b', 'c"d', 'e,f', null]],
];

const checks = {
  connect: () => connected((c) => rows(c, 'SELECT current_user, current_database()')),
  'simple query': () => connected((c) => rows(c, 'SELECT * FROM fruit ORDER BY id')),
  'several statements': () => connected(async (c) => (await c.query('SELECT 1 AS a; SELECT 2 AS b')).map((r) => r.rows)),
  'types, text': () => connected(async (c) => {
    const found = [];
    for (const [type, value] of values) found.push([type, (await rows(c, `SELECT $1::${type}`, [value]))[0][0]]);
    return found;
  }),
  'types, binary': () => connected(async (c) => (await c.query({ text: 'SELECT $1::int AS a, $2::text AS b, $3::bigint AS c', values: [1, 'é', 7], binary: true })).rows),
  'every column type, text': () => connected((c) => rows(c, 'SELECT * FROM everything WHERE id = 1')),
  null: () => connected((c) => rows(c, 'SELECT $1::int, $2::text', [null, null])),
  'large text': () => connected(async (c) => (await rows(c, 'SELECT $1::text', [LARGE]))[0][0] === LARGE),
  'large bytea': () => connected(async (c) => (await rows(c, 'SELECT $1::bytea', [Buffer.from(LARGE)]))[0][0].equals(Buffer.from(LARGE))),
  'prepared reuse': () => connected(async (c) => {
    const found = [];
    for (let n = 0; n < 10; n += 1) found.push((await c.query({ name: 'by-id', text: 'SELECT name FROM fruit WHERE id = $1', values: [(n % 3) + 1] })).rows[0].name);
    return found;
  }),
  commit: () => connected(async (c) => {
    for (const sql of ['BEGIN', 'CREATE TABLE kept (a int)', 'INSERT INTO kept VALUES (1)', 'COMMIT']) await c.query(sql);
    return rows(c, 'SELECT count(*) FROM kept');
  }),
  rollback: () => connected(async (c) => {
    for (const sql of ['BEGIN', 'DELETE FROM fruit', 'ROLLBACK']) await c.query(sql);
    return rows(c, 'SELECT count(*) FROM fruit');
  }),
  savepoints: () => connected(async (c) => {
    for (const sql of ['BEGIN', 'CREATE TEMP TABLE s (a int)', 'SAVEPOINT a']) await c.query(sql);
    const error = await expect(c.query('SELECT 1/0'));
    for (const sql of ['ROLLBACK TO SAVEPOINT a', 'INSERT INTO s VALUES (1)', 'COMMIT']) await c.query(sql);
    return [error, await rows(c, 'SELECT * FROM s')];
  }),
  'error, then on': () => connected(async (c) => [await expect(c.query('SELECT 1/0')), await expect(c.query('SELECT * FROM nowhere WHERE a = $1', [1])), await rows(c, 'SELECT 1')]),
  'syntax error': () => connected(async (c) => [await expect(c.query('SELEC')), await rows(c, 'SELECT 1')]),
  'error fields': () => connected((c) => c.query("INSERT INTO fruit VALUES (1, 'x', 1)").catch((e) => [e.code, e.severity, e.detail, e.schema, e.table, e.constraint])),
  batch: () => connected(async (c) => {
    const found = await Promise.all(Array.from({ length: 200 }, (_, n) => rows(c, 'SELECT $1::int', [n])));
    return found.reduce((sum, [[n]]) => sum + n, 0);
  }),
  'cursor, 10000 rows': () => connected(async (c) => {
    const cursor = c.query(new Cursor('SELECT n FROM numbers WHERE n > $1 ORDER BY n', [0]));
    let total = 0;
    for (let found = await cursor.read(1000); found.length > 0; found = await cursor.read(1000)) for (const { n } of found) total += n;
    await cursor.close();
    const early = c.query(new Cursor('SELECT n FROM numbers ORDER BY n'));
    const first = await early.read(3);
    await early.close();
    return [total, first, await rows(c, 'SELECT 1')];
  }),
  'stream, 10000 rows': () => connected(async (c) => {
    let total = 0;
    for await (const { n } of c.query(new QueryStream('SELECT n FROM numbers', [], { batchSize: 500 }))) total += n;
    return total;
  }),
  'copy in, text': () => connected(async (c) => {
    await c.query('CREATE TEMP TABLE copied (a int, b text)');
    await pipeline(Readable.from(Array.from({ length: 10000 }, (_, n) => `${n}\tr ${n}\n`)), c.query(copy.from('COPY copied FROM STDIN')));
    return rows(c, 'SELECT count(*), sum(a) FROM copied');
  }),
  'copy in, csv': () => connected(async (c) => {
    await c.query('CREATE TEMP TABLE copied (a int, b text)');
    await pipeline(Readable.from(['1,"x, y"\n']), c.query(copy.from('COPY copied FROM STDIN (FORMAT csv)')));
    return rows(c, 'SELECT * FROM copied');
  }),
  'copy in, error': () => connected(async (c) => {
    await c.query('CREATE TEMP TABLE copied (a int)');
    const error = await expect(pipeline(Readable.from(['x\n']), c.query(copy.from('COPY copied FROM STDIN'))));
    return [error, await rows(c, 'SELECT count(*) FROM copied')];
  }),
  ...Object.fromEntries([['text', ''], ['csv', '(FORMAT csv)'], ['binary', '(FORMAT binary)']].map(([format, options]) => [
    `copy out, ${format}`,
    () => connected(async (c) => {
      const parts = [];
      for await (const part of c.query(copy.to(`COPY numbers TO STDOUT ${options}`))) parts.push(part);
      return Buffer.concat(parts);
    }),
  ])),
  cancel: () => connected((c) => connected(async (other) => {
    const [[pid]] = await rows(c, 'SELECT pg_backend_pid()');
    const running = expect(c.query('SELECT pg_sleep(60)'));
    await soon(300);
    const told = await rows(other, 'SELECT pg_cancel_backend($1)', [pid]);
    return [told, await running];
  })),
  'cancel request': () => connected(async (c) => {
    const running = expect(c.query('SELECT pg_sleep(60)'));
    await soon(300);
    const other = new pg.Client();
    other.on('error', () => {});
    other.connection.on('end', () => {});
    other.connection.connect(Number(process.env.PGPORT), process.env.PGHOST);
    other.connection.once('connect', () => other.connection.cancel(c.processID, c.secretKey));
    return [await running, await rows(c, 'SELECT 1')];
  }, { ssl: false }),
  'query timeout': () => connected(async (c) => expect(c.query('SELECT pg_sleep(60)')), { statement_timeout: 300 }),
  'listen, notify': () => connected((listener) => connected(async (speaker) => {
    const heard = new Promise((resolve) => listener.on('notification', (m) => resolve([m.channel, m.payload])));
    await listener.query('LISTEN news');
    await speaker.query("SELECT pg_notify('news', $1)", ['first']);
    return Promise.race([heard, soon(10000).then(() => 'nothing came')]);
  })),
  notices: () => connected(async (c) => {
    const heard = [];
    c.on('notice', (n) => heard.push([n.severity, n.message]));
    await c.query("SELECT shout('hello')");
    return heard;
  }),
  'pool, reset': async () => {
    const pool = new pg.Pool({ max: 1 });
    const c = await pool.connect();
    await c.query("SET search_path = 'nowhere'");
    await c.query('DISCARD ALL');
    c.release();
    const found = await pool.query({ text: 'SHOW search_path', rowMode: 'array' });
    await pool.end();
    return found.rows;
  },
  'pool, 8 connections': async () => {
    const pool = new pg.Pool({ max: 8 });
    const found = await Promise.all(Array.from({ length: 200 }, (_, n) => pool.query('SELECT $1::int AS n', [n])));
    await pool.end();
    return found.reduce((sum, r) => sum + r.rows[0].n, 0);
  },
  settings: () => connected((c) => rows(c, "SELECT current_setting('search_path'), current_setting('application_name'), current_setting('statement_timeout')"), {
    options: '-c search_path=pg_catalog', application_name: 'drivers', statement_timeout: 5000,
  }),
  'settings, more': () => connected((c) => rows(c, 'SHOW lock_timeout'), { lock_timeout: 4000, idle_in_transaction_session_timeout: 3000 }),
  'TLS, verify-full': () => connected((c) => rows(c, 'SELECT 1'), { ssl: { ca: fs.readFileSync(process.env.DRIVERS_CA), servername: 'localhost' } }),
  'direct TLS': () => connected((c) => rows(c, 'SELECT 1'), { ssl: { ca: fs.readFileSync(process.env.DRIVERS_CA), servername: 'localhost' }, sslnegotiation: 'direct' }),
};

(async () => {
  tell('version', `pg ${require('pg/package.json').version}`);
  for (const [name, check] of Object.entries(checks)) await feature(name, check);
  finish();
  process.exit(0);
})();
