#!/usr/bin/env bash
# psql: what a person does with it.
. "$(dirname "$0")/common.sh"
cd "$DRIVERS_SCRATCH" || exit 1
export HISTFILE=/dev/null PAGER=
sql() { psql -X -A -t -q -v VERBOSITY=terse "$@"; }
script() { sql -f -; }
run() { printf '%s\n' "$1" | script; }

printf 'version\t%s\n' "$(psql --version)"
feature "connect" sql -c "SELECT current_user, current_database()"
feature "simple query" sql -c "SELECT * FROM fruit ORDER BY id"
feature "several statements" sql -c "SELECT 1; SELECT 2"
feature "several statements, one depends" sql -c "CREATE TEMP TABLE early (a int); INSERT INTO early VALUES (1)"
feature "every column type, text" sql -c "SELECT * FROM everything"
feature "null" sql -P null=NULL -c "SELECT NULL"
feature "formats" psql -X -H -x -c "TABLE fruit"
feature "large text" run "SELECT length(repeat('0123456789abcdé ', 65536)), md5(repeat('0123456789abcdé ', 65536)); SELECT repeat('é', 1000000) \\g large.txt
\\! md5sum large.txt"
feature "describe" run '\d
\d+ fruit
\d everything
\dv
\df+ add
\dT
\dT+ mood
\di
\dn
\du app
\sf add
\sv cheap
\dp fruit'
feature "describe, all of it" run '\dconfig work_mem
\dD
\dm
\ds
\dc
\dx
\dy
\dO
\db
\encoding'
feature "prepared reuse" run "PREPARE by_id (int) AS SELECT name FROM fruit WHERE id = \$1; EXECUTE by_id (2); EXECUTE by_id (3); DEALLOCATE by_id;"
feature "variables" run "\\set name pear
SELECT id FROM fruit WHERE name = :'name' \\gset found_
\\echo :found_id
SELECT 'SELECT ' || n FROM generate_series(1, 3) AS n \\gexec
SELECT 1 AS a, 2 AS b \\gx
SELECT a, b, a * b FROM generate_series(1, 2) AS a, generate_series(1, 2) AS b \\crosstabview
SELECT 1 \\gdesc"
feature "commit" run "BEGIN; CREATE TABLE kept (a int); INSERT INTO kept VALUES (1); COMMIT; SELECT count(*) FROM kept;"
feature "rollback" run "BEGIN; DELETE FROM fruit; ROLLBACK; SELECT count(*) FROM fruit;"
feature "savepoints" run "BEGIN; SAVEPOINT a; SELECT 1/0; ROLLBACK TO a; SELECT 1; COMMIT;"
feature "on error rollback" run "\\set ON_ERROR_ROLLBACK on
BEGIN; SELECT 1/0; SELECT 2; COMMIT;"
feature "error, then on" run "SELECT 1/0; SELECT * FROM nowhere; SELECT 3;"
feature "syntax error" run "SELEC; SELECT 3;"
feature "error in verbose" bash -c "psql -X -v VERBOSITY=verbose -c \"INSERT INTO fruit VALUES (1, 'x', 1)\" 2>&1 | grep -v LOCATION"
feature "cursor, 10000 rows" run "\\set FETCH_COUNT 500
SELECT n FROM numbers ORDER BY n;"
feature "single transaction" psql -X -q -1 -c "CREATE TABLE single (a int)" -c "INSERT INTO single VALUES (1)" -c "SELECT * FROM single"
seq 1 10000 | sed 's/$/\tword/' >in.tsv
printf '1,"x, y"\n2,\n' >in.csv
feature "copy in, text" run "CREATE TABLE copied (a int, b text);
\\copy copied FROM in.tsv
SELECT count(*), sum(a) FROM copied;"
feature "copy in, csv" run "CREATE TABLE copied_csv (a int, b text);
\\copy copied_csv FROM in.csv (FORMAT csv)
TABLE copied_csv;"
feature "copy in, from the script" run "CREATE TABLE copied_here (a int, b text);
COPY copied_here FROM STDIN;
1	one
2	\\N
\\.
TABLE copied_here;"
feature "copy in, error" run "\\copy copied FROM in.csv
SELECT 1;"
feature "copy out, text" run "\\copy numbers TO out.tsv
\\! md5sum out.tsv"
feature "copy out, csv" run "\\copy (SELECT * FROM fruit ORDER BY id) TO out.csv (FORMAT csv, HEADER)
\\! cat out.csv"
feature "copy out, binary" run "\\copy fruit TO out.bin (FORMAT binary)
\\! md5sum out.bin"
feature "copy out, rows" run "COPY numbers TO STDOUT;"
feature "watch, with a count" bash -c "(printf 'SELECT 7\n\\\\watch 0.2\n'; sleep 1) | timeout -s INT 2 psql -X -A -t -q 2>/dev/null | grep -c 7 | sed 's/^[2-9]\$/several/; s/^1[0-9]\$/several/'"
cancelled() {
    psql -X -q -v VERBOSITY=terse -c "SELECT pg_sleep(60)" >cancelled.out 2>&1 &
    local pid=$! waited=0
    until [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")" = 1 ]; do
        waited=$((waited + 1))
        [ "$waited" -lt 100 ] || return 1
        sleep 0.1
    done
    kill -INT "$pid"
    wait "$pid"
    cat cancelled.out
}
export -f cancelled sql
feature "cancel" bash -c cancelled
feature "listen, notify" bash -c "printf '%s\\n' \"LISTEN news; NOTIFY news, 'first'; SELECT 1;\" | psql -X -A -t -q | sed 's/PID [0-9]*/PID/'"
feature "notices" run "\\set VERBOSITY terse
SELECT shout('hello'); DROP TABLE IF EXISTS not_there;"
feature "explain" run "EXPLAIN (COSTS off) SELECT * FROM fruit WHERE id = 1;"
feature "pool, reset" run "SET work_mem = '8MB'; PREPARE p AS SELECT 1; DISCARD ALL; SHOW work_mem; EXECUTE p;"
feature "reconnect" run "\\c
SELECT current_database();"
feature "reconnect to another database" bash -c "printf '\\\\c restored\nSELECT current_database();\n' | psql -X -q -A -t"
feature "list databases" bash -c "psql -X -A -t -l | grep -c UTF8"
feature "large objects" run "\\lo_import in.csv
SELECT count(*) FROM pg_largeobject_metadata;"
feature "connection info" bash -c "psql -X -c '\\conninfo' | grep -c 'SSL connection'"
feature "TLS, verify-full" psql -X -A -t "host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=$DRIVERS_CA" -c "SELECT 1"
feature "password prompt in scripts" sql -w -c "SELECT 1"
feature "empty query" run ";
SELECT 1;"
feature "empty message" psql -X -c ""
feature "client encoding latin1" env PGCLIENTENCODING=LATIN1 psql -X -A -t -c "SELECT 1"
feature "do block" run "DO \$\$ BEGIN RAISE NOTICE 'in a block'; END \$\$;"
feature "vacuum, analyze" run "VACUUM fruit; ANALYZE fruit; REINDEX TABLE fruit; REFRESH MATERIALIZED VIEW totals; CLUSTER fruit USING fruit_pkey;"
printf 'end\tok\n'
