"""psycopg2."""

import io
import select
import uuid

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from common import LARGE, VALUES, expect, feature, finish, soon, tell

psycopg2.extras.register_uuid()


def connect(autocommit=True, **options):
    c = psycopg2.connect("", connect_timeout=20, **options)
    c.autocommit = autocommit
    return c


def one(sql, *arguments):
    c = connect()
    cur = c.cursor()
    cur.execute(sql, arguments or None)
    return cur.fetchone()


def simple():
    cur = connect().cursor()
    cur.execute("SELECT * FROM fruit ORDER BY id")
    return cur.rowcount, cur.fetchall(), cur.statusmessage


def several_statements(sql):
    cur = connect().cursor()
    cur.execute(sql)
    return cur.fetchall()


def types():
    cur = connect().cursor()
    found = []
    for sql_type, value in VALUES:
        cur.execute(f"SELECT %s::{sql_type}", (value,))
        got = cur.fetchone()[0]
        found.append((sql_type, bytes(got) if isinstance(got, memoryview) else got))
    cur.execute("SELECT %s::jsonb, %s::int4range, %s", (psycopg2.extras.Json({"a": 1}), psycopg2.extras.NumericRange(1, 9), uuid.UUID(int=7)))
    return found, cur.fetchone()


def everything():
    cur = connect().cursor()
    cur.execute("SELECT * FROM everything WHERE id = 1")
    return [bytes(v) if isinstance(v, memoryview) else v for v in cur.fetchone()]


def prepared():
    cur = connect().cursor()
    cur.execute("PREPARE by_id (int) AS SELECT name FROM fruit WHERE id = $1")
    found = []
    for n in range(6):
        cur.execute("EXECUTE by_id (%s)", (n % 3 + 1,))
        found.append(cur.fetchone())
    cur.execute("DEALLOCATE by_id")
    return found


def commit():
    with connect(False) as c, c.cursor() as cur:
        cur.execute("CREATE TABLE kept (a int)")
        cur.execute("INSERT INTO kept VALUES (1)")
    return one("SELECT count(*) FROM kept")


def rollback():
    c = connect(False)
    cur = c.cursor()
    cur.execute("DELETE FROM fruit")
    c.rollback()
    cur.execute("SELECT count(*) FROM fruit")
    return cur.fetchone()


def savepoints():
    cur = connect(False).cursor()
    cur.execute("CREATE TEMP TABLE s (a int)")
    cur.execute("SAVEPOINT a")
    error = expect(psycopg2.Error, cur.execute, "SELECT 1/0")
    cur.execute("ROLLBACK TO SAVEPOINT a")
    cur.execute("INSERT INTO s VALUES (1)")
    cur.execute("RELEASE SAVEPOINT a")
    cur.execute("SELECT * FROM s")
    return error, cur.fetchall()


def isolation():
    c = connect(False)
    c.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
    cur = c.cursor()
    cur.execute("SHOW transaction_isolation")
    return cur.fetchone(), expect(psycopg2.Error, cur.execute, "DELETE FROM fruit")


def error_then_on():
    cur = connect().cursor()
    errors = [expect(psycopg2.Error, cur.execute, s) for s in ("SELECT 1/0", "SELECT * FROM nowhere")]
    cur.execute("SELECT 1")
    return errors, cur.fetchone()


def batch():
    cur = connect().cursor()
    cur.execute("CREATE TEMP TABLE m (a int, b text)")
    cur.executemany("INSERT INTO m VALUES (%s, %s)", [(n, "x") for n in range(50)])
    psycopg2.extras.execute_batch(cur, "INSERT INTO m VALUES (%s, %s)", [(n, "y") for n in range(500)])
    psycopg2.extras.execute_values(cur, "INSERT INTO m VALUES %s", [(n, "z") for n in range(500)])
    cur.execute("SELECT b, count(*) FROM m GROUP BY b ORDER BY b")
    return cur.fetchall()


def server_cursor():
    cur = connect(False).cursor("named")
    cur.itersize = 1000
    cur.execute("SELECT n FROM numbers ORDER BY n")
    return sum(n for (n,) in cur)


def scroll():
    cur = connect(False).cursor("back", scrollable=True, withhold=True)
    cur.execute("SELECT n FROM numbers ORDER BY n")
    cur.scroll(100)
    return cur.fetchone(), cur.scroll(-50), cur.fetchone()


def copy_in():
    c = connect()
    cur = c.cursor()
    cur.execute("CREATE TEMP TABLE copied (a int, b text)")
    cur.copy_from(io.StringIO("".join(f"{n}\tr {n}\n" for n in range(10000))), "copied")
    cur.copy_expert("COPY copied FROM STDIN (FORMAT csv)", io.StringIO('1,"x, y"\n'))
    cur.execute("SELECT count(*), sum(a) FROM copied")
    return cur.fetchone()


def copy_out(sql):
    out = io.BytesIO()
    connect().cursor().copy_expert(sql, out)
    return out.getvalue()


def copy_to():
    out = io.StringIO()
    connect().cursor().copy_to(out, "numbers", columns=("n",))
    return out.getvalue()


