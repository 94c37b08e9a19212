"""The tables of the SQLAlchemy scenarios."""

import datetime as dt
import decimal
import uuid

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="shelf", cascade="all, delete-orphan", order_by="Book.title", lazy="selectin")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.Text, index=True)
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
    added: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))
    lent: Mapped[bool | None]
    tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.Text))
    extra: Mapped[dict] = mapped_column(pg.JSONB)
    cover: Mapped[bytes] = mapped_column(sa.LargeBinary)
    loan: Mapped[dt.timedelta] = mapped_column(sa.Interval)
    state: Mapped[str] = mapped_column(sa.Enum("new", "worn", name="book_state"))
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelf.id"))
    shelf: Mapped[Shelf] = relationship(back_populates="books", lazy="selectin")


def book(number):
    return Book(
        id=uuid.UUID(int=number), title=f"Book {number:03} ☕", price=decimal.Decimal(number) / 4, added=dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc),
        lent=None if number % 3 else True, tags=[f"t{number % 5}", "a, b"], extra={"n": number, "é": [1, None]}, cover=bytes([number % 256, 0]),
        loan=dt.timedelta(days=number), state="new" if number % 2 else "worn",
    )


def told(found):
    return (str(found.id), found.title, found.price, found.added, found.lent, found.tags, found.extra, found.cover, found.loan, found.state, found.shelf.name)
