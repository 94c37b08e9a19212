"""psycopg 3, synchronous."""

import datetime as dt

import psycopg
import psycopg_pool
from psycopg.types.json import Json, Jsonb
from psycopg.types.range import Range

from common import LARGE, VALUES, describe, expect, feature, finish, soon, tell


def connect(**options):
    return psycopg.connect(autocommit=True, connect_timeout=20, **options)


def one(sql, *arguments, **options):
    with connect() as c:
        return c.execute(sql, arguments or None, **options).fetchone()


def simple():
    with connect() as c:
        return [c.execute("SELECT * FROM fruit ORDER BY id").fetchall(), psycopg.ClientCursor(c).execute("SELECT 1 AS a, NULL AS b").fetchall()]


def several_statements(sql):
    with connect() as c:
        cur = c.execute(sql)
        found = []
        while True:
            found.append((cur.statusmessage, cur.fetchall() if cur.description else None))
            if not cur.nextset():
                return found


def types(binary):
    with connect() as c:
        cur = c.cursor(binary=binary)
        found = []
        for sql_type, value in VALUES + [("json", Json({"a": [1, "é"]})), ("jsonb", Jsonb({"b": None})), ("int4range", Range(1, 10))]:
            mark = "%b" if binary else "%s"
            row = cur.execute(f"SELECT {mark}::{sql_type}", (value,)).fetchone()
            found.append((sql_type, row[0]))
        return found


def text_parameters():
    with connect() as c:
        return [c.execute(f"SELECT %t::{t}", (v,)).fetchone()[0] for t, v in VALUES]


def everything(binary):
    with connect() as c:
        return c.execute("SELECT * FROM everything WHERE id = 1", binary=binary).fetchall()


def description():
    with connect() as c:
        cur = c.execute("SELECT * FROM everything LIMIT 0")
        # The numbers of types made by users differ from database to database.
        return [(d.name, min(d.type_code, 16384), d.internal_size) for d in cur.description]


def prepared_reuse():
    with connect() as c:
        rows = [c.execute("SELECT name FROM fruit WHERE id = %s", (n % 3 + 1,)).fetchone()[0] for n in range(20)]
        explicit = [c.execute("SELECT %s::int + 1", (n,), prepare=True).fetchone()[0] for n in range(5)]
        names = c.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False).fetchone()
        return rows, explicit, names


def prepared_changes():
    with connect() as c:
        c.execute("CREATE TEMP TABLE shape (a int)")
        c.execute("INSERT INTO shape VALUES (1)")
        before = [c.execute("SELECT * FROM shape", prepare=True).fetchall() for _ in range(2)]
        c.execute("ALTER TABLE shape ADD b int")
        try:
            after = c.execute("SELECT * FROM shape", prepare=True).fetchall()
        except psycopg.Error as error:
            after = describe(error)
        return before, after, c.execute("SELECT 1").fetchone()


def commit():
    with psycopg.connect() as c:
        c.execute("CREATE TABLE kept (a int)")
        c.execute("INSERT INTO kept VALUES (1)")
        c.commit()
    return one("SELECT count(*) FROM kept")


def rollback():
    with psycopg.connect() as c:
        c.execute("DELETE FROM fruit")
        c.rollback()
        return c.execute("SELECT count(*) FROM fruit").fetchone()


