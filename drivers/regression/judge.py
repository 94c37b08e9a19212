"""Compares what the gateway judged with what the server understood, for one query."""

import re

# Bits of AclMode (PostgreSQL source, nodes/parsenodes.h) and the actions any of which stands for them.
RIGHTS = {1: {"insert", "copy_in"}, 2: {"select", "copy_out"}, 4: {"update", "lock"}, 8: {"delete"}}
UPDATE = 4
# What commands of a tag that begins so do, as actions.
DOES = {
    "CREATE": {"create"},
    "SELECT INTO": {"create"},
    "ALTER": {"alter", "create", "grant", "revoke"},
    "DROP": {"drop"},
    "COMMENT": {"comment"},
    "SECURITY LABEL": {"comment", "alter"},
    "GRANT": {"grant"},
    "REVOKE": {"revoke"},
    "REFRESH": {"maintain", "alter", "update"},
    "REINDEX": {"maintain", "alter"},
    "IMPORT": {"create", "alter"},
}
ROUTINES = ("function", "procedure", "aggregate")
FIRST_USER_OID = 16384
# The language SQL, by its object id (PostgreSQL source, catalog/pg_language.dat), behind a function's volatility.
SQL = "14"
TABLES = ("table", "view", "materialized view", "sequence", "foreign table", "index")
# CommandComplete tags by the analysis's kind, where they are not the same words.
TAGS = {
    "rollback_to": {"ROLLBACK"},
    # Of a transaction that has failed.
    "commit": {"ROLLBACK"},
    "prepare_transaction": {"ROLLBACK"},
    "select_into": {"SELECT"},
    "create_table_as": {"SELECT", "CREATE TABLE AS", "INSERT"},
    "create_materialized_view": {"SELECT", "CREATE MATERIALIZED VIEW"},
    "create_view": {"CREATE VIEW"},
    "copy_from": {"COPY"},
    "copy_to": {"COPY"},
    "close": {"CLOSE CURSOR", "CLOSE CURSOR ALL"},
    "truncate": {"TRUNCATE TABLE"},
    "lock": {"LOCK TABLE"},
    "refresh": {"REFRESH MATERIALIZED VIEW"},
    "explain_analyze": {"EXPLAIN"},
    # ALTER TABLE ALL IN TABLESPACE and its kin.
    "alter_tablespace": {"ALTER TABLE", "ALTER INDEX", "ALTER MATERIALIZED VIEW", "ALTER TABLESPACE"},
    # What EXECUTE stands for tells its own name.
    "execute": {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "CREATE TABLE AS"},
    "discard": {"DISCARD ALL", "DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP"},
    "deallocate": {"DEALLOCATE", "DEALLOCATE ALL"},
    "set_constraints": {"SET CONSTRAINTS"},
    "set_transaction": {"SET"},
    "begin": {"START TRANSACTION"},
}
RENAMES = re.compile(r"rename_|alter_|comment|set_schema|owner")


class Verdict:
    """`kind` is one of complete, refused, wrong, as the server; `why` explains all but the first."""

    def __init__(self, kind, why="", wider=(), authority="tag", unnamed=0, columns=0, harmless=()):
        self.kind, self.why, self.wider, self.authority = kind, why, list(wider), authority
        # Relations and functions whose names the server could no longer tell, and columns that were compared.
        self.unnamed, self.columns = unnamed, columns
        # Volatile functions of the server's own that are not judged as calls.
        self.harmless = list(harmless)


