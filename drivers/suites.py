#!/usr/bin/env python3
"""Runs drivers' own public test suites against PostgreSQL directly and through the gateway, and compares test by test.

    ./test --driver-suites                fetches the suites, builds, runs all, writes docs/driver-suites.md
    drivers/suites.py --bin DIR [SUITE..] only these; the page has the others' last results

The suites come out of the packages that the drivers are published as. Both ways they find the same server at 127.0.0.1:5433, the
port that some of them have in their code; a door stands there that logs in at the gateway in the place of the client, so that tests need no
credentials of their own. Through the gateway everybody is the superuser that the gateway logs in as. Exit code 1: a test has another
outcome that `suites.toml` does not explain.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
import xml.etree.ElementTree as xml

sys.dont_write_bytecode = True

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "regression"))
import wire

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "agent-gateway-drivers"
PAGE = HERE.parent / "docs" / "driver-suites.md"
LAST = CACHE / "suites.json"
PYTHON = str(CACHE / "venv/bin/python")
# Where some suites have their server in their code.
PORT = 5433
# Longest run of one suite one way, in seconds.
SUITE_SECONDS = 900
# Longest run of one test, in seconds.
TEST_SECONDS = 60

SETUP = """
CREATE ROLE pass_user LOGIN PASSWORD 'password';
CREATE ROLE md5_user LOGIN PASSWORD 'password';
CREATE ROLE scram_user LOGIN PASSWORD 'password';
CREATE ROLE ssl_user LOGIN;
"""
DATABASES = ("psycopg2_test", "pg8000_test")


class Door:
    """Listens where the suites look for a server; passes on to the server, or to the gateway with its own login."""

    def __init__(self, places):
        self.places = places
        self.through = False
        self.listener = socket.create_server(("127.0.0.1", PORT))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(wire.Wire(client), self.through), daemon=True).start()

    def serve(self, client, through):
        try:
            there = wire.Wire(socket.create_connection(("127.0.0.1", self.places["gateway" if through else "server"])))
            packet = client.startup()
            while wire.code(packet) in (wire.SSL_REQUEST, wire.GSS_REQUEST):
                client.send(b"N")
                packet = client.startup()
            if through and wire.code(packet) != wire.CANCEL_REQUEST:
                self.log_in(client, there, packet)
            else:
                there.send(packet)
            threading.Thread(target=pump, args=(there, client), daemon=True).start()
            pump(client, there)
        except wire.Closed:
            client.close()

    def log_in(self, client, gateway, packet):
        wished = wire.parameters(packet)
        gateway.send(wire.startup({"database": wished["user"]} | wished | {"user": "agent"}))
        while True:
            frame = gateway.frame()
            if frame[:1] == b"R" and frame[5:9] == b"\0\0\0\3":
                gateway.send(wire.frame(b"p", self.places["token"].encode() + b"\0"))
                continue
            client.send(frame)
            if frame[:1] in (b"Z", b"E"):
                return


def pump(source, sink):
    try:
        if source.buffer:
            sink.send(source.buffer)
        while data := source.connection.recv(1 << 16):
            sink.send(data)
    except (OSError, wire.Closed):
        pass
    source.close()
    sink.close()


class Stage:
    """A server and a gateway in front of it."""

    def __init__(self, binaries):
        self.bin = pathlib.Path(binaries)

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gateway-suites."))
        self.tap = subprocess.Popen(
            [self.bin / "tap", self.dir, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=open(self.dir / "tap.log", "wb"), text=True,
        )
        line = self.tap.stdout.readline()
        if not line:
            sys.exit("suites: the server did not start:\n" + (self.dir / "tap.log").read_text())
        self.places = json.loads(line)
        self.admin(SETUP)
        self.door = Door(self.places)
        return self

    def __exit__(self, *_):
        self.tap.stdin.close()
        self.tap.terminate()
        self.tap.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def admin(self, sql):
        command = ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", self.places["admin"]]
        done = subprocess.run(command, input=sql, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"suites: could not prepare the server: {done.stderr}")
        return done.stdout.strip()

    def run(self, suite, way):
        """Outcomes by test: `passed`, `skipped`, or the reason of a failure."""
        self.door.through = way == "gateway"
        for name in DATABASES:
            self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            self.admin(f"CREATE DATABASE {name}")
        keep = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        own = {
            "PGHOST": "127.0.0.1", "PGPORT": str(PORT), "PGUSER": "postgres", "PGPASSWORD": "postgres", "PGDATABASE": "psycopg2_test",
            "PSYCOPG2_TESTDB": "psycopg2_test", "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "RUST_BACKTRACE": "0",
        }
        return suite.run(keep | own, self.dir / f"{suite.name}-{way}".replace(" ", "-"))


class Pytest:
    """A suite in a Python package's source distribution."""

    def __init__(self, name, package, tests, leave_out=()):
        self.name, self.package, self.tests, self.leave_out = name, package, tests, leave_out

    def fetch(self):
        required = dict(line.split("==") for line in (HERE / "requirements.txt").read_text().split())
        published = {"psycopg2": "psycopg2-binary"}.get(self.package, self.package)
        self.version = required[published]
        folder = CACHE / "suites" / f"{self.package}-{self.version}"
        if not folder.exists():
            (CACHE / "suites").mkdir(exist_ok=True)
            command = [PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", CACHE / "suites"]
            subprocess.run([*command, f"{self.package}=={self.version}"], check=True)
            archive = next((CACHE / "suites").glob(f"{self.package}-{self.version}*.tar.gz"))
            with tarfile.open(archive) as tar:
                tar.extractall(CACHE / "suites", filter="data")
        self.folder = folder

    def run(self, environment, scratch):
        # The driver is the published build in the environment, not the source beside the tests.
        scratch.mkdir()
        shutil.copytree(self.folder / self.tests, scratch / self.tests)
        report = scratch / "report.xml"
        ignored = [f"--ignore={scratch / self.tests / name}" for name in self.leave_out]
        command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}", f"--junitxml={report}", *ignored, self.tests]
        run(command, environment, scratch)
        found = {}
        for case in xml.parse(report).iter("testcase"):
            bad = case.find("failure") if case.find("failure") is not None else case.find("error")
            name = f"{case.get('classname', '').removeprefix(self.tests + '.')}.{case.get('name')}"
            found[name] = "skipped" if case.find("skipped") is not None else "passed" if bad is None else reason(bad.get("message") or "", bad.text or "")
        return found


