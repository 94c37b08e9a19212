"""What the Python scenarios share: how an outcome is told, and the values they send."""

import asyncio
import datetime as dt
import decimal
import hashlib
import sys
import threading
import uuid

LARGE = "0123456789abcdé\n" * 65536  # 1 MiB of characters, a little more of bytes

ZONE = dt.timezone(dt.timedelta(hours=2))
# The SQL type and a value that every driver here has.
VALUES = [
    ("smallint", 32767),
    ("integer", 2147483647),
    ("bigint", 9223372036854775807),
    ("numeric", decimal.Decimal("12345678901234567890.0123456789")),
    ("double precision", 0.1),
    ("text", "naïve ☕ 日本 'quoted' \\ \t \n end"),
    ("bytea", bytes(range(256))),
    ("boolean", True),
    ("date", dt.date(2024, 2, 29)),
    ("time", dt.time(12, 34, 56, 789)),
    ("timestamp", dt.datetime(2024, 2, 29, 12, 34, 56, 789)),
    ("timestamptz", dt.datetime(2024, 2, 29, 12, 34, 56, 789, ZONE)),
    ("interval", dt.timedelta(days=3, hours=4, microseconds=5)),
    ("uuid", uuid.UUID("00000000-0000-4000-8000-000000000001")),
    ("integer[]", [1, None, 3]),
    ("text[]", ["a b", 'c"d', "e,f", None]),
]


def show(value):
    """A value on one line, short and always the same."""
    text = repr(value)
    if len(text) > 400:
        return f"{len(text)} characters, {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text


def describe(error):
    """An error as its SQLSTATE and first line."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    text = str(origin)
    fields = origin.args[0] if origin.args and isinstance(origin.args[0], dict) else None
    if fields:
        state, text = fields.get("C"), fields.get("M", "")
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"error {state or type(origin).__name__}: {first}"


def tell(feature, outcome):
    print(f"{feature}\t{outcome}".replace("\n", "\\n"), flush=True)


def feature(name, check, *arguments):
    """Runs one check and prints what came of it."""
    try:
        tell(name, f"ok {show(check(*arguments))}")
    except Exception as error:
        tell(name, describe(error))


async def feature_async(name, check, *arguments):
    """As `feature`, for a coroutine; one that waits for longer than 30 s is given up."""
    try:
        async with asyncio.timeout(30):
            tell(name, f"ok {show(await check(*arguments))}")
    except Exception as error:
        tell(name, describe(error))


def expect(kind, check, *arguments):
    """Runs what must fail; the error's description."""
    try:
        check(*arguments)
    except kind as error:
        return describe(error)
    raise AssertionError("no error")


async def expect_async(kind, awaitable):
    try:
        await awaitable
    except kind as error:
        return describe(error)
    raise AssertionError("no error")


def soon(seconds, call):
    """Calls in another thread a little later: for what must be cancelled while it runs."""
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


def finish():
    tell("end", "ok")
    sys.stdout.flush()
