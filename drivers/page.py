"""docs/compatibility.md out of the results of a run."""

HEAD = """# Compatibility

How stock PostgreSQL clients behave behind the gateway. Written by `./test --drivers`, which runs each client's scenario
(`drivers/`) against PostgreSQL directly and through the gateway and compares every outcome, values and errors included. The policy
permits everything, no column has a label, and content masking is on over data that holds nothing to mask: so whatever is
not `ok` is a limit of the gateway, or of PostgreSQL {server} behind it.

To repeat it: `./test --drivers` fetches the clients from their package registries, in the versions below (`drivers/requirements.txt`,
`drivers/node/package.json`, `drivers/rust/Cargo.lock`; psql, pgbench, pg_dump and JDBC are the distribution's), into
`~/.cache/agent-gateway-drivers`. The run fails if something is refused or differs that `drivers/known.toml` does not explain.

- **ok**: the same, to the byte where bytes are compared.
- **refused**: the gateway says no, in its own words; the session goes on.
- **differs**: another outcome; why stands below.
- **as the server**: fails directly and through the gateway, in the same words.

What is newer than PostgreSQL {server} was tried so: protocol 3.2 and direct TLS **to the gateway** with a real client, libpq 18 (features
below); **from the gateway to a server** (`sslnegotiation = "direct"`, `max_protocol_version = "3.2"` of a target) with a double that
speaks them as PostgreSQL 18 documents it, its long cancel keys included (`testkit::PgDouble`, `gateway-pg/tests/it/newer.rs`), for
lack of a packaged server that does. Drivers' own test suites: [driver-suites.md](driver-suites.md). PostgreSQL's regression SQL:
[regression.md](regression.md).
"""

KINDS = ("ok", "refused", "differs", "as the server")


def cell(found, feature, notes):
    if feature not in found:
        return ""
    kind, words = found[feature]
    return kind if kind == "ok" else f"{kind} [{notes.setdefault((kind, words), len(notes) + 1)}](#notes)"


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)])


def summary(results):
    rows = []
    for client, (version, found, _) in results.items():
        kinds = [kind for kind, _ in found.values()]
        rows.append([client, version, *(str(kinds.count(kind)) for kind in KINDS)])
    return table(["client", "version", *KINDS], rows)


def shared(results):
    """Features of two clients and more, in the order in which they are first met."""
    features = list(dict.fromkeys(feature for _, found, _ in results.values() for feature in found))
    return [f for f in features if sum(f in found for _, found, _ in results.values()) > 1]


def text(server, results, known):
    notes = {}
    common = shared(results)
    names = list(results)
    parts = [HEAD.format(server=server), "## In short\n", summary(results), "\n## By feature\n"]
    for group in (names[: len(names) // 2], names[len(names) // 2 :]):
        rows = [[f, *(cell(results[client][1], f, notes) for client in group)] for f in common]
        parts += [table(["", *group], [row for row in rows if any(row[1:])]), ""]
    parts.append("## Of one client only\n")
    own = []
    for client, (_, found, _) in results.items():
        for feature in found:
            if feature not in common:
                own.append([client, feature, cell(found, feature, notes)])
    parts += [table(["client", "feature", "outcome"], own), "", "## Notes\n"]
    explained = {}
    for (client, feature), why in known.items():
        if client in results and feature in results[client][1]:
            explained.setdefault(tuple(results[client][1][feature]), why)
    for (kind, words), number in notes.items():
        why = explained.get((kind, words))
        shown = f"`{words.replace('`', chr(39))}`" if kind == "refused" else words
        parts.append(f"{number}. {kind}: {shown}" + (f" Why: {why}" if why else ""))
    return "\n".join(parts) + "\n"
