"""What the server itself understood: the trees it writes into its log, and what its event triggers tell."""

import json
import os
import re
import threading
import time

import tree

# Longest wait for the server's log, in seconds.
PATIENCE = 120
# Lines that are kept of one connection: more than a statement has.
OTHERS = 100_000

SETUP = r"""
CREATE SCHEMA observer;
GRANT USAGE ON SCHEMA observer TO PUBLIC;
CREATE FUNCTION observer.reads(relation oid) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT jsonb_agg(DISTINCT jsonb_build_array(n.nspname, c.relname))
    FROM pg_rewrite r, regexp_matches(r.ev_action::text, ':rtekind 0 :relid (\d+)', 'g') AS found
    JOIN pg_class c ON c.oid = found[1]::oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.ev_class = relation AND c.oid <> relation
$$;
CREATE FUNCTION observer.defined() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE told jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_array(d.command_tag, d.object_type, n.nspname, coalesce(c.relname, p.proname), d.object_identity,
        CASE WHEN d.command_tag IN ('CREATE VIEW', 'CREATE MATERIALIZED VIEW') THEN observer.reads(d.objid) END)) INTO told
    FROM pg_event_trigger_ddl_commands() d
    LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_namespace n ON n.oid IN (c.relnamespace, p.pronamespace);
    RAISE LOG 'observer defined %', coalesce(told, '[]');
END $$;
CREATE FUNCTION observer.dropped() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE told jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_array(tg_tag, d.object_type, d.schema_name, coalesce(d.object_name, d.address_names[array_length(d.address_names, 1)]))) INTO told
    FROM pg_event_trigger_dropped_objects() d WHERE d.original;
    RAISE LOG 'observer dropped %', coalesce(told, '[]');
END $$;
CREATE EVENT TRIGGER observer_defined ON ddl_command_end EXECUTE FUNCTION observer.defined();
CREATE EVENT TRIGGER observer_dropped ON sql_drop EXECUTE FUNCTION observer.dropped();
ALTER DATABASE regression SET debug_print_parse = on;
ALTER DATABASE regression SET debug_print_plan = on;
ALTER DATABASE regression SET debug_pretty_print = off;
-- The files turn plans off that are then very expensive on paper: compiling the gateway's questions would take seconds each.
ALTER DATABASE regression SET jit = off;
"""

VIEWS = r"""
SELECT DISTINCT w.ev_class, (m.part)[1]
FROM pg_rewrite w, regexp_matches(w.ev_action::text, ':rtekind 0 :relid (\d+)', 'g') AS m(part)
WHERE w.ev_class < 16384 AND (m.part)[1]::oid <> w.ev_class
"""

# RTEs of relations. Up to PostgreSQL 15 the permissions asked for stand in them, with the columns that UPDATE changes.
RELATION = re.compile(
    r"^(\d+) :relkind (.) .*?:requiredPerms (\d+) :checkAsUser \d+ :selectedCols \([^)]*\) :insertedCols \([^)]*\) :updatedCols \(([^)]*)\)",
    re.DOTALL,
)
# Functions called, by node: FUNCEXPR, AGGREF, WINDOWFUNC; operators by OPEXPR and its kin.
# A FUNCEXPR says whether it was written as a call (0, 3), as a cast (1), or not at all (2).
FUNCTION = re.compile(
    r"\{(?:FUNCEXPR :funcid (\d+) :funcresulttype (\d+) :funcretset \w+ :funcvariadic \w+ :funcformat (\d)|(?:AGGREF :aggfnoid|WINDOWFUNC :winfnoid) (\d+))"
)
OPERATOR = re.compile(r"\{(?:OPEXPR|DISTINCTEXPR|NULLIFEXPR|SCALARARRAYOPEXPR) :opno (\d+)")
FIRST_USER_OID = 16384


def entries(text):
    """The range table entries of relations."""
    found = (RELATION.match(part) for part in text.split(":rtekind 0 :relid ")[1:])
    return [match.groups() for match in found if match]


class Log:
    """The server's log, read as it grows. A record begins with \\x01, its process and a bar."""

    def __init__(self, path):
        self.path = path
        self.file = open(path, encoding="utf-8", errors="replace", newline="\n")
        self.rest = ""
        self.read = 0
        self.turn = threading.Lock()
        # Lines of other connections, which are read along with those that are waited for.
        self.others = {}

    def records(self, pid, marker):
        """The records of a process up to the one whose statement is `marker`: dictionaries from severity to text."""
        with self.turn:
            return self.up_to(str(pid), marker)

    def up_to(self, pid, marker):
        found, current = [], None
        lines = self.others.pop(pid, [])
        until = time.monotonic() + PATIENCE
        while True:
            for content in lines:
                kind, _, content = content.partition(":  ")
                if kind not in ("DETAIL", "HINT", "CONTEXT", "STATEMENT", "QUERY", "LOCATION"):
                    current = {"kind": kind, "message": content.rstrip("\n")}
                    found.append(current)
                elif current is not None:
                    current[kind] = content.rstrip("\n").replace("\n\t", "\n")
            if any(record.get("STATEMENT", "") == marker for record in found):
                return found
            text = self.file.read(1 << 22)
            if not text:
                if time.monotonic() > until:
                    raise TimeoutError(f"the server's log has no `{marker}`")
                time.sleep(0.0003)
                lines = []
                continue
            self.read += len(text)
            records = (self.rest + text).split("\x01")
            self.rest = records.pop()
            if self.rest.endswith("\n") and marker in self.rest:
                records.append(self.rest)
                self.rest = ""
            lines = []
            for owner, _, content in (record.partition("|") for record in records):
                kept = lines if owner == pid else self.others.setdefault(owner, [])
                kept.append(content)
                del kept[:-OTHERS]

    def shorten(self):
        """Gives the disk back what has been read; the server appends. Seldom, as what it writes at this very moment would be lost."""
        with self.turn:
            if self.read > 2 << 30 and not self.rest:
                os.truncate(self.path, 0)
                self.file.seek(0)
                self.read = 0


