"""docs/regression.md out of the verdicts of a run."""

import collections
import re

HEAD = """# PostgreSQL's own regression SQL

Every statement of PostgreSQL's regression tests, through the gateway with a policy that permits everything, compared with what the server
itself understood. Written by `./test --regression`: SQL of the source package {source}, server {server}, psql as client.

The server says what a statement is in four ways, none of which passes through the gateway's analysis:

- **tree**: the analysed tree and the plan that it writes into its log (`debug_print_parse`, `debug_print_plan`). They list every
  relation with the rights it needs, those below views, inheritance children and partitions included, and every function, operator and
  cast by its object id. Names of object ids are asked on the session itself.
- **event**: event triggers tell what was defined and dropped, and the stored tree of a new view what it reads.
- **tag**: the tag of CommandComplete alone, for commands that have neither (`SET`, `LOCK`, `COPY` of a table, `GRANT`, ...).
- **error**: the statement failed in the server; what it had analysed until then is compared.

A statement is **complete** if the gateway judged every relation that the server names, each for an action that covers the rights it needs
there (reading for `select` and nothing else, changed columns for `update`), every function and operator of a user, every object that was
made, changed or dropped by the command's action, and the command by its kind. It is **wrong** if one is missing, if it ran and was not
judged, or if the server's tree was not seen. **Refused** are valid statements that the gateway does not let through at all; they run past
it, so that the next ones find what they expect. **As the server** are those that both refuse.

What this does not compare: what functions, `DO` blocks and triggers do inside (calling them is judged, and so is an SQL function whose query
the planner puts in place of its call), functions and columns in `EXPLAIN`, `DECLARE` and `CREATE TABLE AS` (of which the log has the plan
alone), the tables below the server's own
views (`pg_roles` is judged as itself), functions that read values of a user's types where the text names no type, and objects that are
neither relations nor routines by more than the action. Statements compared by their tag alone are counted below.

To repeat: `./test --regression` fetches the SQL with the machine's own package sources and takes some minutes;
`drivers/regression/run.py --bin DIR --sql DIR FILE..` runs single files.
"""


# Of a column that is not judged.
MISSED = re.compile(r"\b(filter|order|compute) of ")
UNEXPLAINED = "not explained"


def explained(why, reasons):
    return next((reason["why"] for reason in reasons if re.search(reason["message"], why)), UNEXPLAINED)


def count(verdicts):
    """Statements by kind."""
    counts = collections.Counter()
    for verdict in verdicts:
        counts[verdict["kind"]] += verdict["count"]
    return counts


def kind_of(why):
    """A refusal without what is particular to one statement."""
    return re.sub(r"`[^`]*`|\d+|\"[^\"]*\"", "…", why).split(": syntax error")[0]


def of_columns(labelled):
    """What the run with labelled columns found."""
    compared = [verdict for verdict in labelled if verdict["columns"]]
    wrong = [verdict for verdict in compared if verdict["kind"] == "wrong" and MISSED.search(verdict["why"])]
    files = sorted({verdict["file"] for verdict in labelled})
    return {"files": files, "statements": len(compared), "columns": sum(verdict["columns"] for verdict in compared), "wrong": wrong}


def columns_text(labelled, files):
    found = of_columns(labelled)
    wrong = len(found["wrong"])
    parts = [
        "## Columns\n",
        f"{'The' if len(found['files']) == files else 'Of the'} files {'ran' if len(found['files']) == files else ', '.join(found['files']) + ' ran'}"
        " a second time with every column of every table labelled, because only labelled columns are judged by themselves. What the",
        "server's tree has in `WHERE`, `ON`, `HAVING` (**filter**), in orders, groups and windows (**order**) and in expressions (**compute**) was",
        "followed through its subqueries, joins and CTEs to columns of tables, and must be among what was judged, each for that action.\n",
        f"{found['statements']} statements depend on {found['columns']} columns that way; in {wrong} of them one was not judged.",
    ]
    return "\n".join(parts + [f"- {verdict['file']}: {verdict['why']}" for verdict in found["wrong"]]) + "\n"


def text(server, source, verdicts, labelled, reasons, schedule):
    counts = count(verdicts)
    ran = {verdict["file"] for verdict in verdicts}
    missing = [name for name in schedule if name not in ran]
    authorities = collections.Counter()
    for verdict in verdicts:
        if verdict["kind"] in ("complete", "wrong"):
            authorities[verdict["authority"]] += verdict["count"]
    total = sum(counts.values())
    valid = total - counts["as the server"]
    share = lambda n, of: f"{100 * n / of:.2f} %" if of else "-"
    parts = [HEAD.format(server=server, source=source), "## The count\n"]
    if missing:
        parts.append(f"{len(ran)} of {len(schedule)} files; without {', '.join(missing)}.\n")
    rows = [
        ("statements", total, ""),
        ("as the server: both refuse", counts["as the server"], ""),
        ("valid", valid, "100 %"),
        ("complete", counts["complete"], share(counts["complete"], valid)),
        ("refused", counts["refused"], share(counts["refused"], valid)),
        ("wrong", counts["wrong"], share(counts["wrong"], valid)),
    ]
    parts.append("| | statements | of the valid ones |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows) + "\n")
    rows = [f"| {name} | {authorities[name]} |" for name in ("tree", "event", "tag", "error")]
    parts.append("| compared with the server's | statements |\n|---|---|\n" + "\n".join(rows) + "\n")
    parts.append("## What is refused, and why\n")
    refused = collections.Counter()
    for verdict in verdicts:
        if verdict["kind"] == "refused":
            refused[kind_of(verdict["why"]), explained(verdict["why"], reasons)] += verdict["count"]
    parts.append("| in the gateway's words | statements | why |\n|---|---|---|")
    parts += [f"| {words.replace('|', chr(92) + '|')} | {number} | {why} |" for (words, why), number in refused.most_common()]
    wrong = [verdict for verdict in verdicts if verdict["kind"] == "wrong"]
    if wrong:
        parts.append("\n## What is wrong\n")
        parts += [f"- {verdict['file']}: {verdict['why']}" for verdict in wrong]
    wider = sum(verdict["count"] for verdict in verdicts if verdict["wider"])
    parts.append(
        f"\n## What is judged beyond need\n\n{wider} statements were judged for a relation that the server did not name: "
        "what foreign keys, triggers and row policies may reach, and children that the plan leaves out.\n"
    )
    unnamed = sum(verdict["unnamed"] for verdict in verdicts)
    parts.append(
        f"Of {unnamed} relations, functions and operators the name could not be asked any more after the statement (it dropped them, or its "
        "transaction had failed); these were not compared.\n"
    )
    harmless = sorted({name for verdict in verdicts for name in verdict["harmless"]})
    parts.append(f"The server's own volatile functions that passed as reading: {', '.join(f'`{name}`' for name in harmless) or 'none'}.\n")
    if labelled:
        parts.append(columns_text(labelled, len({verdict["file"] for verdict in verdicts})))
    parts.append("## By file\n\n| file | complete | refused | wrong | as the server |\n|---|---|---|---|---|")
    files = {}
    for verdict in verdicts:
        files.setdefault(verdict["file"], collections.Counter())[verdict["kind"]] += verdict["count"]
    kinds = ("complete", "refused", "wrong", "as the server")
    parts += [f"| {file} | " + " | ".join(str(found[kind]) for kind in kinds) + " |" for file, found in files.items()]
    return "\n".join(parts) + "\n"
