-- A small shop with everything a gateway has to protect: personal data, card numbers, money.
-- The same rows each time: everything is computed from the row number, nothing is random.
-- All card numbers are of ranges that are never issued or set aside for testing; all pass the Luhn check.

BEGIN;

CREATE TABLE customers (
    id         integer PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL UNIQUE,
    phone      text NOT NULL,
    ssn        text NOT NULL UNIQUE CHECK (ssn ~ '^\d{3}-\d{2}-\d{4}$'),
    note       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL
);

CREATE TABLE cards (
    id          integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers,
    pan         text NOT NULL UNIQUE,
    expiry      text NOT NULL,
    holder      text NOT NULL
);

CREATE TABLE products (
    id          integer PRIMARY KEY,
    sku         text NOT NULL UNIQUE,
    name        text NOT NULL,
    price_cents integer NOT NULL CHECK (price_cents >= 0),
    stock       integer NOT NULL CHECK (stock >= 0),
    attributes  jsonb NOT NULL
);

CREATE TABLE orders (
    id          integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers,
    card_id     integer REFERENCES cards,
    status      text NOT NULL CHECK (status IN ('open', 'paid', 'shipped', 'cancelled')),
    placed_at   timestamptz NOT NULL
);

CREATE TABLE order_items (
    order_id    integer NOT NULL REFERENCES orders ON DELETE CASCADE,
    line        integer NOT NULL,
    product_id  integer NOT NULL REFERENCES products,
    quantity    integer NOT NULL CHECK (quantity > 0),
    price_cents integer NOT NULL,
    PRIMARY KEY (order_id, line)
);

-- Double entry: the debits and the credits of one transaction are equal, always.
CREATE TABLE ledger (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id integer NOT NULL,
    account        text NOT NULL,
    debit_cents    bigint NOT NULL DEFAULT 0 CHECK (debit_cents >= 0),
    credit_cents   bigint NOT NULL DEFAULT 0 CHECK (credit_cents >= 0),
    order_id       integer REFERENCES orders,
    posted_at      timestamptz NOT NULL,
    CHECK ((debit_cents = 0) <> (credit_cents = 0))
);

CREATE INDEX ON cards (customer_id);
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON ledger (transaction_id);

CREATE VIEW customer_contacts AS
    SELECT id, name, email, phone FROM customers;

-- Lineage through an expression: no column of it is a column of the table, all of it is protected.
CREATE VIEW customer_cards AS
    SELECT customers.id, upper(customers.name) AS holder, '**** ' || right(cards.pan, 4) AS card_hint, cards.pan AS number
    FROM customers JOIN cards ON cards.customer_id = customers.id;