def savepoints():
    with connect() as c:
        with c.transaction():
            c.execute("CREATE TEMP TABLE s (a int)")
            try:
                with c.transaction():
                    c.execute("INSERT INTO s VALUES (1)")
                    c.execute("SELECT 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            with c.transaction():
                c.execute("INSERT INTO s VALUES (2)")
        return c.execute("SELECT * FROM s").fetchall()


def isolation():
    with psycopg.connect() as c:
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        c.read_only = True
        shown = c.execute("SHOW transaction_isolation").fetchone()
        return shown, expect(psycopg.Error, lambda: c.execute("DELETE FROM fruit"))


def error_then_on():
    with connect() as c:
        errors = [expect(psycopg.Error, lambda s=s: c.execute(s)) for s in ("SELECT 1/0", "SELECT * FROM nowhere", "INSERT INTO fruit VALUES (1, 'x', 1)")]
        return errors, c.execute("SELECT 1").fetchone()


def failed_transaction():
    with psycopg.connect() as c:
        first = expect(psycopg.Error, lambda: c.execute("SELECT 1/0"))
        second = expect(psycopg.Error, lambda: c.execute("SELECT 1"))
        status = c.info.transaction_status.name
        c.rollback()
        return first, second, status, c.execute("SELECT 1").fetchone()


def error_fields():
    with connect() as c:
        try:
            c.execute("INSERT INTO fruit VALUES (1, 'x', 1)")
        except psycopg.Error as error:
            d = error.diag
            return d.sqlstate, d.severity, d.message_detail, d.schema_name, d.table_name, d.constraint_name


def executemany():
    with connect() as c:
        cur = c.cursor()
        cur.execute("CREATE TEMP TABLE m (a int, b text)")
        cur.executemany("INSERT INTO m VALUES (%s, %s)", [(n, f"row {n}") for n in range(500)])
        cur.executemany("INSERT INTO m VALUES (%s, 'r') RETURNING a", [(1,), (2,)], returning=True)
        returned = [cur.fetchall(), cur.nextset(), cur.fetchall()]
        return returned, c.execute("SELECT count(*), sum(a) FROM m").fetchone()


def pipeline():
    with connect() as c, c.pipeline() as p:
        results = [c.execute("SELECT %s::int", (n,)) for n in range(500)]
        p.sync()
        return sum(r.fetchone()[0] for r in results)


def pipeline_error():
    with connect() as c:
        try:
            with c.pipeline():
                first = c.execute("SELECT 1")
                c.execute("SELECT 1/0")
                c.execute("SELECT 2")
                first.fetchone()
        except psycopg.Error as error:
            return error.sqlstate, c.execute("SELECT 3").fetchone()


def pipeline_transaction():
    with connect() as c:
        with c.pipeline():
            with c.transaction():
                c.execute("CREATE TEMP TABLE p (a int)")
                c.execute("INSERT INTO p VALUES (1)")
        return c.execute("SELECT * FROM p").fetchall()


def server_cursor():
    with psycopg.connect() as c, c.cursor("named") as cur:
        cur.itersize = 1000
        cur.execute("SELECT n, word FROM numbers ORDER BY n")
        return sum(row[0] for row in cur)


def scrollable():
    with psycopg.connect() as c, c.cursor("back", scrollable=True) as cur:
        cur.execute("SELECT n FROM numbers ORDER BY n")
        cur.scroll(100)
        first = cur.fetchmany(2)
        cur.scroll(-50)
        return first, cur.fetchone()


def hold_cursor():
    with connect() as c, c.cursor("held", withhold=True) as cur:
        cur.execute("SELECT n FROM numbers ORDER BY n")
        return cur.fetchmany(3), len(cur.fetchall())


def stream():
    with connect() as c:
        return sum(n for n, _ in c.cursor().stream("SELECT n, word FROM numbers")), sum(n for (n,) in c.cursor().stream("SELECT n FROM numbers", size=100))


def copy_in():
    with connect() as c, c.cursor() as cur:
        cur.execute("CREATE TEMP TABLE copied (a int, b text, c timestamptz)")
        with cur.copy("COPY copied FROM STDIN") as copy:
            for n in range(10000):
                copy.write_row((n, f"r\t{n}" if n % 7 else None, dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)))
        return cur.rowcount, c.execute("SELECT count(*), count(b), sum(a) FROM copied").fetchone()