def judge(asked, operations, seen, name, labels=frozenset()):
    if asked.denial:
        if asked.injected and asked.error:
            return Verdict("as the server", asked.error["C"])
        return Verdict("refused", asked.denial["M"].removeprefix("gateway: "))
    if not operations:
        if asked.tags:
            return Verdict("wrong", "it ran and was not judged")
        return Verdict("as the server", asked.error["C"] if asked.error else "empty")
    wrong = list(differences(asked, operations, seen, name))
    dependent = depends_on(seen, name, labels)
    wrong += [f"{action} of {'.'.join(c)} is not judged" for action, *c in sorted(dependent - inferred(operations))]
    authority = authority_of(asked, seen)
    if authority == "tree" and not seen.trees and not any(o["kind"] == "execute" for o in operations):
        wrong.append("the server's tree was not seen")
    unnamed = [oid for kind, oids in enumerate(seen.oids()[:3]) for oid in oids if name(kind, oid) is None]
    facts = {"authority": authority, "unnamed": len(unnamed), "columns": len(dependent)}
    if wrong:
        return Verdict("wrong", "; ".join(sorted(set(wrong))), **facts)
    return Verdict("complete", wider=sorted(wider(operations, seen, name)), harmless=sorted(harmless(operations, seen, name)), **facts)


def authority_of(asked, seen):
    """Which of the server's words a statement was compared with."""
    if asked.error:
        return "error"
    if seen.defined or seen.dropped:
        return "event"
    # A utility command's tree holds nothing but the command.
    rows = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE")
    if seen.relations() or seen.functions or any(tag.startswith(rows) for tag in asked.tags):
        return "tree"
    return "tag"


def depends_on(seen, name, labels):
    """Labelled columns that conditions, orders and computations depend on: `(action, schema, table, column)`."""
    found = set()
    if seen.columns is None:
        return found
    for action in ("filter", "order", "compute"):
        for oid, number in getattr(seen.columns, action):
            table, columns = name(0, oid), name(4, oid) or {}
            names = [columns.get(number)] if number else columns.values()
            found |= {(action, *table, column) for column in names if table and (*table, column) in labels}
    return found


def inferred(operations):
    return {(a, schema, table, n) for o in operations for a, kind, schema, n, table in o["accesses"] if kind == "Column"}


def harmless(operations, seen, name):
    calls = calls_of(operations)
    for oid in seen.functions:
        known = name(1, oid)
        if oid < FIRST_USER_OID and known and known[2].startswith("v") and (known[0], known[1]) not in calls:
            yield known[1]


def tables_of(operations):
    found = {}
    for operation in operations:
        for action, kind, schema, name, _ in operation["accesses"]:
            if kind == "Table":
                found.setdefault((schema, name), set()).add(action)
    return found


def calls_of(operations):
    return {(s, n) for o in operations for action, kind, s, n, _ in o["accesses"] if kind == "Function"}


def differences(asked, operations, seen, name):
    tables, calls = tables_of(operations), calls_of(operations)
    # The planner puts what an SQL function selects in the place of its call, which is judged.
    parsed, functions = {oid for oid, *_ in seen.parsed}, (name(1, oid) for oid in seen.functions)
    inlines = any(f and f[2].endswith(SQL) and f[:2] in calls for f in functions)
    # Of EXPLAIN only the plan is told, where the call is gone.
    inlines |= any(o["kind"].startswith("explain") for o in operations) and any(schema != "pg_catalog" for schema, _ in calls)
    # The server's own views are judged as such, not as the tables they show, if the plan has the view.
    shown = {below for oid, *_ in seen.parsed | seen.planned for below in name(5, oid) or ()} - parsed
    for oid, kind, bits, changes in seen.parsed | seen.planned:
        known = name(0, oid)
        if known is None:
            continue
        actions = lookup(tables, *known)
        if actions is None:
            if oid in shown or (inlines and oid not in parsed):
                continue
            yield f"relation {'.'.join(known)} is not judged"
            continue
        for bit, fit in RIGHTS.items():
            fit = {"update"} if bit == UPDATE and changes else fit
            if bits & bit and not actions & fit:
                yield f"relation {'.'.join(known)} is judged for {sorted(actions)}, not for {sorted(fit)[0]}"
    for what, oids in ((1, seen.functions), (2, seen.operators)):
        for oid in oids:
            known = name(what, oid)
            if oid >= FIRST_USER_OID and known:
                words = known[1] if what == 1 else f"operator {known[1]}"
                if not any(same_schema(schema, known[0]) and called == words for schema, called in calls):
                    yield f"function {known[0]}.{words} is not judged"
    for written, casts in ((True, seen.casts), (False, seen.implicit)):
        for oid, result in casts:
            known, to = name(1, oid), name(3, result)
            if oid < FIRST_USER_OID or not known or known[:2] in calls:
                continue
            if written and to and (to[0], f"type {to[1]}") not in calls:
                yield f"cast to {'.'.join(to)} by {'.'.join(known[:2])} is not judged"
            elif not any(words.startswith("type ") for _, words in calls):
                yield f"cast by {'.'.join(known[:2])} is not judged"
    yield from definitions(asked, operations, seen)
    if len(operations) == len(asked.tags) and not asked.error:
        for operation, tag in zip(operations, asked.tags):
            if not fits(operation["kind"], tag):
                yield f"kind {operation['kind']} is not {tag}"