-- The digit that makes a number pass the Luhn check (ISO/IEC 7812-1, annex B).
CREATE FUNCTION luhn_digit(digits text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT ((10 - sum(CASE WHEN position % 2 = 1 THEN digit * 2 / 10 + digit * 2 % 10 ELSE digit END) % 10) % 10)::text
    FROM (SELECT ordinality AS position, character::integer AS digit
          FROM regexp_split_to_table(reverse(digits), '') WITH ORDINALITY AS split (character, ordinality)) AS numbered
$$;

CREATE FUNCTION customer_email(customer integer) RETURNS text LANGUAGE sql STABLE STRICT AS $$
    SELECT email FROM customers WHERE id = customer
$$;

CREATE FUNCTION order_total(number integer) RETURNS bigint LANGUAGE sql STABLE STRICT AS $$
    SELECT coalesce(sum(quantity * price_cents), 0) FROM order_items WHERE order_id = number
$$;

-- Looks like a read where it is called, writes all the same.
CREATE FUNCTION post_payment(number integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    amount bigint := order_total(number);
    entry  integer;
BEGIN
    IF amount = 0 THEN
        RAISE EXCEPTION 'order % has nothing to pay', number;
    END IF;
    SELECT coalesce(max(transaction_id), 0) + 1 INTO entry FROM ledger;
    INSERT INTO ledger (transaction_id, account, debit_cents, credit_cents, order_id, posted_at)
    VALUES (entry, 'cash', amount, 0, number, now()), (entry, 'receivable', 0, amount, number, now());
    UPDATE orders SET status = 'paid' WHERE id = number;
    RETURN entry;
END
$$;

-- Runs as its owner: whoever may call it reads what they may not select.
CREATE FUNCTION support_lookup(customer integer) RETURNS TABLE (full_name text, social text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT name, ssn FROM customers WHERE id = customer
$$;

INSERT INTO customers
SELECT n,
       first || ' ' || last,
       lower(first) || '.' || lower(last) || n || '@' || (ARRAY['example.com', 'example.org', 'example.net'])[1 + n % 3],
       '+1-' || (ARRAY['212', '415', '617', '312'])[1 + n % 4] || '-555-' || lpad((n * 37 % 10000)::text, 4, '0'),
       lpad((100 + n * 7 % 560)::text, 3, '0') || '-' || lpad((1 + n * 11 % 99)::text, 2, '0')
           || '-' || lpad((1 + n * 131 % 9999)::text, 4, '0'),
       CASE n % 10
           WHEN 0 THEN 'asked to be called at +1-212-555-' || lpad((n * 13 % 10000)::text, 4, '0')
           WHEN 3 THEN 'paid by phone with 4111 1111 1111 1111, exp 12/29'
           WHEN 5 THEN 'second address ' || lower(first) || '@example.com'
           WHEN 7 THEN 'refund to DE89 3704 0044 0532 0130 00'
           WHEN 9 THEN 'prefers e-mail; likes naïve café blends ☕'
           ELSE ''
       END,
       timestamptz '2024-01-01 00:00:00+00' + n * interval '7 hours'
FROM (SELECT n,
             (ARRAY['Ada', 'Ben', 'Chloe', 'Dmitri', 'Elif', 'Femi', 'Grace', 'Hugo', 'Ines', 'Jonas'])[1 + n % 10] AS first,
             (ARRAY['Abbott', 'Becker', 'Castro', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ito', 'Jensen',
                    'Kowalski'])[1 + n % 11] AS last
      FROM generate_series(1, 200) AS n) AS people;

INSERT INTO cards
SELECT n, 1 + (n - 1) % 200, body || luhn_digit(body),
       lpad((1 + n % 12)::text, 2, '0') || '/' || (27 + n % 5)::text,
       upper(customers.name)
FROM (SELECT n,
             CASE n % 3
                 WHEN 0 THEN '411111' || lpad((n * 7919)::text, 9, '0')
                 WHEN 1 THEN '555555' || lpad((n * 7919)::text, 9, '0')
                 ELSE '378282' || lpad((n * 7919)::text, 8, '0')
             END AS body
      FROM generate_series(1, 260) AS n) AS numbers
JOIN customers ON customers.id = 1 + (n - 1) % 200;

INSERT INTO products
SELECT n, 'SKU-' || lpad(n::text, 4, '0'),
       (ARRAY['Filter', 'Espresso', 'Decaf', 'Cold Brew', 'Green Tea', 'Oolong', 'Grinder', 'Kettle'])[1 + n % 8]
           || ' No. ' || n,
       350 + n * 173 % 9000,
       n * 29 % 400,
       jsonb_build_object('weight_grams', 100 + n * 10, 'organic', n % 2 = 0, 'tags', jsonb_build_array('new', 'batch-' || n % 5))
FROM generate_series(1, 40) AS n;

INSERT INTO orders
SELECT n, customer, (SELECT min(id) FROM cards WHERE customer_id = customer),
       (ARRAY['paid', 'shipped', 'open', 'paid', 'cancelled'])[1 + n % 5],
       timestamptz '2025-01-01 08:00:00+00' + n * interval '53 minutes'
FROM (SELECT n, 1 + n * 17 % 200 AS customer FROM generate_series(1, 500) AS n) AS numbers;

INSERT INTO order_items
SELECT n, line, product, 1 + (n + line) % 4, products.price_cents
FROM (SELECT n, line, 1 + (n * 3 + line * 7) % 40 AS product
      FROM generate_series(1, 500) AS n, generate_series(1, 3) AS line
      WHERE line <= 1 + n % 3) AS numbers
JOIN products ON products.id = product;

INSERT INTO ledger (transaction_id, account, debit_cents, credit_cents, order_id, posted_at)
SELECT id, account, CASE side WHEN 1 THEN order_total(id) ELSE 0 END, CASE side WHEN 2 THEN order_total(id) ELSE 0 END,
       id, placed_at + interval '1 minute'
FROM orders, (VALUES (1, 'receivable'), (2, 'revenue')) AS sides (side, account)
WHERE status <> 'cancelled'
ORDER BY id, side;

GRANT USAGE ON SCHEMA public TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO app;

COMMIT;

ANALYZE;
