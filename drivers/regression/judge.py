"""Compares what the gateway judged with what the server understood, for one query."""

import re

# Bits of AclMode (PostgreSQL source, nodes/parsenodes.h) and the actions any of which stands for them.
RIGHTS = {
    1: {"insert", "copy_in"},
    2: {"select", "copy_out", "update", "delete", "lock", "maintain"},
    4: {"update", "lock"},
    8: {"delete"},
}
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
    "execute": {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE TABLE AS"},
    "discard": {"DISCARD ALL", "DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP"},
    "deallocate": {"DEALLOCATE", "DEALLOCATE ALL"},
    "set_constraints": {"SET CONSTRAINTS"},
}
RENAMES = re.compile(r"rename_|alter_|comment|set_schema|owner")


class Verdict:
    """`kind` is one of complete, refused, wrong, as the server; `why` explains all but the first."""

    def __init__(self, kind, why="", wider=(), authority="tag"):
        self.kind, self.why, self.wider, self.authority = kind, why, list(wider), authority


def judge(asked, operations, seen, name):
    if asked.denial:
        if asked.injected and asked.error:
            return Verdict("as the server", asked.error["C"])
        return Verdict("refused", asked.denial["M"].removeprefix("gateway: "))
    wrong = list(differences(asked, operations, seen, name))
    authority = authority_of(asked, seen)
    if wrong:
        return Verdict("wrong", "; ".join(sorted(set(wrong))), authority=authority)
    return Verdict("complete", wider=sorted(wider(operations, seen, name)), authority=authority)


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


def tables_of(operations):
    found = {}
    for operation in operations:
        for action, kind, schema, name in operation["accesses"]:
            if kind == "Table":
                found.setdefault((schema, name), set()).add(action)
    return found


def calls_of(operations):
    return {(s, n) for o in operations for action, kind, s, n in o["accesses"] if kind == "Function"}


def differences(asked, operations, seen, name):
    tables, calls = tables_of(operations), calls_of(operations)
    for oid, kind, bits in seen.parsed | seen.planned:
        known = name(0, oid)
        if known is None:
            continue
        actions = lookup(tables, *known)
        if actions is None:
            yield f"relation {'.'.join(known)} is not judged"
            continue
        for bit, fit in RIGHTS.items():
            if bits & bit and not actions & fit:
                yield f"relation {'.'.join(known)} is judged for {sorted(actions)}, not for {sorted(fit)[0]}"
    for what, oids in ((1, seen.functions), (2, seen.operators)):
        for oid in oids:
            known = name(what, oid)
            if oid >= 16384 and known:
                words = known[1] if what == 1 else f"operator {known[1]}"
                if (known[0], words) not in calls and ("(unresolved)", words) not in calls:
                    yield f"function {known[0]}.{words} is not judged"
    for oid in seen.casts:
        known = name(1, oid)
        if oid >= 16384 and known and not any(words.startswith("type ") or words == known[1] for _, words in calls):
            yield f"cast by {'.'.join(known)} is not judged"
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
        if known == name and (there == "(unresolved)" or (there.startswith("pg_temp") and schema.startswith("pg_temp"))):
            return actions
    return None


def definitions(asked, operations, seen):
    tables = tables_of(operations)
    if any(o["kind"].startswith("rename_") or everything(o) for o in operations):
        # What is renamed is judged by its old name, which the server no longer tells.
        return
    tags = {re.sub(r"[ 0-9]+$", "", tag) for tag in asked.tags}
    for tag, kind, schema, name, _, reads in seen.defined:
        if kind in TABLES and kind != "index" and name and tag in tags and lookup(tables, schema, name) is None:
            yield f"{tag} of {schema}.{name} is not judged"
        for there, read in reads or []:
            if lookup(tables, there, read) is None:
                yield f"{tag} reads {there}.{read}, which is not judged"
    for tag, kind, schema, name in seen.dropped:
        if kind in TABLES and kind != "index" and tag in tags and tag.removeprefix("DROP ").lower() == kind and lookup(tables, schema, name) is None:
            yield f"{tag} of {schema}.{name} is not judged"


def everything(operation):
    """ALTER ... ALL IN TABLESPACE, which is judged as a change of the server."""
    return any(action == "alter" and kind == "Server" for action, kind, _, _ in operation["accesses"])


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
