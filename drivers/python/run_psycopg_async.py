"""psycopg 3, asynchronous: what differs from the synchronous side, and much at once."""

import asyncio

import psycopg
import psycopg_pool

from common import LARGE, VALUES, expect_async, feature_async, finish, tell


def connect(**options):
    return psycopg.AsyncConnection.connect(autocommit=True, connect_timeout=20, **options)


async def simple():
    async with await connect() as c:
        return await (await c.execute("SELECT * FROM fruit ORDER BY id")).fetchall()


async def types():
    async with await connect() as c:
        return [(t, (await (await c.execute(f"SELECT %s::{t}", (v,), binary=b)).fetchone())[0]) for t, v in VALUES for b in (False, True)]


async def large():
    async with await connect() as c:
        return (await (await c.execute("SELECT %s::text", (LARGE,))).fetchone())[0] == LARGE


async def prepared_reuse():
    async with await connect() as c:
        return [(await (await c.execute("SELECT name FROM fruit WHERE id = %s", (n % 3 + 1,))).fetchone())[0] for n in range(12)]


async def transactions():
    async with await connect() as c:
        await c.execute("CREATE TEMP TABLE t (a int)")
        async with c.transaction():
            await c.execute("INSERT INTO t VALUES (1)")
            async with c.transaction(force_rollback=True):
                await c.execute("INSERT INTO t VALUES (2)")
        error = await expect_async(psycopg.Error, c.execute("SELECT 1/0"))
        return error, await (await c.execute("SELECT * FROM t")).fetchall()


async def pipeline():
    async with await connect() as c, c.pipeline():
        cursors = await asyncio.gather(*(c.execute("SELECT %s::int", (n,)) for n in range(200)))
        return sum([(await cur.fetchone())[0] for cur in cursors])


async def server_cursor():
    async with await psycopg.AsyncConnection.connect() as c, c.cursor("named") as cur:
        await cur.execute("SELECT n FROM numbers ORDER BY n")
        return sum([row[0] async for row in cur])


async def stream():
    async with await connect() as c:
        return sum([n async for (n,) in c.cursor().stream("SELECT n FROM numbers")])


async def copy():
    async with await connect() as c, c.cursor() as cur:
        await cur.execute("CREATE TEMP TABLE copied (a int, b text)")
        async with cur.copy("COPY copied FROM STDIN") as copy:
            for n in range(1000):
                await copy.write_row((n, f"row {n}"))
        async with cur.copy("COPY copied TO STDOUT") as copy:
            return len([row async for row in copy.rows()])


async def cancel():
    async with await connect() as c:
        running = asyncio.create_task(c.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.3)
        await c.cancel_safe(timeout=20)
        return await expect_async(psycopg.Error, running), await (await c.execute("SELECT 1")).fetchone()


async def task_cancelled():
    async with await connect() as c:
        running = asyncio.create_task(c.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.3)
        running.cancel()
        await asyncio.wait([running])
        return type(running.exception() if not running.cancelled() else asyncio.CancelledError()).__name__


async def notifications():
    async with await connect() as listener, await connect() as speaker:
        await listener.execute("LISTEN news")
        await speaker.execute("NOTIFY news, 'first'")
        return [(n.channel, n.payload) async for n in listener.notifies(timeout=10, stop_after=1)]


async def many_at_once():
    async with psycopg_pool.AsyncConnectionPool(kwargs={"autocommit": True}, min_size=2, max_size=8, timeout=20, open=False) as p:

        async def one(n):
            async with p.connection() as c:
                return (await (await c.execute("SELECT %s::int * 2", (n,))).fetchone())[0]

        return sum(await asyncio.gather(*(one(n) for n in range(200))))


async def main():
    tell("version", f"psycopg {psycopg.__version__}")
    for name, check in {
        "simple query": simple, "types, text": types, "large text": large, "prepared reuse": prepared_reuse, "savepoints": transactions,
        "pipeline": pipeline, "cursor, 10000 rows": server_cursor, "stream, 10000 rows": stream, "copy in, text": copy, "cancel": cancel,
        "cancel by giving up": task_cancelled, "listen, notify": notifications, "pool, 8 connections": many_at_once,
    }.items():
        await feature_async(name, check)
    finish()


asyncio.run(main())
