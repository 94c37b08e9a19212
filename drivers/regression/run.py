#!/usr/bin/env python3
"""PostgreSQL's own regression SQL through the gateway, each statement compared with what the server understood of it.

    ./test --regression                       fetches the SQL, builds, runs all of it, writes docs/regression.md
    drivers/regression/run.py --bin DIR --sql DIR [FILE..]    only these files; nothing is written

psql runs the files in the order of `parallel_schedule`, one after the other, through the gateway, whose policy permits everything
and writes down what it was asked. The server writes the analysed tree and the plan of every statement into its log
(`debug_print_parse`, `debug_print_plan`), which list every relation with the rights it needs, views' relations, partitions and
children included; event triggers tell what was defined and dropped. What the gateway refuses runs past it, so that the next statements find
what they expect. A second run labels every column that the first one met, and compares the columns that statements depend on.
Exit code 1: a statement was judged wrongly, or more than 2 % are refused.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

sys.dont_write_bytecode = True

import observe
import page
import relay
from judge import judge

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "regression.md"
# The largest part of valid statements that may be refused.
MAX_REFUSED = 0.02
# Longest run of one file, in seconds.
FILE_SECONDS = 600
# Files whose tables others use (the comments of `parallel_schedule`), run first in every part that comes after them.
GROUND = ("test_setup", "create_misc", "create_aggregate", "create_am", "create_view")
# Where a function calls itself until the stack is full, every level's tree goes into the log with the context of all levels above.
SHALLOW = {"infinite_recurse": "512kB"}
# What ends the part of the log that is of one statement.
OBSERVER = "SELECT 'observer"


class Run:
    def __init__(self, options):
        self.options = options
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gateway-regression."))
        self.dir.chmod(0o755)
        self.number = 0
        self.file = ""
        self.verdicts = []
        self.names = observe.Names()
        self.clients = {}

    def __enter__(self):
        self.relay = relay.Relay(self.before, self.judged, self.after)
        (self.dir / "operations").touch()
        self.labels = frozenset()
        if self.options.labels:
            shutil.copy(self.options.labels, self.dir / "labels")
            self.labels = frozenset(tuple(json.loads(line)) for line in self.options.labels.read_text().splitlines())
        self.tap = subprocess.Popen(
            [self.options.bin / "tap", self.dir, str(self.relay.back_port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(self.dir / "tap.log", "wb"), text=True,
        )
        line = self.tap.stdout.readline()
        if not line:
            sys.exit("regression: the server did not start:\n" + (self.dir / "tap.log").read_text())
        self.places = json.loads(line)
        self.operations = open(self.dir / "operations", encoding="utf-8")
        self.relay.start(self.places["server"], self.places["gateway"], self.places["token"])
        self.log = observe.Log(self.dir / "server.log")
        self.prepare()
        return self

    def __exit__(self, *_):
        self.tap.stdin.close()
        self.tap.terminate()
        self.tap.wait()
        if not self.options.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def judged(self):
        """The operations judged since the last call: they are written down before they are forwarded."""
        return [json.loads(line) for line in self.operations]

    def prepare(self):
        """As pg_regress does (PostgreSQL source, src/test/regress/pg_regress.c)."""
        shutil.copytree(self.options.sql, self.dir / "regress")
        for folder in (self.dir / "regress", self.dir / "regress/results"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        for path in (self.dir / "regress").rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o644)
        self.admin("CREATE DATABASE regression TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'", "postgres")
        settings = {"lc_messages": "C", "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C", "bytea_output": "hex",
                    "timezone_abbreviations": "Default", "timezone": "PST8PDT", "datestyle": "Postgres, MDY", "intervalstyle": "postgres_verbose"}
        self.admin("".join(f"ALTER DATABASE regression SET {k} = '{v}';" for k, v in settings.items()), "postgres")
        self.show_labels()
        self.admin(observe.SETUP, "regression")
        self.names.know_views(self.admin(observe.VIEWS, "regression").splitlines())
        self.log.file.seek(0, 2)

    def show_labels(self):
        """Before its first session the gateway makes sure that every labelled column exists, so they do until then."""
        if not self.labels:
            return
        quote = lambda name: '"' + name.replace('"', '""') + '"'
        tables = {}
        for schema, table, column in sorted(self.labels):
            tables.setdefault((schema, table), []).append(f"{quote(column)} text")
        schemas = sorted({schema for schema, _ in tables} - {"public"})
        made = [f"CREATE SCHEMA {quote(schema)};" for schema in schemas]
        made += [f"CREATE TABLE {quote(schema)}.{quote(table)} ({', '.join(columns)});" for (schema, table), columns in tables.items()]
        self.admin("\n".join(made), "regression")
        url = f"postgres://postgres@127.0.0.1:{self.relay.front_port}/regression"
        subprocess.run(["psql", "-X", "-q", "-c", "SELECT 1", url], check=True, capture_output=True)
        dropped = [f"DROP TABLE {quote(schema)}.{quote(table)};" for schema, table in tables]
        self.admin("\n".join(dropped + [f"DROP SCHEMA {quote(schema)};" for schema in schemas]), "regression")
        self.verdicts.clear()

    def admin(self, sql, database):
        url = self.places["admin"].rsplit("/", 1)[0] + "/" + database
        done = subprocess.run(["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url], input=sql, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"regression: could not prepare the server: {done.stderr}")
        return done.stdout.strip()

    def before(self, _):
        self.began = time.monotonic()
        self.judged()

    def after(self, front, asked):
        """A query is over: what did the server make of it?"""
        self.number += 1
        answered = time.monotonic()
        text = asked.text.decode(errors="replace").strip()
        seen = observe.Seen()
        if self.labels:
            seen.want_columns()
        if front.back.trees:
            marker = f"{OBSERVER} {self.number}'"
            front.back.ask(marker)
            # The gateway may have it run statement by statement.
            texts = {text, *(operation["text"].strip() for operation in asked.operations)}
            for record in self.log.records(front.back.pid, marker):
                if record.get("STATEMENT", "").strip() in texts:
                    seen.take(record)
        operations = asked.operations
        name = self.names.of(front.back, seen)
        if asked.denial or operations or asked.tags or asked.error:
            verdict = judge(asked, operations, seen, name, self.labels)
            self.verdicts.append((self.file, max(len(operations), 1), text, verdict, operations))
            if self.options.verbose and verdict.kind in ("wrong", "refused"):
                print(f"   {verdict.kind}: {verdict.why}\n      {text[:300]!r}", flush=True)
        took = time.monotonic() - self.began
        if took > 2 and self.options.verbose:
            print(f"   slow: {took:.1f} s, {time.monotonic() - answered:.1f} s of it to read the log: {text[:200]!r}")
        self.log.shorten()

    def run_file(self, name, counts=True):
        """Files that only prepare the ground for others do not count."""
        self.file = name
        depth = SHALLOW.get(name, "2MB")
        self.admin(f"ALTER DATABASE regression SET max_stack_depth = '{depth}'", "postgres")
        began, before = time.monotonic(), len(self.verdicts)
        regress = self.dir / "regress"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {
            "PGHOST": "127.0.0.1", "PGPORT": str(self.relay.front_port), "PGUSER": "postgres", "PGDATABASE": "regression",
            "PG_ABS_SRCDIR": str(regress), "PG_ABS_BUILDDIR": str(regress), "PG_LIBDIR": str(regress), "PG_DLSUFFIX": ".so",
            "PGAPPNAME": f"pg_regress/{name}", "LC_ALL": "C.UTF-8",
        }
        with open(regress / "sql" / f"{name}.sql", "rb") as sql, open(self.dir / "regress/results" / f"{name}.out", "wb") as out:
            process = subprocess.Popen(
                ["psql", "-X", "-a", "-q", "-d", "regression", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"],
                stdin=sql, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=regress,
            )
            try:
                process.wait(FILE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                sys.exit(f"regression: {name} took longer than {FILE_SECONDS} s")
        self.relay.settle()
        if len(self.verdicts) == before:
            sys.exit(f"regression: nothing of {name} arrived: the gateway or the server is gone")
        if not counts:
            del self.verdicts[before:]
            return
        kinds = collections.Counter()
        for _, count, _, verdict, _ in self.verdicts[before:]:
            kinds[verdict.kind] += count
        print(f"{name}: {dict(kinds)} ({time.monotonic() - began:.0f} s)", flush=True)


# Every table has them, and none can be made with one.
SYSTEM_COLUMNS = {"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}


def schedule(folder):
    lines = (folder / "parallel_schedule").read_text().splitlines()
    return [name for line in lines if line.startswith("test:") for name in line.removeprefix("test:").split()]


def here(options):
    """Runs the files, in this process: the server's version, the verdicts, the columns of all tables met."""
    with Run(options) as run:
        for name in options.before:
            run.run_file(name, counts=False)
        server = run.admin("SHOW server_version", "regression")

        def told():
            return server, [as_json(*found) for found in run.verdicts], sorted(run.names.columns)

        for name in options.files:
            run.run_file(name)
            if options.json:
                # What is done is done, should the next file hang.
                options.json.write_text(json.dumps(told()))
        return told()


