-- What goes when things are dropped: $1 object ids of relations, $2 names of schemas, $3 whether with CASCADE. Answers with the ids of
-- relations that hold or show rows, and the descriptions of other things that people would miss: without those that belong to a relation
-- that goes anyway. Without CASCADE only what goes by itself (PostgreSQL documentation, pg_depend). Runs with an empty search path.
WITH RECURSIVE lost(class, id) AS (
  SELECT 'pg_class'::regclass::oid, o.oid FROM unnest($1::oid[]) AS o(oid)
  UNION
  SELECT 'pg_namespace'::regclass::oid, n.oid FROM pg_namespace n WHERE n.nspname = ANY ($2::text[])
  UNION
  SELECT x.class, x.id FROM lost l, LATERAL (
    SELECT d.classid AS class, d.objid AS id FROM pg_depend d
    WHERE d.refclassid = l.class AND d.refobjid = l.id AND d.refobjsubid = 0 AND (d.deptype IN ('a', 'i', 'P', 'S', 'e') OR $3)
    UNION ALL
    -- What depends on a column goes with its relation.
    SELECT d.classid, d.objid FROM pg_depend d
    WHERE d.refclassid = l.class AND d.refobjid = l.id AND d.refobjsubid <> 0 AND (d.deptype IN ('a', 'i') OR $3)
    UNION ALL
    -- A view goes with the query that makes it one.
    SELECT 'pg_class'::regclass, w.ev_class FROM pg_rewrite w
    WHERE l.class = 'pg_rewrite'::regclass AND w.oid = l.id AND w.ev_type = '1'
  ) x
)
SELECT CASE WHEN c.oid IS NOT NULL THEN c.oid::text END, CASE WHEN c.oid IS NULL THEN pg_describe_object(l.class, l.id, 0) END
FROM lost l
LEFT JOIN pg_class c ON l.class = 'pg_class'::regclass AND c.oid = l.id
LEFT JOIN pg_constraint k ON l.class = 'pg_constraint'::regclass AND k.oid = l.id
WHERE (c.oid IS NOT NULL AND c.relkind IN ('r', 'm', 'v', 'p', 'f'))
  OR l.class = 'pg_proc'::regclass
  OR (k.contype = 'f' AND NOT EXISTS (
    SELECT FROM lost o WHERE o.class = 'pg_class'::regclass AND o.id = k.conrelid))
LIMIT 1000
