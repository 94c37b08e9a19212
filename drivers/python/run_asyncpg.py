"""asyncpg: binary everywhere, prepared statements for everything."""

import asyncio
import datetime as dt
import io

import asyncpg

from common import LARGE, VALUES, expect_async, feature_async, finish, tell


class Connected:
    """`async with Connected() as c`"""

    def __init__(self, **options):
        self.options = options

    async def __aenter__(self):
        self.connection = await asyncpg.connect(timeout=20, **self.options)
        return self.connection

    async def __aexit__(self, *_):
        await self.connection.close(timeout=10)


def rows(found):
    return [tuple(row) for row in found]


async def simple():
    async with Connected() as c:
        return rows(await c.fetch("SELECT * FROM fruit ORDER BY id")), await c.execute("SELECT 1; SELECT 2")


async def several_statements():
    async with Connected() as c:
        return await c.execute("CREATE TEMP TABLE t (x int); INSERT INTO t VALUES (1), (2); SELECT * FROM t")


async def syntax_error():
    async with Connected() as c:
        return await expect_async(asyncpg.PostgresError, c.fetch("SELEC")), await c.fetchval("SELECT 1")


async def types():
    async with Connected() as c:
        found = [(t, await c.fetchval(f"SELECT $1::{t}", v)) for t, v in VALUES]
        return found, await c.fetchval("SELECT $1::jsonb", '{"a": 1}'), await c.fetchval("SELECT $1::int4range", asyncpg.Range(1, 9))


async def everything():
    async with Connected() as c:
        return rows(await c.fetch("SELECT * FROM everything WHERE id = 1"))


async def null():
    async with Connected() as c:
        return tuple(await c.fetchrow("SELECT $1::int, $2::text", None, None))


async def large():
    async with Connected() as c:
        return await c.fetchval("SELECT $1::text", LARGE) == LARGE, await c.fetchval("SELECT $1::bytea", LARGE.encode()) == LARGE.encode()


async def prepared():
    async with Connected() as c:
        by_id = await c.prepare("SELECT name FROM fruit WHERE id = $1")
        parts = [(a.name, a.type.name) for a in by_id.get_attributes()], [p.name for p in by_id.get_parameters()]
        return parts, [await by_id.fetchval(n % 3 + 1) for n in range(10)]


async def prepared_changes():
    async with Connected() as c:
        await c.execute("CREATE TEMP TABLE shape (a int)")
        await c.execute("INSERT INTO shape VALUES (1)")
        before = rows(await c.fetch("SELECT * FROM shape"))
        await c.execute("ALTER TABLE shape ADD b int")
        return before, rows(await c.fetch("SELECT * FROM shape"))


async def commit():
    async with Connected() as c:
        async with c.transaction():
            await c.execute("CREATE TABLE kept (a int)")
            await c.execute("INSERT INTO kept VALUES ($1)", 1)
        return await c.fetchval("SELECT count(*) FROM kept")


async def rollback():
    async with Connected() as c:
        t = c.transaction(isolation="serializable")
        await t.start()
        await c.execute("DELETE FROM fruit")
        await t.rollback()
        return await c.fetchval("SELECT count(*) FROM fruit")


async def savepoints():
    async with Connected() as c:
        async with c.transaction():
            await c.execute("CREATE TEMP TABLE s (a int)")
            try:
                async with c.transaction():
                    await c.execute("INSERT INTO s VALUES (1)")
                    await c.fetchval("SELECT 1/0")
            except asyncpg.DivisionByZeroError:
                pass
            await c.execute("INSERT INTO s VALUES (2)")
        return rows(await c.fetch("SELECT * FROM s"))


async def error_then_on():
    async with Connected() as c:
        errors = [await expect_async(asyncpg.PostgresError, c.fetch(s)) for s in ("SELECT 1/0", "SELECT * FROM nowhere", "INSERT INTO fruit VALUES (1, 'x', 1)")]
        return errors, await c.fetchval("SELECT 1")


async def batch():
    async with Connected() as c:
        await c.execute("CREATE TEMP TABLE m (a int, b text)")
        await c.executemany("INSERT INTO m VALUES ($1, $2)", [(n, f"row {n}") for n in range(1000)])
        error = await expect_async(asyncpg.PostgresError, c.executemany("INSERT INTO m VALUES (1 / $1::int, '')", [(1,), (0,)]))
        return error, tuple(await c.fetchrow("SELECT count(*), sum(a) FROM m"))