class Cargo:
    """A suite in a crate."""

    def __init__(self, name, crate, target, features=()):
        self.name, self.crate, self.target, self.features = name, crate, target, features

    def fetch(self):
        with open(HERE / "rust/Cargo.lock", "rb") as file:
            locked = {package["name"]: package["version"] for package in tomllib.load(file)["package"]}
        self.version = locked[self.crate]
        self.folder = CACHE / "suites" / f"{self.crate}-{self.version}"
        if not self.folder.exists():
            home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
            subprocess.run(["cargo", "fetch", "--locked", "--manifest-path", HERE / "rust/Cargo.toml"], check=True)
            source = next((home / "registry/src").glob(f"*/{self.crate}-{self.version}"))
            shutil.copytree(source, self.folder)
            # Where Cargo took it from its own registry it is a package of a workspace that is not here.
            (self.folder / ".cargo-ok").unlink(missing_ok=True)
        features = ["--features", ",".join(self.features)] if self.features else []
        self.command = ["cargo", "test", "--manifest-path", self.folder / "Cargo.toml", *self.target, *features]
        environment = dict(os.environ) | {"CARGO_TARGET_DIR": str(CACHE / "suites/target"), "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_TEST_DEBUG": "0"}
        subprocess.run([*self.command, "--no-run"], check=True, env=environment)

    def run(self, environment, scratch):
        scratch.mkdir()
        environment |= {"CARGO_TARGET_DIR": str(CACHE / "suites/target"), "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_TEST_DEBUG": "0"}
        # One after the other: they share tables.
        text = run([*self.command, "--no-fail-fast", "--", "--test-threads=1"], environment, scratch)
        found = dict(re.findall(r"^test (\S+) \.\.\. .*?(ok|FAILED|ignored)$", text, re.MULTILINE | re.DOTALL))
        whys = dict(re.findall(r"^---- (\S+) stdout ----\n(.*?)(?=^----|^failures:)", text, re.MULTILINE | re.DOTALL))
        kinds = {"ok": "passed", "ignored": "skipped"}
        return {test: kinds.get(outcome) or reason(whys.get(test, ""), "") for test, outcome in found.items()}