def lookup(tables, schema, name):
    if (schema, name) in tables:
        return tables[schema, name]
    # A temporary schema has a number to the server, and none in a statement or in what was dropped.
    for (there, known), actions in tables.items():
        if known == name and there.startswith("pg_temp") and schema.startswith("pg_temp"):
            return actions
    return None


def definitions(asked, operations, seen):
    if any(everything(o) for o in operations):
        return
    tags = {re.sub(r"[ 0-9]+$", "", tag) for tag in asked.tags}
    for tag, kind, schema, name, identity, reads in seen.defined:
        made_here = tag in tags or "CREATE SCHEMA" in tags
        # Of what a schema is made with, tables bring sequences and indexes along.
        if tag in tags or (made_here and kind not in ("sequence", "index")):
            yield from defined(operations, tag, kind, schema, name, identity)
        for there, read in (reads or []) if made_here else []:
            # What the same statement makes is new.
            if not {"select", "create"} & (lookup(tables_of(operations), there, read) or set()):
                yield f"{tag} reads {there}.{read}, which is not judged"
    for tag, kind, schema, name in seen.dropped:
        if tag in tags and tag.removeprefix("DROP ").lower() == kind:
            yield from defined(operations, tag, kind, schema, name, f"{schema}.{name}")


def defined(operations, tag, kind, schema, name, identity):
    """What an event trigger tells: the object itself if it is a relation or routine, and at least an object of some kind for others."""
    wanted = next((does for begin, does in DOES.items() if tag.startswith(begin)), set())
    if kind in TABLES and kind != "index" and name:
        actions = lookup(tables_of(operations), schema, name)
    elif kind in ROUTINES and name:
        accesses = [access for o in operations for access in o["accesses"] if access[1] == "Function"]
        actions = {a for a, _, s, n, _ in accesses if n == name and same_schema(s, schema)} or None
    else:
        actions = {access[0] for o in operations for access in o["accesses"]}
    if kind == "index":
        # An index is a part of its table.
        wanted = {"alter"}
    if actions is None:
        yield f"{tag} of {identity} is not judged"
    elif not actions & wanted:
        yield f"{tag} of {identity} is judged for {sorted(actions)}"


def same_schema(judged, there):
    return judged == there or (judged.startswith("pg_temp") and there.startswith("pg_temp"))


def everything(operation):
    """ALTER ... ALL IN TABLESPACE, which is judged as a change of the server."""
    return any(action == "alter" and kind == "Server" for action, kind, *_ in operation["accesses"])


def fits(kind, tag):
    words = re.sub(r"[ 0-9]+$", "", tag)
    same = kind.replace("_", " ").upper()
    return words in TAGS.get(kind, ()) or words == same or (RENAMES.match(kind) and words.startswith("ALTER "))


def wider(operations, seen, name):
    """Relations that were judged and that the server did not need."""
    if not seen.trees or not all(o["kind"] in ("select", "insert", "update", "delete", "merge") for o in operations):
        return
    there = {name(0, oid) for oid in seen.relations()}
    if None in there:
        return
    for schema, table in tables_of(operations):
        if (schema, table) not in there and not schema.startswith("pg_temp"):
            yield f"{schema}.{table}"