async def cursor():
    async with Connected() as c, c.transaction():
        total = 0
        async for row in c.cursor("SELECT n FROM numbers ORDER BY n", prefetch=500):
            total += row[0]
        back = await c.cursor("SELECT n FROM numbers ORDER BY n")
        await back.forward(100)
        return total, rows(await back.fetch(2))


async def copy_in():
    async with Connected() as c:
        await c.execute("CREATE TEMP TABLE copied (a int, b text, c timestamptz)")
        when = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
        done = await c.copy_records_to_table("copied", records=[(n, f"r {n}", when) for n in range(10000)])
        return done, tuple(await c.fetchrow("SELECT count(*), sum(a), min(c) FROM copied"))


async def copy_in_csv():
    async with Connected() as c:
        await c.execute("CREATE TEMP TABLE copied (a int, b text)")
        return await c.copy_to_table("copied", source=io.BytesIO(b'1,"x, y"\n2,\n'), format="csv"), rows(await c.fetch("SELECT * FROM copied"))


async def copy_out(**options):
    async with Connected() as c:
        out = io.BytesIO()
        done = await c.copy_from_query("SELECT n, word FROM numbers ORDER BY n", output=out, **options)
        return done, out.getvalue()


async def cancel():
    async with Connected() as c:
        return type(await timed_out(c.fetchval("SELECT pg_sleep(60)", timeout=0.3))).__name__, await c.fetchval("SELECT 1")


async def timed_out(awaitable):
    try:
        await awaitable
    except Exception as error:
        return error


async def notifications():
    async with Connected() as listener, Connected() as speaker:
        heard = asyncio.Queue()
        await listener.add_listener("news", lambda _c, _pid, channel, payload: heard.put_nowait((channel, payload)))
        await speaker.execute("NOTIFY news, 'first'")
        return await asyncio.wait_for(heard.get(), 10)


async def notices():
    async with Connected() as c:
        heard = []
        c.add_log_listener(lambda _c, message: heard.append((message.severity, message.message)))
        await c.execute("SELECT shout('hello')")
        await asyncio.sleep(0)
        return heard


async def pool():
    async with asyncpg.create_pool(min_size=1, max_size=1, timeout=20) as p:
        async with p.acquire() as c:
            await c.execute("SET search_path = nowhere")
        async with p.acquire() as c:
            return await c.fetchval("SHOW search_path")


async def many_at_once():
    async with asyncpg.create_pool(min_size=2, max_size=8, timeout=20) as p:
        return sum(await asyncio.gather(*(p.fetchval("SELECT $1::int * 2", n) for n in range(200))))


async def settings():
    async with Connected(server_settings={"search_path": "pg_catalog", "application_name": "drivers"}) as c:
        version = c.get_server_version()
        return await c.fetchval("SHOW search_path"), c.get_settings().TimeZone, version.major


async def settings_jit():
    async with Connected(server_settings={"jit": "off"}) as c:
        return await c.fetchval("SHOW jit")


async def custom_types():
    async with Connected() as c:
        await c.set_type_codec("jsonb", encoder=str, decoder=len, schema="pg_catalog")
        point = await c.fetchval("SELECT '(1,2,3)'::point3")
        return tuple(point), await c.fetchval("SELECT $1::point3", (4, 5, 6)), await c.fetchval("SELECT '{}'::jsonb"), await c.fetchval("SELECT $1::mood", "happy")


async def introspection():
    async with Connected() as c:
        return await c.fetchval("SELECT ARRAY['(1,2,3)'::point3]"), rows(await c.fetch("SELECT feeling, place, bounds, how_many FROM everything ORDER BY id"))


async def main():
    tell("version", f"asyncpg {asyncpg.__version__}")
    for name, check in {
        "simple query": simple, "several statements, one depends": several_statements, "types, binary": types, "every column type, binary": everything,
        "null": null, "large text": large, "prepared reuse": prepared, "prepared, changed table": prepared_changes, "commit": commit,
        "rollback": rollback, "savepoints": savepoints, "error, then on": error_then_on, "syntax error": syntax_error, "batch": batch, "cursor, 10000 rows": cursor,
        "copy in, binary": copy_in, "copy in, csv": copy_in_csv, "copy out, text": copy_out,
        "copy out, csv": lambda: copy_out(format="csv"), "copy out, binary": lambda: copy_out(format="binary"), "cancel": cancel,
        "listen, notify": notifications, "notices": notices, "pool, reset": pool, "pool, 8 connections": many_at_once,
        "settings": settings, "settings, jit": settings_jit, "custom types": custom_types, "type introspection": introspection,
    }.items():
        await feature_async(name, check)
    finish()


asyncio.run(main())
