#!/usr/bin/env python3
"""Runs every driver's scenario against PostgreSQL directly and through the gateway, and compares line by line.

    ./test --drivers                     installs, builds, runs everything, writes docs/compatibility.md
    drivers/run.py --bin DIR [CLIENT..]  only these clients; the page has the others' last results

A scenario is a program that prints `feature<TAB>outcome` lines, the same at every run. It finds the server in PGHOST, PGPORT,
PGUSER, PGPASSWORD and PGDATABASE, a certificate to trust in DRIVERS_CA, and a folder of its own in DRIVERS_SCRATCH.
Exit code 1: a scenario was cut short, or something is refused or differs that `known.toml` does not explain.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

# Nothing is left in the tree.
sys.dont_write_bytecode = True

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "agent-gateway-drivers"
# Where the page goes and what it is compared against.
PAGE = HERE.parent / "docs" / "compatibility.md"
# The last result of each client.
LAST = CACHE / "results.json"
# Longest run of one scenario, in seconds: what waits here hangs.
SCENARIO_SECONDS = 600
# Longest start of a server, in seconds.
START_SECONDS = 90
JDBC = "/usr/share/java/postgresql.jar"

PYTHON = str(CACHE / "venv/bin/python")
NODE = ["node"]
# Where the Rust scenarios are built, apart from the gateway's own builds.
RUST = pathlib.Path(os.environ.get("DRIVERS_RUST_TARGET") or CACHE / "rust") / "debug"

CLIENTS = {
    "psql": [str(HERE / "shell/psql.sh")],
    "pgbench": [str(HERE / "shell/pgbench.sh")],
    "pg_dump": [str(HERE / "shell/pg_dump.sh")],
    "psycopg2": [PYTHON, str(HERE / "python/run_psycopg2.py")],
    "psycopg 3": [PYTHON, str(HERE / "python/run_psycopg.py")],
    "psycopg 3 async": [PYTHON, str(HERE / "python/run_psycopg_async.py")],
    "libpq 18": [PYTHON, str(HERE / "python/run_libpq.py")],
    "asyncpg": [PYTHON, str(HERE / "python/run_asyncpg.py")],
    "pg8000": [PYTHON, str(HERE / "python/run_pg8000.py")],
    "SQLAlchemy/psycopg2": [PYTHON, str(HERE / "python/run_sqlalchemy.py"), "psycopg2"],
    "SQLAlchemy/psycopg": [PYTHON, str(HERE / "python/run_sqlalchemy.py"), "psycopg"],
    "SQLAlchemy/asyncpg": [PYTHON, str(HERE / "python/run_sqlalchemy_async.py")],
    "node-postgres": [*NODE, str(HERE / "node/run_pg.js")],
    "postgres.js": [*NODE, str(HERE / "node/run_postgres.js")],
    "JDBC": ["java", "-cp", JDBC, str(HERE / "java/Jdbc.java")],
    "tokio-postgres": [str(RUST / "tokio-postgres")],
    "sqlx": [str(RUST / "sqlx")],
    "diesel": [str(RUST / "diesel")],
}

POLICY = '@id("everything") permit (principal, action, resource) unless { action == Action::"reveal" };\n'


class Stage:
    """PostgreSQL, an identity provider and a gateway, in a folder that goes when they end."""

    def __init__(self, binaries):
        self.bin = pathlib.Path(binaries)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gateway-drivers."))
        self.processes = []
        self.number = 0

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for process in reversed(self.processes):
            process.stdin.close()
            process.terminate()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def spawn(self, name, line, *command):
        """Starts a program and waits for a line of its output."""
        log = open(self.dir / f"{name}.log", "wb")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            text = (self.dir / f"{name}.log").read_text()
            if any(written.startswith(line) for written in text.splitlines()):
                return text
            time.sleep(0.05)
        sys.exit(f"drivers: {name} did not start:\n{(self.dir / f'{name}.log').read_text()}")

    def start(self):
        self.spawn("shop", "ready", self.bin / "demo-shop", self.dir)
        self.port = (self.dir / "port").read_text().strip()
        self.admin_url = (self.dir / "admin.url").read_text().strip()
        self.offer_tls()
        self.spawn("idp", "issuer ", self.bin / "demo-idp", "serve", "--dir", self.dir / "idp")
        os.mkdir(self.dir / "data", 0o700)
        (self.dir / "all.cedar").write_text(POLICY)
        (self.dir / "gateway.toml").write_text(self.config())
        text = self.spawn("gateway", "ready", self.bin / "gateway", "serve", "--config", self.dir / "gateway.toml")
        listening = next(line for line in text.splitlines() if line.startswith("listening on "))
        self.gateway_port = listening.split()[2].rsplit(":", 1)[1]
        return self

    def offer_tls(self):
        """One certificate for the server and the gateway, so that clients trust the same on both ways."""
        self.certificate = self.dir / "server.crt"
        key = self.dir / "server.key"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run([*command.split(), *names, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        data = pathlib.Path(self.admin("SHOW data_directory"))
        for source in (self.certificate, key):
            copy = data / source.name
            shutil.copyfile(source, copy)
            copy.chmod(0o600)
            shutil.chown(copy, data.stat().st_uid, data.stat().st_gid)
        self.admin("ALTER SYSTEM SET ssl = on")
        self.admin("SELECT pg_reload_conf()")

    def config(self):
        issuer = (self.dir / "idp/issuer").read_text().strip()
        return f"""
