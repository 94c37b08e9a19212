-- A digest of every definition of users that this session sees: names and kinds of relations, and of all else each row as its number and
-- the transaction that wrote it last (that of a relation changes with TRUNCATE and REFRESH too). Without the temporary objects of other
-- sessions, which nobody sees here.
WITH spaces AS (
  SELECT n.oid FROM pg_catalog.pg_namespace n
  WHERE n.nspname OPERATOR(pg_catalog.!~) '^(pg_catalog|information_schema|pg_toast.*)$' AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)
), relations AS (
  SELECT c.* FROM pg_catalog.pg_class c JOIN spaces s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
), items(item) AS (
  SELECT pg_catalog.concat('n', n.oid, ' ', n.xmin) FROM pg_catalog.pg_namespace n JOIN spaces s ON s.oid OPERATOR(pg_catalog.=) n.oid
  UNION ALL
  SELECT pg_catalog.concat('c', c.oid, ' ', c.relnamespace, ' ', c.relkind, ' ', c.relrowsecurity, ' ', c.relispartition, ' ', c.relname) FROM relations c
  UNION ALL
  SELECT pg_catalog.concat('r', r.oid, ' ', r.xmin) FROM pg_catalog.pg_rewrite r JOIN relations c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
  UNION ALL
  SELECT pg_catalog.concat('g', g.oid, ' ', g.xmin) FROM pg_catalog.pg_trigger g JOIN relations c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
  UNION ALL
  SELECT pg_catalog.concat('f', p.oid, ' ', p.xmin) FROM pg_catalog.pg_proc p JOIN spaces s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
  UNION ALL
  SELECT pg_catalog.concat('t', t.oid, ' ', t.xmin) FROM pg_catalog.pg_type t JOIN spaces s ON s.oid OPERATOR(pg_catalog.=) t.typnamespace
  UNION ALL
  SELECT pg_catalog.concat('o', o.oid, ' ', o.xmin) FROM pg_catalog.pg_operator o JOIN spaces s ON s.oid OPERATOR(pg_catalog.=) o.oprnamespace
  UNION ALL
  -- Columns are many: their rows are not sorted, and nobody chooses their numbers.
  SELECT pg_catalog.concat('a', pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(a.attrelid, ' ', a.attnum, ' ', a.xmin), 0)))
  FROM pg_catalog.pg_attribute a JOIN relations c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
)
SELECT 'definitions', pg_catalog.md5(pg_catalog.string_agg(i.item, ',' ORDER BY i.item COLLATE pg_catalog."C")) FROM items i