def run(command, environment, scratch):
    process = subprocess.Popen(command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
    try:
        out, _ = process.communicate(timeout=SUITE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
    (scratch / "output").write_text(out)
    return out


def reason(message, text):
    """A failure in a line; the gateway's own words if they are in it."""
    whole = message + "\n" + text
    told = re.search(r"gateway: [^\n\"']*", whole)
    line = told.group(0) if told else next((line for line in message.splitlines() if line.strip()), "failed")
    return "failed: " + line.strip()[:200]


SUITES = [
    Pytest("psycopg2", "psycopg2", "tests"),
    Pytest("pg8000", "pg8000", "test"),
    Cargo("tokio-postgres", "tokio-postgres", ["--test", "test"]),
]


def explained(name, test, known):
    return next((entry["why"] for entry in known if entry["suite"] == name and re.search(entry["tests"], test)), None)


def compare(direct, gateway):
    """Tests with another outcome, as (test, directly, through the gateway)."""
    tests = list(dict.fromkeys([*direct, *gateway]))
    missing = "not run"
    pairs = [(test, direct.get(test, missing), gateway.get(test, missing)) for test in tests]
    return [(t, d, g) for t, d, g in pairs if d.split(":")[0] != g.split(":")[0]]


HEAD = """# Drivers' own test suites

The public test suites of drivers, run against PostgreSQL {server} directly and through the gateway, whose policy permits everything.
Written by `./test --driver-suites`, which takes the suites out of the published packages (`drivers/suites.py`). Tests that
need what the door in front of the gateway does not pass on (TLS, passwords of their own) have the same outcome both ways.
"""


def page(server, results, known):
    parts = [HEAD.format(server=server)]
    rows = ["| suite | version | tests | pass directly | pass through the gateway | another outcome |", "|---|---|---|---|---|---|"]
    for name, result in results.items():
        direct, gateway = result["direct"], result["gateway"]
        passed = [sum(o == "passed" for o in way.values()) for way in (direct, gateway)]
        rows.append(f"| {name} | {result['version']} | {len(direct)} | {passed[0]} | {passed[1]} | {len(compare(direct, gateway))} |")
    parts.append("\n".join(rows) + "\n")
    for name, result in results.items():
        differing = compare(result["direct"], result["gateway"])
        if not differing:
            continue
        parts.append(f"## {name}\n")
        parts.append("| test | directly | through the gateway | why |\n|---|---|---|---|")
        for test, there, here in differing:
            cells = (f"`{test}`", there, here, explained(name, test, known) or "not explained")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("--bin", required=True)
    arguments.add_argument("suites", nargs="*")
    options = arguments.parse_args()
    with open(HERE / "suites.toml", "rb") as file:
        known = tomllib.load(file)["known"]
    chosen = [suite for suite in SUITES if not options.suites or suite.name in options.suites]
    results = {}
    for suite in chosen:
        suite.fetch()
    with Stage(options.bin) as stage:
        server = stage.admin("SHOW server_version")
        for suite in chosen:
            ways = {way: stage.run(suite, way) for way in ("direct", "gateway")}
            results[suite.name] = {"version": suite.version, **ways}
            differing = compare(ways["direct"], ways["gateway"])
            print(f"{suite.name} {suite.version}: {len(ways['direct'])} tests, {len(differing)} with another outcome", flush=True)
            for test, there, here in differing:
                print(f"   {test}: directly {there}; through the gateway {here}\n      {explained(suite.name, test, known)}", flush=True)
    last = json.loads(LAST.read_text()) if LAST.exists() else {}
    last |= results
    LAST.write_text(json.dumps(last))
    PAGE.write_text(page(server, {suite.name: last[suite.name] for suite in SUITES if suite.name in last}, known))
    bad = [n for n, r in results.items() if any(not explained(n, t, known) for t, _, _ in compare(r["direct"], r["gateway"]))]
    print("unexplained: " + ", ".join(bad) if bad else "nothing unexplained")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