[gateway]
data_dir = "data"
[[issuer]]
issuer = "{issuer}"
audiences = ["gateway"]
discovery = true
ca_file = "idp/ca.crt"
[issuer.claims]
kind = "agent"
kind_claim = "kind"
[policy]
files = ["all.cedar"]
[[target]]
name = "shop"
protocol = "postgres"
host = "127.0.0.1"
port = {self.port}
sslmode = "disable"
credential = {{ username = "app", password_file = "app.password" }}
[[listener]]
address = "127.0.0.1:0"
target = "shop"
tls = {{ cert = "server.crt", key = "server.key" }}
"""

    def admin(self, sql, database=None):
        url = self.admin_url if database is None else self.admin_url.rsplit("/", 1)[0] + "/" + database
        command = ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url, "-f", "-"]
        done = subprocess.run(command, input=sql, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"drivers: could not prepare the server: {done.stderr}")
        return done.stdout.strip()

    def fresh_databases(self):
        """The same databases for every run of a scenario; whatever the last one left is gone."""
        for name in ("drivers", "restored"):
            self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            self.admin(f"CREATE DATABASE {name} OWNER app")
        self.admin("SET SESSION AUTHORIZATION app;\n" + "".join(open(HERE / "fixture.sql")), "drivers")

    def environment(self, side):
        token = [self.bin / "demo-idp", "token", "--dir", self.dir / "idp", "--sub", "driver", "--ttl", "1h"]
        own = {
            "PGHOST": "127.0.0.1",
            "PGDATABASE": "drivers",
            "DRIVERS_CA": str(self.certificate),
            "NODE_PATH": str(CACHE / "node/node_modules"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        if side == "direct":
            own |= {"PGPORT": self.port, "PGUSER": "app", "PGPASSWORD": (self.dir / "app.password").read_text()}
        else:
            password = subprocess.run(token, check=True, capture_output=True, text=True).stdout.strip()
            own |= {"PGPORT": self.gateway_port, "PGUSER": "agent", "PGPASSWORD": password}
        return {k: v for k, v in os.environ.items() if not k.startswith("PG")} | rust_versions() | own

    def run(self, command, side):
        """The lines of one run: a list of (feature, outcome)."""
        self.fresh_databases()
        self.number += 1
        scratch = self.dir / f"scratch-{self.number}"
        scratch.mkdir()
        environment = self.environment(side) | {"DRIVERS_SCRATCH": str(scratch)}
        with open(scratch / "stderr", "wb") as stderr:
            process = subprocess.Popen(
                command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                text=True, start_new_session=True,
            )
            try:
                out, _ = process.communicate(timeout=SCENARIO_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, _ = process.communicate()
        out = out.replace(f"port {environment['PGPORT']}", "port N")
        lines = [tuple(line.split("\t", 1)) for line in out.splitlines() if "\t" in line]
        whole = bool(lines) and lines[-1] == ("end", "ok")
        if not whole:
            tail = (scratch / "stderr").read_text(errors="replace")[-2000:]
            print(f"   {side}: cut short (exit {process.returncode}) after {lines[-1:]}\n{tail}", file=sys.stderr)
        return [line for line in lines if line[0] != "end"], whole


def rust_versions():
    """Crates do not know their own versions; their lock file does."""
    with open(HERE / "rust/Cargo.lock", "rb") as file:
        locked = {package["name"]: package["version"] for package in tomllib.load(file)["package"]}
    names = ("tokio-postgres", "sqlx", "diesel")
    return {f"DRIVERS_VERSION_{name.upper().replace('-', '_')}": locked[name] for name in names}


def judge(direct, gateway):
    """What the page says of one feature: its kind and the words."""
    if gateway is None:
        return "differs", "no outcome through the gateway"
    if direct == gateway:
        return ("ok", "") if direct.startswith("ok") else ("as the server", direct)
    if "gateway:" in gateway:
        return "refused", reason(gateway)
    return "differs", f"directly {direct}; through the gateway {gateway}"


def reason(outcome):
    """The gateway's own words in an outcome, without what a driver wraps around them."""
    text = re.split(r"\\\\n|\\n|DETAIL:", outcome.split("gateway:", 1)[1])[0]
    text = re.split(r"""['"\]\)|]+,|['"]+[\]\)]""", text)[0]
    text = text.replace("\\\\", "").replace('\\"', '"').strip(" '\\")
    # A closing quote may have gone with the wrapping.
    return text + '"' * (text.count('"') % 2)


