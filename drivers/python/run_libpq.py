"""A current libpq, as psycopg's binary package bundles it: TLS in both ways, protocol 3.2, cancel over TLS."""

import os

import psycopg
from psycopg import pq

from common import expect, feature, finish, soon, tell

CA = os.environ["DRIVERS_CA"]


def session(**options):
    with psycopg.connect(autocommit=True, connect_timeout=20, **options) as c:
        shown = c.execute("SELECT current_user").fetchone()
        return shown, c.pgconn.ssl_in_use, c.pgconn.full_protocol_version


def cancelled(**options):
    with psycopg.connect(autocommit=True, connect_timeout=20, **options) as c:
        soon(0.3, lambda: c.cancel_safe(timeout=20))
        return expect(psycopg.Error, lambda: c.execute("SELECT pg_sleep(60)")), c.execute("SELECT 1").fetchone()


def cancel_answer(**options):
    """The cancel itself must report success, not only arrive."""
    with psycopg.connect(autocommit=True, connect_timeout=20, **options) as c:
        c.cancel_safe(timeout=20)
        return c.execute("SELECT 1").fetchone()


def wrong_password():
    try:
        psycopg.connect(password="wrong", connect_timeout=20)
    except psycopg.OperationalError as error:
        return "password" in str(error) or "gateway:" in str(error)


version = pq.version()
tell("version", f"libpq {version // 10000}.{version % 10000}")
feature("without TLS", lambda: session(sslmode="disable"))
feature("TLS", lambda: session(sslmode="require"))
feature("TLS, verify-full", lambda: session(sslmode="verify-full", sslrootcert=CA, host="localhost", hostaddr="127.0.0.1"))
feature("TLS 1.2", lambda: session(sslmode="require", ssl_max_protocol_version="TLSv1.2"))
feature("TLS, channel binding preferred", lambda: session(sslmode="require", channel_binding="prefer"))
feature("direct TLS", lambda: session(sslmode="require", sslnegotiation="direct"))
feature("direct TLS, protocol 3.2", lambda: session(sslmode="require", sslnegotiation="direct", max_protocol_version="3.2"))
feature("protocol 3.0", lambda: session(max_protocol_version="3.0"))
feature("protocol 3.2 if offered", lambda: session(max_protocol_version="3.2"))
feature("protocol 3.2 required", lambda: session(min_protocol_version="3.2", max_protocol_version="3.2"))
feature("protocol, latest", lambda: session(max_protocol_version="latest"))
feature("GSS encryption preferred", lambda: session(gssencmode="prefer"))
feature("cancel", lambda: cancelled(sslmode="disable"))
feature("cancel over TLS", lambda: cancelled(sslmode="require"))
feature("cancel, answer", lambda: cancel_answer(sslmode="disable"))
feature("cancel over TLS, answer", lambda: cancel_answer(sslmode="require"))
feature("cancel, direct TLS and 3.2", lambda: cancelled(sslmode="require", sslnegotiation="direct", min_protocol_version="3.2"))
feature("target session attributes", lambda: session(target_session_attrs="read-write"))
feature("several hosts", lambda: session(host="127.0.0.1,127.0.0.1", port=f"1,{os.environ['PGPORT']}", load_balance_hosts="disable"))
feature("wrong password", wrong_password)
finish()
