-- $1: object ids of types. One whose values planning may read or compare by a user's code, if any: all but enums, arrays of those, and
-- domains of built-in types whose checks call nothing of a user's (a parameter is checked when it is bound). Runs with an empty search path.
SELECT n.nspname || '.' || t.typname
FROM pg_type t
JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
WHERE t.oid = ANY ($1::oid[]) AND t.oid >= 16384 AND t.typtype <> 'e' AND e.typtype IS DISTINCT FROM 'e'
  AND NOT (t.typtype = 'd' AND t.typbasetype < 16384 AND NOT EXISTS (
    SELECT FROM pg_constraint k, regexp_matches(k.conbin::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid|resulttype) (\d+)', 'g') AS m(part)
    WHERE k.contypid = t.oid AND m.part[1]::oid >= 16384))
LIMIT 1