def copy_in_csv():
    with connect() as c, c.cursor() as cur:
        cur.execute("CREATE TEMP TABLE copied (a int, b text)")
        with cur.copy("COPY copied FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write('a,b\n1,"x, y"\n2,\n')
        return c.execute("SELECT * FROM copied").fetchall()


def copy_in_binary():
    with connect() as c, c.cursor() as cur:
        cur.execute("CREATE TEMP TABLE copied (a int4, b text, c timestamptz)")
        with cur.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "timestamptz"])
            for n in range(1000):
                copy.write_row((n, f"row {n}", dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)))
        return c.execute("SELECT count(*), sum(a), min(c) FROM copied").fetchone()


def copy_in_fails():
    with connect() as c, c.cursor() as cur:
        cur.execute("CREATE TEMP TABLE copied (a int)")

        def bad():
            with cur.copy("COPY copied FROM STDIN") as copy:
                copy.write("x\n")

        def given_up():
            with cur.copy("COPY copied FROM STDIN") as copy:
                copy.write("1\n")
                raise KeyError("changed my mind")

        return expect(psycopg.Error, bad), expect(KeyError, given_up), c.execute("SELECT count(*) FROM copied").fetchone()


def copy_out(sql):
    with connect() as c, c.cursor() as cur, cur.copy(sql) as copy:
        return b"".join(bytes(block) for block in copy)


def copy_out_rows():
    with connect() as c, c.cursor() as cur, cur.copy("COPY (SELECT n, word FROM numbers ORDER BY n) TO STDOUT") as copy:
        copy.set_types(["int4", "text"])
        return sum(row[0] for row in copy.rows())


def copy_out_stopped():
    with connect() as c:
        with c.cursor() as cur, cur.copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT") as copy:
            next(iter(copy))
            c.cancel_safe(timeout=20)
            left = expect(psycopg.Error, lambda: list(copy))
        return left, c.execute("SELECT 1").fetchone()


def cancel():
    with connect() as c:
        soon(0.3, lambda: c.cancel_safe(timeout=20))
        return expect(psycopg.Error, lambda: c.execute("SELECT pg_sleep(60)")), c.execute("SELECT 1").fetchone()


def statement_timeout():
    with connect(options="-c statement_timeout=200") as c:
        return expect(psycopg.Error, lambda: c.execute("SELECT pg_sleep(60)"))


def notifications():
    with connect() as listener, connect() as speaker:
        listener.execute("LISTEN news")
        speaker.execute("NOTIFY news, 'first'")
        speaker.execute("SELECT pg_notify('news', %s)", ("second",))
        return [(n.channel, n.payload) for n in listener.notifies(timeout=10, stop_after=2)]


def notices():
    with connect() as c:
        heard = []
        c.add_notice_handler(lambda d: heard.append((d.severity, d.message_primary)))
        c.execute("SELECT shout('hello')")
        c.execute("DROP TABLE IF EXISTS not_there")
        return heard


def pool():
    def reset(c):
        c.execute("DISCARD ALL")

    with psycopg_pool.ConnectionPool(kwargs={"autocommit": True}, min_size=1, max_size=1, reset=reset, timeout=20) as p:
        with p.connection() as c:
            c.execute("SET search_path = nowhere")
            c.execute("CREATE TEMP TABLE left_over (a int)")
            for _ in range(7):
                c.execute("SELECT %s::int", (1,))
        with p.connection() as c:
            return c.execute("SHOW search_path").fetchone(), c.execute("SELECT to_regclass('left_over')").fetchone(), c.execute("SELECT %s::int", (1,)).fetchone()


def settings():
    with connect(options="-c search_path=pg_catalog -c jit=off", application_name="drivers") as c:
        names = ("search_path", "jit", "application_name", "client_encoding")
        shown = [c.execute(f"SHOW {name}").fetchone()[0] for name in names]
        c.execute("SET TIME ZONE 'Europe/Paris'")
        c.execute("SET application_name = 'renamed'")
        told = [c.info.parameter_status(name) for name in ("TimeZone", "application_name", "server_encoding", "integer_datetimes", "standard_conforming_strings")]
        return shown, told, c.info.server_version