class Seen:
    """What the server said of one query."""

    def __init__(self):
        self.parsed, self.planned = set(), set()
        self.functions, self.operators = set(), set()
        # Functions that casts call, each with the type it yields: casts that are written, and those that are not.
        self.casts, self.implicit = set(), set()
        self.trees, self.plans = 0, 0
        self.columns = None
        self.defined, self.dropped = [], []

    def take(self, record):
        message = record["message"]
        if message.startswith("observer defined "):
            self.defined += json.loads(message[len("observer defined ") :])
        elif message.startswith("observer dropped "):
            self.dropped += json.loads(message[len("observer dropped ") :])
        elif "CONTEXT" in record:
            return
        elif message in ("parse tree:", "plan:"):
            # The server breaks its lines at spaces.
            text = record.get("DETAIL", "").replace("\n", " ")
            found = {(int(oid), kind, int(bits), columns != "b") for oid, kind, bits, columns in entries(text)}
            (self.parsed if message == "parse tree:" else self.planned).update(found)
            if message == "plan:":
                self.plans += 1
                return
            self.trees += 1
            for called, result, form, aggregate in FUNCTION.findall(text):
                if form in ("1", "2"):
                    (self.casts if form == "1" else self.implicit).add((int(called), int(result)))
                else:
                    self.functions.add(int(called or aggregate))
            self.operators |= {int(oid) for oid in OPERATOR.findall(text)}
            if self.columns is not None:
                self.columns.take(text)

    def want_columns(self):
        self.columns = tree.Columns()
        return self

    def relations(self):
        return {oid for oid, *_ in self.parsed | self.planned}

    def oids(self):
        """Of relations, functions, operators and types."""
        casts = self.casts | self.implicit
        columns = set() if self.columns is None else {oid for oid, _ in self.columns.filter | self.columns.order | self.columns.compute}
        return self.relations() | columns, self.functions | {f for f, _ in casts}, self.operators, {t for _, t in casts}


class Names:
    """What object ids are called, asked on the session itself: it alone sees what it has not committed."""

    def __init__(self):
        self.fixed = {}
        self.last = {}
        # Columns of all tables met, `(schema, table, column)`.
        self.columns = set()

    def of(self, back, seen):
        wanted = [sorted(oids) for oids in seen.oids()]
        missing = [[oid for oid in oids if (i, oid) not in self.fixed] for i, oids in enumerate(wanted)]
        if any(missing) and back.status != b"E":
            relations, functions, operators, types = ("'{" + ",".join(map(str, oids)) + "}'::pg_catalog.oid[]" for oids in missing)
            rows = back.ask(
                "SELECT 0, c.oid, n.nspname, c.relname, NULL FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                f" ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE c.oid OPERATOR(pg_catalog.=) ANY ({relations})"
                " UNION ALL SELECT 1, p.oid, n.nspname, p.proname, pg_catalog.concat(p.provolatile, p.prolang) FROM pg_catalog.pg_proc p"
                " JOIN pg_catalog.pg_namespace n"
                f" ON n.oid OPERATOR(pg_catalog.=) p.pronamespace WHERE p.oid OPERATOR(pg_catalog.=) ANY ({functions})"
                " UNION ALL SELECT 2, o.oid, n.nspname, o.oprname, NULL FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n"
                f" ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace WHERE o.oid OPERATOR(pg_catalog.=) ANY ({operators})"
                " UNION ALL SELECT 3, t.oid, n.nspname, t.typname, NULL FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n"
                f" ON n.oid OPERATOR(pg_catalog.=) t.typnamespace WHERE t.oid OPERATOR(pg_catalog.=) ANY ({types})"
                " UNION ALL SELECT 4, a.attrelid, NULL, a.attname, a.attnum::pg_catalog.text FROM pg_catalog.pg_attribute a"
                f" WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ({relations}) AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped"
            )
            self.note(rows or [])
        return lambda kind, oid: self.fixed.get((kind, oid)) or self.last.get((kind, oid))

    def know_views(self, rows):
        """What the server's own views show, as `view|table` by object id."""
        for row in rows:
            view, table = map(int, row.split("|"))
            self.fixed.setdefault((5, view), set()).add(table)
        for oid in [oid for kind, oid in self.fixed if kind == 5]:
            open_views = list(self.fixed[5, oid])
            while open_views:
                for below in self.fixed.get((5, open_views.pop()), set()) - self.fixed[5, oid]:
                    self.fixed[5, oid].add(below)
                    open_views.append(below)

    def note(self, rows):
        # A relation before its columns.
        for kind, oid, schema, name, more in sorted(rows, key=lambda row: int(row[0])):
            kind, oid = int(kind), int(oid)
            where = self.fixed if oid < FIRST_USER_OID else self.last
            if kind == 0:
                where[4, oid] = {}
            if kind == 4:
                where[4, oid][int(more)] = name
                table = where[0, oid]
                if oid >= FIRST_USER_OID and not table[0].startswith("pg_temp"):
                    self.columns.add((*table, name))
            else:
                where[kind, oid] = (schema, name, more) if kind == 1 else (schema, name)