def compare(direct, gateway):
    """A dictionary from feature to (kind, words), in the scenario's order."""
    there, here = dict(direct), dict(gateway)
    found = {feature: judge(outcome, here.get(feature)) for feature, outcome in there.items()}
    return found | {f: ("differs", f"only through the gateway: {o}") for f, o in here.items() if f not in there}


def known_differences():
    with open(HERE / "known.toml", "rb") as file:
        entries = tomllib.load(file)["known"]
    return {(client, entry["feature"]): entry["why"] for entry in entries for client in entry.get("clients", CLIENTS)}


def run_client(stage, name, known):
    began = time.monotonic()
    print(f"{name} ...", end=" ", flush=True)
    (direct, whole_there), (gateway, whole_here) = (stage.run(CLIENTS[name], side) for side in ("direct", "gateway"))
    versions = dict(direct).get("version", "unknown")
    found = compare([l for l in direct if l[0] != "version"], [l for l in gateway if l[0] != "version"])
    kinds = [kind for kind, _ in found.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("ok", "as the server", "refused", "differs"))
    print(f"{versions}: {counts} ({time.monotonic() - began:.0f} s)", flush=True)
    for feature, (kind, words) in found.items():
        if kind != "ok":
            why = known.get((name, feature))
            print(f"   {feature}: {kind}: {words}" + (f"\n      known: {why}" if why else ""), flush=True)
    unexplained = [f for f, (kind, _) in found.items() if kind in ("differs", "refused") and (name, f) not in known]
    return versions, found, whole_there and whole_here and not unexplained


def write_page(server, results, known):
    """The page, once every client has a result: of this run, or of the last one it took part in."""
    import page

    last = json.loads(LAST.read_text()) if LAST.exists() else {}
    last |= results
    LAST.write_text(json.dumps(last))
    if missing := [name for name in CLIENTS if name not in last]:
        print(f"the page is not written, there is no result yet of: {', '.join(missing)}")
        return
    PAGE.write_text(page.text(server, {name: last[name] for name in CLIENTS}, known))
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("--bin", required=True)
    arguments.add_argument("clients", nargs="*")
    options = arguments.parse_args()
    wrong = [name for name in options.clients if name not in CLIENTS]
    if wrong:
        sys.exit(f"drivers: no client `{wrong[0]}`; there are: {', '.join(CLIENTS)}")
    known = known_differences()
    with Stage(options.bin) as stage:
        server = stage.admin("SHOW server_version")
        results = {name: run_client(stage, name, known) for name in options.clients or CLIENTS}
    write_page(server, results, known)
    bad = [name for name, (_, _, well) in results.items() if not well]
    total = sum(len(found) for _, found, _ in results.values())
    print(f"{total} features of {len(results)} clients; " + (f"unexplained: {', '.join(bad)}" if bad else "nothing unexplained"))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