def copy_in_error():
    c = connect()
    cur = c.cursor()
    cur.execute("CREATE TEMP TABLE copied (a int)")
    error = expect(psycopg2.Error, cur.copy_from, io.StringIO("x\n"), "copied")
    cur.execute("SELECT count(*) FROM copied")
    return error, cur.fetchone()


def cancel():
    c = connect()
    cur = c.cursor()
    soon(0.3, c.cancel)
    error = expect(psycopg2.Error, cur.execute, "SELECT pg_sleep(60)")
    cur.execute("SELECT 1")
    return error, cur.fetchone()


def notifications():
    listener, speaker = connect(), connect()
    listener.cursor().execute("LISTEN news")
    speaker.cursor().execute("NOTIFY news, 'first'")
    found = []
    while not found:
        if not select.select([listener], [], [], 10)[0]:
            return "nothing came"
        listener.poll()
        found = [(n.channel, n.payload) for n in listener.notifies]
    return found


def notify_oneself():
    c = connect()
    cur = c.cursor()
    cur.execute("LISTEN news")
    cur.execute("NOTIFY news, 'to myself'")
    cur.execute("SELECT 1")
    return [(n.channel, n.payload) for n in c.notifies]


def notices():
    c = connect()
    c.cursor().execute("SELECT shout('hello')")
    return c.notices


def pool():
    p = psycopg2.pool.ThreadedConnectionPool(1, 1, "")
    c = p.getconn()
    c.cursor().execute("SET work_mem = '8MB'")
    c.commit()
    p.putconn(c)
    c = p.getconn()
    c.reset()
    cur = c.cursor()
    cur.execute("SHOW work_mem")
    shown = cur.fetchone()
    c.rollback()
    c.autocommit = True
    cur.execute("DISCARD ALL")
    return shown, cur.statusmessage


def asynchronous():
    c = psycopg2.connect("", async_=True)
    psycopg2.extras.wait_select(c)
    cur = c.cursor()
    cur.execute("SELECT 7")
    psycopg2.extras.wait_select(c)
    return cur.fetchone()


def large_objects():
    c = connect(False)
    made = c.lobject(0, "wb")
    made.write(b"large object")
    read = c.lobject(made.oid, "rb").read()
    made.unlink()
    return read


def call():
    cur = connect().cursor()
    cur.callproc("add", (2, 3))
    first = cur.fetchone()
    cur.execute("CALL touch(1)")
    return first, cur.fetchone()


def two_phase():
    c = connect(False)
    c.tpc_begin(c.xid(1, "gid", "branch"))
    c.cursor().execute("CREATE TABLE two (a int)")
    return expect(psycopg2.Error, c.tpc_prepare)


def rows_as():
    cur = connect().cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    cur.execute("SELECT id, name FROM fruit ORDER BY id")
    return [dict(row) for row in cur]


def encoding(name):
    c = connect()
    c.set_client_encoding(name)
    cur = c.cursor()
    cur.execute("SELECT 'é'")
    return cur.fetchone(), c.encoding


tell("version", f"psycopg2 {psycopg2.__version__.split()[0]}, libpq {psycopg2.__libpq_version__ // 10000}.{psycopg2.__libpq_version__ % 10000}")
feature("connect", lambda: one("SELECT current_user, current_database()"))
feature("simple query", simple)
feature("several statements", several_statements, "SELECT 1; SELECT 2, 3")
feature("several statements, one depends", several_statements, "CREATE TEMP TABLE t (x int); INSERT INTO t VALUES (1), (2); SELECT * FROM t")
feature("types, text", types)
feature("every column type, text", everything)
feature("null", lambda: one("SELECT %s::int, %s::text", None, None))
half = LARGE[: len(LARGE) // 2]
feature("large text", lambda: one("SELECT %s::text || %s::text", half[: len(half) // 2], half)[0] == half[: len(half) // 2] + half)
feature("large text, 1 MiB inside the statement", lambda: one("SELECT %s::text", LARGE)[0] == LARGE)
feature("large bytea", lambda: bytes(one("SELECT %s::bytea", LARGE.encode()[:400000])[0]) == LARGE.encode()[:400000])
feature("prepared reuse", prepared)
feature("commit", commit)
feature("rollback", rollback)
feature("savepoints", savepoints)
feature("isolation, read only", isolation)
feature("error, then on", error_then_on)
feature("syntax error", lambda: expect(psycopg2.Error, one, "SELEC"))
feature("batch", batch)
feature("cursor, 10000 rows", server_cursor)
feature("cursor, scroll", scroll)
feature("copy in, text", copy_in)
feature("copy in, error", copy_in_error)
feature("copy out, text", copy_out, "COPY numbers TO STDOUT")
feature("copy out, csv", copy_out, "COPY numbers TO STDOUT (FORMAT csv, HEADER)")
feature("copy out, binary", copy_out, "COPY numbers TO STDOUT (FORMAT binary)")
feature("copy out, rows", copy_to)
feature("cancel", cancel)
feature("listen, notify", notifications)
feature("notify oneself", notify_oneself)
feature("notices", notices)
feature("pool, reset", pool)
feature("asynchronous", asynchronous)
feature("large objects", large_objects)
feature("call", call)
feature("two-phase commit", two_phase)
feature("rows as dictionaries", rows_as)
feature("client encoding utf8", encoding, "UTF8")
feature("client encoding latin1", encoding, "LATIN1")
finish()
