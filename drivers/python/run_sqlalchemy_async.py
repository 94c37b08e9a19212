"""SQLAlchemy over asyncpg."""

import asyncio
import os

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from common import expect_async, feature_async, finish, tell
from orm import Base, Book, Shelf, book, told

url = sa.URL.create("postgresql+asyncpg", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"], int(os.environ["PGPORT"]), "drivers")
engine = create_async_engine(url, pool_size=2, pool_pre_ping=True)


async def create():
    async with engine.begin() as c:
        await c.run_sync(Base.metadata.create_all)
    async with engine.connect() as c:
        return sorted(await c.run_sync(lambda sync: sa.inspect(sync).get_table_names()))


async def insert():
    async with AsyncSession(engine) as s, s.begin():
        s.add_all([Shelf(name="first", books=[book(n) for n in range(1, 101)])])
    async with AsyncSession(engine) as s:
        return [told(b) for b in await s.scalars(sa.select(Book).order_by(Book.title).limit(3))]


async def update():
    async with AsyncSession(engine) as s, s.begin():
        many = (await s.execute(sa.update(Book).where(Book.state == "worn").values(lent=True))).rowcount
        gone = (await s.execute(sa.delete(Book).where(Book.title.like("Book 01%")).returning(Book.title))).scalars().all()
        return many, sorted(gone)


async def nested():
    async with AsyncSession(engine) as s, s.begin():
        try:
            async with s.begin_nested():
                s.add(Shelf(name="first"))
                await s.flush()
        except sa.exc.IntegrityError:
            pass
        s.add(Shelf(name="third"))
        await s.flush()
        return await s.scalar(sa.select(sa.func.count()).select_from(Shelf))


async def streaming():
    async with engine.connect() as c:
        found = await c.stream(sa.text("SELECT n FROM numbers ORDER BY n"))
        return sum([n async for (n,) in found])


async def reflect():
    async with engine.connect() as c:
        columns = await c.run_sync(lambda sync: sa.inspect(sync).get_columns("everything"))
        return [(column["name"], str(column["type"])) for column in columns]


async def error_then_on():
    async with engine.connect() as c:
        error = await expect_async(sa.exc.DBAPIError, c.execute(sa.text("SELECT 1/0")))
        await c.rollback()
        return error.split(":")[0], await c.scalar(sa.text("SELECT 1"))


async def drop():
    async with engine.begin() as c:
        await c.run_sync(Base.metadata.drop_all)


async def main():
    tell("version", f"SQLAlchemy {sa.__version__}")
    for name, check in {
        "ORM, create table": create, "ORM, insert and select": insert, "ORM, update and delete": update, "savepoints": nested,
        "stream, 10000 rows": streaming, "ORM, reflection": reflect, "error, then on": error_then_on, "ORM, drop": drop,
    }.items():
        await feature_async(name, check)
    await engine.dispose()
    finish()


asyncio.run(main())
