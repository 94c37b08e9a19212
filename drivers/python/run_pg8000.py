"""pg8000, in pure Python."""

import io
import os
import ssl
import time
import uuid

import pg8000.dbapi
import pg8000.native
from importlib.metadata import version

from common import LARGE, VALUES, expect, feature, finish, tell

ARGUMENTS = {
    "user": os.environ["PGUSER"], "password": os.environ["PGPASSWORD"], "host": os.environ["PGHOST"], "port": int(os.environ["PGPORT"]),
    "database": os.environ["PGDATABASE"], "timeout": 60,
}
Error = pg8000.native.DatabaseError


def connect(**options):
    return pg8000.native.Connection(**(ARGUMENTS | options))


def types():
    c = connect()
    return [(t, c.run(f"SELECT CAST(:v AS {t})", v=v)[0][0]) for t, v in VALUES]


def prepared():
    by_id = connect().prepare("SELECT name FROM fruit WHERE id = :id")
    found = [by_id.run(id=n % 3 + 1) for n in range(6)]
    by_id.close()
    return found


def dbapi():
    c = pg8000.dbapi.connect(**ARGUMENTS)
    cur = c.cursor()
    cur.execute("CREATE TABLE kept (a int, b text)")
    cur.executemany("INSERT INTO kept VALUES (%s, %s)", [(n, f"row {n}") for n in range(100)])
    c.commit()
    cur.execute("DELETE FROM kept")
    c.rollback()
    cur.execute("SELECT count(*) FROM kept")
    return cur.fetchone()


def savepoints():
    c = connect()
    c.run("START TRANSACTION")
    c.run("CREATE TEMP TABLE s (a int)")
    c.run("SAVEPOINT a")
    error = expect(Error, c.run, "SELECT 1/0")
    c.run("ROLLBACK TO SAVEPOINT a")
    c.run("INSERT INTO s VALUES (1)")
    c.run("COMMIT")
    return error, c.run("SELECT * FROM s")


def error_then_on():
    c = connect()
    return [expect(Error, c.run, s) for s in ("SELECT 1/0", "SELECT * FROM nowhere")], c.run("SELECT 1")


def cursor():
    c = connect()
    c.run("START TRANSACTION")
    c.run("DECLARE all_of_them SCROLL CURSOR FOR SELECT n FROM numbers ORDER BY n")
    total = 0
    while rows := c.run("FETCH FORWARD 1000 FROM all_of_them"):
        total += sum(n for (n,) in rows)
    c.run("MOVE ABSOLUTE 10 FROM all_of_them")
    return total, c.run("FETCH BACKWARD 2 FROM all_of_them")


def copy_in():
    c = connect()
    c.run("CREATE TEMP TABLE copied (a int, b text)")
    c.run("COPY copied FROM STDIN", stream=io.BytesIO(b"".join(b"%d\tx\n" % n for n in range(10000))))
    c.run("COPY copied FROM STDIN WITH (FORMAT csv)", stream=['1,"x, y"\n'])
    return c.run("SELECT count(*), sum(a) FROM copied")


def copy_out(sql):
    out = io.BytesIO()
    connect().run(sql, stream=out)
    return out.getvalue()


def notifications():
    listener, speaker = connect(), connect()
    listener.run("LISTEN news")
    speaker.run("NOTIFY news, 'first'")
    until = time.monotonic() + 10
    while not listener.notifications and time.monotonic() < until:
        listener.run("SELECT 1")
        time.sleep(0.05)
    return [n[1:] for n in listener.notifications]


def notices():
    c = connect()
    c.run("SELECT shout('hello')")
    return [(n[b"S"], n[b"M"]) for n in c.notices]


def tls():
    context = ssl.create_default_context(cafile=os.environ["DRIVERS_CA"])
    return connect(ssl_context=context).run("SELECT 1")


def reset():
    c = connect()
    c.run("SET work_mem = '8MB'")
    c.run("DISCARD ALL")
    return c.run("SHOW work_mem")


tell("version", f"pg8000 {version('pg8000')}")
feature("connect", lambda: connect().run("SELECT current_user::text, current_database()::text") and "in")
feature("simple query", lambda: connect().run("SELECT * FROM fruit ORDER BY id"))
feature("several statements", lambda: connect().run("SELECT 1; SELECT 2"))
feature("types, text", types)
feature("every column type, text", lambda: connect().run("SELECT * FROM everything WHERE id = 1"))
feature("null", lambda: connect().run("SELECT CAST(:v AS int)", v=None))
feature("large text", lambda: connect().run("SELECT CAST(:v AS text)", v=LARGE)[0][0] == LARGE)
feature("prepared reuse", prepared)
feature("commit", dbapi)
feature("savepoints", savepoints)
feature("error, then on", error_then_on)
feature("syntax error", lambda: expect(Error, connect().run, "SELEC"))
feature("cursor, 10000 rows", cursor)
feature("copy in, text", copy_in)
feature("copy out, text", copy_out, "COPY numbers TO STDOUT")
feature("copy out, csv", copy_out, "COPY numbers TO STDOUT (FORMAT csv)")
feature("copy out, binary", copy_out, "COPY numbers TO STDOUT (FORMAT binary)")
feature("listen, notify", notifications)
feature("notices", notices)
feature("TLS, verify-full", tls)
feature("pool, reset", reset)
feature("types, uuid", lambda: connect().run("SELECT CAST(:v AS uuid)", v=uuid.UUID(int=7)))
finish()
