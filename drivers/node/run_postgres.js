// postgres.js.
'use strict';
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');
const postgres = require('postgres');
const { LARGE, tell, feature, expect, finish, soon } = require('./common');

async function connected(work, options = {}) {
  const sql = postgres({ max: 1, connect_timeout: 20, onnotice: () => {}, ...options });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 2 });
  }
}

const checks = {
  connect: () => connected((sql) => sql`SELECT current_user, current_database()`),
  'simple query': () => connected((sql) => sql.unsafe('SELECT * FROM fruit ORDER BY id').simple()),
  'several statements': () => connected((sql) => sql.unsafe('SELECT 1 AS a; SELECT 2 AS b').simple()),
  'types, text': () => connected(async (sql) => [
    await sql`SELECT ${1}::int AS a, ${'9007199254740993'}::bigint AS b, ${'1.50'}::numeric AS c, ${0.1}::float8 AS d, ${'naïve ☕ \n'}::text AS e`,
    await sql`SELECT ${Buffer.from([0, 255])}::bytea AS a, ${true}::bool AS b, ${new Date(1709210096789)}::timestamptz AS c, ${sql.json({ x: [1] })}::jsonb AS d`,
    await sql`SELECT ${sql.array([1, 2])}::int[] AS a, ${sql.array(['a b', 'c"d'])}::text[] AS b, ${'00000000-0000-4000-8000-000000000001'}::uuid AS c, ${'3 days'}::interval AS d`,
  ]),
  'every column type, text': () => connected((sql) => sql`SELECT * FROM everything WHERE id = 1`),
  null: () => connected((sql) => sql`SELECT ${null}::int AS a, ${null}::text AS b`),
  'large text': () => connected(async (sql) => (await sql`SELECT ${LARGE}::text AS a`)[0].a === LARGE),
  'prepared reuse': () => connected((sql) => Promise.all(Array.from({ length: 12 }, async (_, n) => (await sql`SELECT name FROM fruit WHERE id = ${(n % 3) + 1}`)[0].name))),
  'without prepared statements': () => connected((sql) => sql`SELECT name FROM fruit WHERE id = ${1}`, { prepare: false }),
  description: () => connected(async (sql) => (await sql`SELECT * FROM fruit`.describe()).columns.map((c) => [c.name, c.type])),
  commit: () => connected(async (sql) => {
    await sql.begin(async (t) => {
      await t`CREATE TABLE kept (a int)`;
      await t`INSERT INTO kept ${t([{ a: 1 }, { a: 2 }])}`;
    });
    return sql`SELECT count(*) FROM kept`;
  }),
  rollback: () => connected(async (sql) => [await expect(sql.begin(async (t) => { await t`DELETE FROM fruit`; throw new Error('no'); })), await sql`SELECT count(*) FROM fruit`]),
  savepoints: () => connected((sql) => sql.begin(async (t) => {
    const error = await expect(t.savepoint((s) => s`SELECT 1/0`));
    return [error, await t`SELECT 1 AS a`];
  })),
  'pipelined transaction': () => connected((sql) => sql.begin((t) => [t`SELECT 1 AS a`, t`SELECT 2 AS b`])),
  'error, then on': () => connected(async (sql) => [await expect(sql`SELECT 1/0`), await expect(sql`SELECT * FROM nowhere`), await sql`SELECT 1 AS a`]),
  batch: () => connected(async (sql) => (await Promise.all(Array.from({ length: 300 }, (_, n) => sql`SELECT ${n}::int AS n`))).reduce((sum, [{ n }]) => sum + n, 0)),
  'cursor, 10000 rows': () => connected(async (sql) => {
    let total = 0;
    for await (const found of sql`SELECT n FROM numbers ORDER BY n`.cursor(1000)) for (const { n } of found) total += n;
    return total;
  }),
  'stream, 10000 rows': () => connected(async (sql) => {
    let total = 0;
    await sql`SELECT n FROM numbers`.forEach(({ n }) => { total += n; });
    return total;
  }),
  'copy in, text': () => connected(async (sql) => {
    await sql`CREATE TABLE copied (a int, b text)`;
    await pipeline(Readable.from(Array.from({ length: 10000 }, (_, n) => `${n}\tr ${n}\n`)), await sql`COPY copied FROM STDIN`.writable());
    return sql`SELECT count(*), sum(a) FROM copied`;
  }),
  'copy out, text': () => connected(async (sql) => {
    const parts = [];
    for await (const part of await sql`COPY numbers TO STDOUT`.readable()) parts.push(part);
    return Buffer.concat(parts);
  }),
  cancel: () => connected(async (sql) => {
    await sql`SELECT 1`;
    const query = sql`SELECT pg_sleep(60)`;
    const running = expect(query.execute());
    await soon(1000);
    query.cancel();
    return [await running, await sql`SELECT 1 AS a`];
  }),
  'listen, notify': () => connected(async (sql) => {
    let hear;
    const heard = new Promise((resolve) => { hear = resolve; });
    await sql.listen('news', hear);
    await sql.notify('news', 'first');
    return Promise.race([heard, soon(10000).then(() => 'nothing came')]);
  }, { max: 2 }),
  notices: async () => {
    const heard = [];
    await connected((sql) => sql`SELECT shout('hello')`, { onnotice: (n) => heard.push([n.severity, n.message]) });
    return heard;
  },
  'pool, 8 connections': () => connected(async (sql) => (await Promise.all(Array.from({ length: 200 }, (_, n) => sql`SELECT ${n}::int AS n`))).reduce((sum, [{ n }]) => sum + n, 0), { max: 8 }),
  'pool, reset': () => connected(async (sql) => {
    const one = await sql.reserve();
    await one`SET search_path = nowhere`;
    await one.unsafe('DISCARD ALL').simple();
    one.release();
    return sql`SHOW search_path`;
  }, { prepare: false }),
  settings: () => connected((sql) => sql`SELECT current_setting('search_path') AS a, current_setting('application_name') AS b`, { connection: { application_name: 'drivers', search_path: 'pg_catalog' } }),
  'TLS, verify-full': () => connected((sql) => sql`SELECT 1 AS a`, { ssl: { ca: require('node:fs').readFileSync(process.env.DRIVERS_CA), servername: 'localhost' } }),
};

(async () => {
  tell('version', `postgres.js ${require('./package.json').dependencies.postgres}`);
  for (const [name, check] of Object.entries(checks)) await feature(name, check);
  finish();
  process.exit(0);
})();
