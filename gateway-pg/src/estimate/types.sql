-- $1: object ids of types. Those whose values the planner may compare by a user's code: all but enums, domains of built-in types, and
-- arrays of such. Runs with an empty search path.
SELECT n.nspname || '.' || t.typname
FROM pg_type t
JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
WHERE t.oid = ANY ($1::oid[]) AND t.oid >= 16384
  AND NOT (t.typtype = 'e' OR (t.typtype = 'd' AND t.typbasetype < 16384)
    OR (e.oid IS NOT NULL AND (e.oid < 16384 OR e.typtype = 'e' OR (e.typtype = 'd' AND e.typbasetype < 16384))))
LIMIT 1
