-- $1: object ids of relations. Answers for each that exists: its id, how people call it, about how many rows it holds now, and how many bytes
-- it takes in all. Rows as the planner does it (PostgreSQL source, optimizer/util/plancat.c, estimate_rel_size): the density of the last
-- ANALYZE, or that of its column widths, times the size of now. Runs with an empty search path.
SELECT c.oid::text,
  CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence ' WHEN 'f' THEN 'foreign table '
    WHEN 'i' THEN 'index ' WHEN 'I' THEN 'index ' ELSE '' END || n.nspname || '.' || c.relname,
  CASE WHEN c.relkind IN ('r', 'm') THEN greatest(0, round((pg_relation_size(c.oid)::numeric / s.block) *
    CASE WHEN c.relpages > 0 THEN (greatest(c.reltuples, 0) / c.relpages)::numeric
      ELSE (s.block - 24) / (28 + coalesce((SELECT sum(CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), 0)) END))::int8::text END,
  CASE WHEN c.relkind IN ('r', 'm', 'p', 'S', 'i', 'I') THEN pg_total_relation_size(c.oid)::text END
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace,
  (SELECT current_setting('block_size')::numeric AS block) s
WHERE c.oid = ANY ($1::oid[])
