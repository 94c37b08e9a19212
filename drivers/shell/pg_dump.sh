#!/usr/bin/env bash
# pg_dump, pg_restore: plain, custom, directory, tar; schema alone, data alone; as COPY and as INSERT.
. "$(dirname "$0")/common.sh"
cd "$DRIVERS_SCRATCH" || exit 1
# The random word that guards a plain dump, and comments that name versions, differ from run to run.
plain() { grep -vE '^\\(un)?restrict |^-- Dumped|^; ' "$1"; }
contents() { psql -X -A -t -d "$1" -c "SELECT count(*), sum(n) FROM numbers; TABLE fruit; SELECT id, words, docb, place FROM everything ORDER BY id; SELECT amount FROM totals; SELECT add(1, 2); SELECT count(*) FROM pg_constraint; SELECT count(*) FROM pg_trigger; SELECT nextval('everything_id_seq')"; }
clean() { psql -X -q -d restored -c "DROP SCHEMA public CASCADE" -c "CREATE SCHEMA public" 2>/dev/null; }
restored() { clean; pg_restore --no-owner -d restored "$@" 2>&1; contents restored; }
export -f plain contents clean restored

printf 'version\t%s\n' "$(pg_dump --version)"
feature "dump, plain" bash -c "pg_dump -f plain.sql && plain plain.sql"
feature "dump, schema alone" bash -c "pg_dump -s -f schema.sql && plain schema.sql"
feature "dump, data as inserts" bash -c "pg_dump -a --column-inserts -f data.sql && plain data.sql"
feature "dump, data as many-row inserts" bash -c "pg_dump -a --rows-per-insert=100 -t numbers -f many.sql && plain many.sql"
feature "dump, one table" bash -c "pg_dump -t fruit -f fruit.sql && plain fruit.sql"
feature "dump, clean, if exists" bash -c "pg_dump --clean --if-exists -f clean.sql && plain clean.sql"
feature "dump, serializable deferrable" bash -c "pg_dump --serializable-deferrable -f deferrable.sql && plain deferrable.sql"
feature "restore, plain" bash -c "clean; psql -X -q -d restored -f plain.sql 2>&1 | grep -v '^\$'; contents restored"
feature "dump, custom" bash -c "pg_dump -Fc -f dump.custom && pg_restore -f - dump.custom > from.sql && plain from.sql"
feature "restore, custom" restored dump.custom
feature "restore, custom, in two jobs" restored -j 2 dump.custom
feature "restore, one transaction" bash -c "restored -1 dump.custom"
feature "restore, clean" bash -c "pg_restore --clean --if-exists --no-owner -d restored dump.custom 2>&1; contents restored"
feature "restore, data alone" bash -c "psql -X -q -d restored -c 'TRUNCATE numbers, fruit, everything' && pg_restore -a --disable-triggers -t numbers -d restored dump.custom 2>&1; psql -X -A -t -d restored -c 'SELECT count(*) FROM numbers'"
feature "dump, directory, in two jobs" bash -c "pg_dump -Fd -j 2 -f dump.dir && pg_restore -l dump.dir | grep -v '^;' | cut -d' ' -f4- | LC_ALL=C sort"
feature "dump, tar" bash -c "pg_dump -Ft -f dump.tar && pg_restore -l dump.tar | grep -v '^;' | cut -d' ' -f4- | LC_ALL=C sort"
psql -X -q -A -t -c "SELECT lo_from_bytea(0, '\\x0102')" >/dev/null 2>&1
feature "dump, large objects" bash -c "pg_dump -b -f blobs.sql && grep -c 'lo_create\|lo_open' blobs.sql"
printf 'end\tok\n'