def latin1():
    with connect(client_encoding="latin1") as c:
        return c.execute("SELECT 'é'").fetchone()


def call():
    with connect() as c:
        return c.execute("CALL touch(%s)", (1,)).fetchone(), c.execute("SELECT add(%s, %s)", (2, 3)).fetchone()


def two_phase():
    c = psycopg.connect()
    c.tpc_begin(c.xid(1, "gid", "branch"))
    c.execute("CREATE TABLE two (a int)")
    refused = expect(psycopg.Error, c.tpc_prepare)
    c.close()
    return refused


def composite():
    from psycopg.types.composite import CompositeInfo, register_composite
    from psycopg.types.enum import EnumInfo

    with connect() as c:
        info = CompositeInfo.fetch(c, "point3")
        register_composite(info, c)
        enum = EnumInfo.fetch(c, "mood")
        return c.execute("SELECT '(1,2,3)'::point3, %s::point3", (info.python_type(4, 5, 6),)).fetchone(), enum.labels


def password_change():
    with connect() as c:
        return c.pgconn.encrypt_password(b"x", b"y", b"md5")


tell("version", f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version() // 10000}.{psycopg.pq.version() % 10000}")
feature("connect", lambda: one("SELECT current_user, current_database()"))
feature("simple query", simple)
feature("several statements", several_statements, "SELECT 1; SELECT 2, 3; UPDATE fruit SET price = 1.5 WHERE id = 1")
feature("several statements, one depends", several_statements, "CREATE TEMP TABLE t (x int); INSERT INTO t VALUES (1), (2)")
feature("types, text", types, False)
feature("types, binary", types, True)
feature("parameters, text", text_parameters)
feature("every column type, text", everything, False)
feature("every column type, binary", everything, True)
feature("description", description)
feature("null", lambda: one("SELECT %s::int, %s::text", None, None))
feature("large text", lambda: one("SELECT %s::text", LARGE)[0] == LARGE)
feature("large bytea", lambda: one("SELECT %b::bytea", LARGE.encode(), binary=True)[0] == LARGE.encode())
feature("prepared reuse", prepared_reuse)
feature("prepared, changed table", prepared_changes)
feature("commit", commit)
feature("rollback", rollback)
feature("savepoints", savepoints)
feature("isolation, read only", isolation)
feature("error, then on", error_then_on)
feature("syntax error", lambda: expect(psycopg.Error, one, "SELEC"))
feature("failed transaction", failed_transaction)
feature("error fields", error_fields)
feature("batch", executemany)
feature("pipeline", pipeline)
feature("pipeline, error", pipeline_error)
feature("pipeline, transaction", pipeline_transaction)
feature("cursor, 10000 rows", server_cursor)
feature("cursor, scroll", scrollable)
feature("cursor, with hold", hold_cursor)
feature("stream, 10000 rows", stream)
feature("copy in, text", copy_in)
feature("copy in, csv", copy_in_csv)
feature("copy in, binary", copy_in_binary)
feature("copy in, error", copy_in_fails)
feature("copy out, text", copy_out, "COPY numbers TO STDOUT")
feature("copy out, csv", copy_out, "COPY numbers TO STDOUT (FORMAT csv, HEADER)")
feature("copy out, binary", copy_out, "COPY numbers TO STDOUT (FORMAT binary)")
feature("copy out, rows", copy_out_rows)
feature("copy out, cancelled", copy_out_stopped)
feature("cancel", cancel)
feature("statement timeout", statement_timeout)
feature("listen, notify", notifications)
feature("notices", notices)
feature("pool, reset", pool)
feature("settings", settings)
feature("settings, work_mem at the start", lambda: connect(options="-c work_mem=8MB").execute("SHOW work_mem").fetchone())
feature("client encoding latin1", latin1)
feature("call", call)
feature("two-phase commit", two_phase)
feature("custom types", composite)
feature("encrypt password", password_change)
finish()
