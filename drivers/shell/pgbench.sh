#!/usr/bin/env bash
# pgbench: its tables, all its scripts, all its protocols.
. "$(dirname "$0")/common.sh"
cd "$DRIVERS_SCRATCH" || exit 1
pgbench=$(command -v pgbench || ls /usr/lib/postgresql/*/bin/pgbench | tail -n 1)
export pgbench
# Only what does not depend on time.
bench() { "$pgbench" -n "$@" 2>&1 | grep -E '^(transaction type|query mode|number of transactions actually|number of failed|pgbench: error|.*aborted)'; return "${PIPESTATUS[0]}"; }
export -f bench
sum() { psql -X -A -t -c "SELECT (SELECT count(*) FROM pgbench_accounts), (SELECT count(*) FROM pgbench_history) > 0, (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers)"; }
export -f sum

printf 'version\t%s\n' "$("$pgbench" --version)"
feature "init" bash -c '"$pgbench" -i -q -s 1 2>&1 | grep -vE "done in|of .* tuples"; sum'
feature "init, server side, foreign keys" bash -c '"$pgbench" -i -I dtGvpf -q -s 1 2>&1 | grep -vE "done in|of .* tuples"; sum'
feature "init, partitions" bash -c '"$pgbench" -i -q -s 1 --partitions 2 2>&1 | grep -vE "done in|of .* tuples"; sum'
for mode in simple extended prepared; do
    for script in tpcb-like simple-update select-only; do
        feature "$script, $mode" bash -c "bench -M $mode -b $script -c 4 -j 2 -t 25"
    done
done
feature "results add up" sum
cat >pipeline.sql <<'SQL'
\set id random(1, 1000)
\startpipeline
BEGIN;
SELECT abalance FROM pgbench_accounts WHERE aid = :id;
UPDATE pgbench_accounts SET abalance = abalance WHERE aid = :id;
END;
\endpipeline
SQL
for mode in extended prepared; do
    feature "pipeline, $mode" bash -c "bench -M $mode -f pipeline.sql -c 4 -j 2 -t 25"
done
cat >own.sql <<'SQL'
\set id random(1, 1000)
SELECT abalance AS found FROM pgbench_accounts WHERE aid = :id \gset
\if :found = 1000000
SELECT 1;
\else
SELECT :found + 1;
\endif
SELECT 1\; SELECT 2;
SQL
feature "own script" bash -c "bench -f own.sql -c 2 -t 10"
feature "own script, serializable, retries" env PGOPTIONS='-c default_transaction_isolation=serializable' bash -c "bench -b simple-update -c 4 -t 25 --max-tries=100"
feature "connect each time" bash -c "bench -C -S -c 2 -t 5"
printf 'end\tok\n'
