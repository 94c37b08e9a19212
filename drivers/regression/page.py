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
there, every function and operator of a user, and the command by its kind. It is **wrong** if one is missing. **Refused** are valid
statements that the gateway does not let through at all; they run past it, so that the next ones find what they expect.
**As the server** are those that both refuse.
"""


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


def text(server, source, verdicts, reasons):
    counts = count(verdicts)
    authorities = collections.Counter()
    for verdict in verdicts:
        if verdict["kind"] in ("complete", "wrong"):
            authorities[verdict["authority"]] += verdict["count"]
    total = sum(counts.values())
    valid = total - counts["as the server"]
    share = lambda n, of: f"{100 * n / of:.2f} %" if of else "-"
    parts = [HEAD.format(server=server, source=source), "## The count\n"]
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
    parts.append("## By file\n\n| file | complete | refused | wrong | as the server |\n|---|---|---|---|---|")
    files = {}
    for verdict in verdicts:
        files.setdefault(verdict["file"], collections.Counter())[verdict["kind"]] += verdict["count"]
    kinds = ("complete", "refused", "wrong", "as the server")
    parts += [f"| {file} | " + " | ".join(str(found[kind]) for kind in kinds) + " |" for file, found in files.items()]
    return "\n".join(parts) + "\n"