def as_json(file, count, text, verdict, operations):
    return {"file": file, "count": count, "text": text, "operations": operations, **vars(verdict)}


def in_parts(options, labels=None):
    """Runs the schedule in as many parts as there are to be at once, each with a server of its own."""
    files = schedule(options.sql)
    size = -(-len(files) // options.jobs)
    command = [sys.executable, __file__, "--bin", options.bin, "--sql", options.sql, *(["--verbose"] if options.verbose else [])]
    parts = []
    with tempfile.TemporaryDirectory(prefix="gateway-regression-parts.") as folder:
        if labels:
            path = pathlib.Path(folder) / "labels"
            path.write_text("".join(json.dumps(label) + "\n" for label in labels))
            command += ["--labels", path]
        for start in range(0, len(files), size):
            part = files[start : start + size]
            before = [option for name in GROUND if name in files[:start] for option in ("--before", name)]
            out = pathlib.Path(folder) / f"{start}.json"
            parts.append((subprocess.Popen([*command, *before, "--json", out, *part]), out))
        for process, _ in parts:
            process.wait()
        if any(process.returncode not in (0, 1) or not out.exists() for process, out in parts):
            sys.exit("regression: a part was cut short")
        told = [json.loads(out.read_text()) for _, out in parts]
    verdicts = [verdict for _, part, _ in told for verdict in part]
    # Tables that a test put among the server's own cannot be made anew.
    columns = {tuple(column) for *_, columns in told for column in columns if not column[0].startswith("pg_") and column[2] not in SYSTEM_COLUMNS}
    return told[0][0], verdicts, sorted(columns)


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("--bin", required=True, type=pathlib.Path)
    arguments.add_argument("--sql", required=True, type=pathlib.Path)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--before", action="append", default=[])
    arguments.add_argument("--keep", action="store_true")
    arguments.add_argument("--verbose", action="store_true")
    arguments.add_argument("--json", type=pathlib.Path)
    arguments.add_argument("--labels", type=pathlib.Path, help="label these columns, lines of JSON `[schema, table, column]`, and compare dependence on them")
    arguments.add_argument("--page", type=pathlib.Path, help="verdicts of an earlier run, for the page alone")
    arguments.add_argument("files", nargs="*")
    options = arguments.parse_args()
    labelled = []
    if options.page:
        server, verdicts, columns, labelled = json.loads(options.page.read_text())
    elif options.files:
        server, verdicts, columns = here(options)
    else:
        server, verdicts, columns = in_parts(options)
        # Once more, for the columns that conditions, orders and computations depend on: only labelled ones are judged.
        _, labelled, _ = in_parts(options, columns)
    if options.json:
        told = (server, verdicts, columns) if options.files else (server, verdicts, columns, labelled)
        options.json.write_text(json.dumps(told))
    with open(HERE / "refusals.toml", "rb") as file:
        reasons = tomllib.load(file)["refusal"]
    if not options.files:
        source = (options.sql / "version").read_text().strip()
        PAGE.write_text(page.text(server, source, verdicts, labelled, reasons, schedule(options.sql)))
        print(f"wrote {PAGE.relative_to(HERE.parent.parent)}")
    unexplained = {v["why"] for v in verdicts if v["kind"] == "refused" and page.explained(v["why"], reasons) == page.UNEXPLAINED}
    for why in sorted(unexplained):
        print(f"{page.UNEXPLAINED}: {why}")
    counts = page.count(verdicts)
    valid = sum(counts.values()) - counts["as the server"]
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("complete", "refused", "wrong", "as the server")))
    columns = page.of_columns(labelled)
    print(f"{columns['statements']} statements compared for {columns['columns']} columns, {len(columns['wrong'])} wrong")
    sys.exit(1 if counts["wrong"] or columns["wrong"] or unexplained or counts["refused"] > MAX_REFUSED * valid else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
