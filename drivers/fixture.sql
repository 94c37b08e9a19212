-- What every scenario finds: a database that belongs to the scenario's role, with nothing in it that would be masked.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE point3 AS (x integer, y integer, z integer);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);

CREATE TABLE fruit (
    id     integer PRIMARY KEY,
    name   text NOT NULL,
    price  numeric(10, 2) NOT NULL,
    bought timestamptz NOT NULL DEFAULT '2024-02-29 12:34:56.789+00'
);
INSERT INTO fruit VALUES (1, 'apple', 1.50), (2, 'pear', 2.25), (3, 'zwetschge ☕ 日本', 3.75);

CREATE TABLE numbers (n integer PRIMARY KEY, word text NOT NULL);
INSERT INTO numbers SELECT n, 'word ' || n FROM generate_series(1, 10000) AS n;

CREATE TABLE everything (
    id    bigserial PRIMARY KEY,
    small smallint, big bigint, exact numeric, rough double precision, flag boolean, words text, bytes bytea,
    day   date, moment time, stamp timestamp, stamptz timestamptz, span interval, key uuid, doc json, docb jsonb,
    many  integer[], texts text[], feeling mood, place point3, bounds int4range, host inet, fixed char(4), how_many positive
);
INSERT INTO everything (small, big, exact, rough, flag, words, bytes, day, moment, stamp, stamptz, span, key, doc, docb, many, texts, feeling, place, bounds, host, fixed, how_many)
VALUES (1, 9007199254740993, 12345.6789, 0.1, true, E'naïve \t tab \\ back', '\x00ff10', '2024-02-29', '12:34:56.5', '2024-02-29 12:34:56', '2024-02-29 12:34:56+02',
        '1 mon 2 days 03:04:05', '00000000-0000-4000-8000-000000000001', '{"a": [1, 2]}', '{"b": null}', '{1,NULL,3}', '{"a b","c,d"}', 'happy', '(1,2,3)', '[1,10)', '127.0.0.1', 'ab', 7),
       (NULL, NULL, 'NaN', 'Infinity', NULL, '', '', 'infinity', NULL, NULL, '-infinity', NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, 'empty', NULL, NULL, NULL);

CREATE VIEW cheap AS SELECT id, name FROM fruit WHERE price < 3;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS amount, sum(price) AS price FROM fruit;
CREATE INDEX fruit_name ON fruit (lower(name));
CREATE FUNCTION add(a integer, b integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
CREATE FUNCTION shout(message text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', message; END $$;
CREATE PROCEDURE touch(INOUT counter integer) LANGUAGE plpgsql AS $$ BEGIN counter := counter + 1; END $$;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.bought := '2024-03-01 00:00:00+00'; RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON fruit FOR EACH ROW EXECUTE FUNCTION stamp();
COMMENT ON TABLE fruit IS 'what is sold';
