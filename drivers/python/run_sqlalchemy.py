"""SQLAlchemy over psycopg2 or psycopg 3."""

import os
import sys

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from common import expect, feature, finish, tell
from orm import Base, Book, Shelf, book, told

driver = sys.argv[1]
url = sa.URL.create(f"postgresql+{driver}", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"], int(os.environ["PGPORT"]), "drivers")
engine = sa.create_engine(url, pool_size=2, max_overflow=2, pool_pre_ping=True, pool_reset_on_return="rollback")


def create():
    Base.metadata.create_all(engine)
    return sorted(sa.inspect(engine).get_table_names())


def insert():
    with Session(engine) as s, s.begin():
        s.add_all([Shelf(name="first", books=[book(n) for n in range(1, 101)]), Shelf(name="second", books=[book(n) for n in range(101, 111)])])
    with Session(engine) as s:
        return s.scalar(sa.select(sa.func.count()).select_from(Book)), [told(b) for b in s.scalars(sa.select(Book).order_by(Book.title).limit(3))]


def joined():
    with Session(engine) as s:
        query = sa.select(Shelf.name, sa.func.count(Book.id), sa.func.sum(Book.price)).join(Book).group_by(Shelf.name).order_by(Shelf.name)
        return [tuple(row) for row in s.execute(query)]


def update():
    with Session(engine) as s, s.begin():
        first = s.scalars(sa.select(Book).order_by(Book.title)).first()
        first.price, first.extra = 99, {"changed": True}
        many = s.execute(sa.update(Book).where(Book.state == "worn").values(lent=True)).rowcount
        gone = s.execute(sa.delete(Book).where(Book.title.like("Book 11%")).returning(Book.title)).scalars().all()
        return many, sorted(gone)


def nested():
    with Session(engine) as s, s.begin():
        try:
            with s.begin_nested():
                s.add(Shelf(name="first"))
                s.flush()
        except sa.exc.IntegrityError as error:
            told_error = error.orig.__class__.__name__
        s.add(Shelf(name="third"))
        s.flush()
        return told_error, s.scalar(sa.select(sa.func.count()).select_from(Shelf))


def upsert():
    with engine.begin() as c:
        statement = pg.insert(Shelf).values([{"name": "first"}, {"name": "fourth"}])
        return sorted(c.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"name": statement.excluded.name}).returning(Shelf.name)).scalars())


def core():
    table = sa.Table("core", sa.MetaData(), sa.Column("a", sa.Integer, primary_key=True), sa.Column("b", sa.Text))
    with engine.begin() as c:
        table.create(c)
        c.execute(table.insert(), [{"a": n, "b": f"row {n}"} for n in range(2000)])
        return c.execute(sa.select(sa.func.count(), sa.func.sum(table.c.a))).one()._tuple()


def streaming():
    with engine.connect() as c:
        rows = c.execution_options(stream_results=True, yield_per=500).execute(sa.text("SELECT n FROM numbers ORDER BY n"))
        return sum(n for (n,) in rows)


def reflect():
    inspector = sa.inspect(engine)
    columns = [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns("everything")]
    keys = inspector.get_pk_constraint("book"), inspector.get_foreign_keys("book"), inspector.get_indexes("fruit"), inspector.get_unique_constraints("shelf")
    return columns, keys, inspector.get_view_names(), inspector.get_table_comment("fruit"), [e["name"] for e in inspector.get_enums()]


def reflect_all():
    metadata = sa.MetaData()
    metadata.reflect(engine, views=True)
    return sorted(metadata.tables)


def error_then_on():
    with engine.connect() as c:
        error = expect(sa.exc.DBAPIError, c.execute, sa.text("SELECT 1/0"))
        c.rollback()
        return error, c.scalar(sa.text("SELECT 1"))


def isolation():
    with engine.connect().execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True) as c:
        return c.scalar(sa.text("SHOW transaction_isolation")), c.scalar(sa.text("SHOW transaction_read_only"))


def pooled():
    names = set()
    for _ in range(10):
        with engine.connect() as c:
            names.add(c.scalar(sa.text("SELECT pg_backend_pid()")))
    return len(names)


tell("version", f"SQLAlchemy {sa.__version__}")
feature("connect", lambda: engine.connect().scalar(sa.text("SELECT current_user")))
feature("ORM, create table", create)
feature("ORM, insert and select", insert)
feature("ORM, join", joined)
feature("ORM, update and delete", update)
feature("savepoints", nested)
feature("ORM, upsert", upsert)
feature("batch", core)
feature("stream, 10000 rows", streaming)
feature("ORM, reflection", reflect)
feature("ORM, reflect everything", reflect_all)
feature("error, then on", error_then_on)
feature("isolation, read only", isolation)
feature("pool, reset", pooled)
feature("ORM, drop", lambda: Base.metadata.drop_all(engine))
finish()
