"""The store's tables. What a row says is sealed; only keys and times stand in the clear."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, LargeBinary, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["ChatChoiceRow", "KeyRow", "PastMatchRow", "StoreTables", "UserChoiceRow"]

HEX_KEY_CHARS = 64


class StoreTables(DeclarativeBase):
    """Base of every table of the store."""

    metadata = MetaData(
        naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s", "pk": "pk_%(table_name)s"}
    )


class KeyRow(StoreTables):
    """One row: the fingerprint of the secret under which everything here is filed."""

    __tablename__ = "store_key"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(HEX_KEY_CHARS))


class UserChoiceRow(StoreTables):
    """A person's choices for every chat: the model, how cards are drawn."""

    __tablename__ = "user_choice"

    user_key: Mapped[str] = mapped_column(String(HEX_KEY_CHARS), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)


class ChatChoiceRow(StoreTables):
    """A person's choices for one chat: how many matches, which category."""

    __tablename__ = "chat_choice"
    __table_args__ = (Index("ix_chat_choice_user_key", "user_key"),)

    chat_key: Mapped[str] = mapped_column(String(HEX_KEY_CHARS), primary_key=True)
    user_key: Mapped[str] = mapped_column(String(HEX_KEY_CHARS))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)


class PastMatchRow(StoreTables):
    """A match of the history: who, score and model are sealed; the time is needed to expire it."""

    __tablename__ = "past_match"
    __table_args__ = (
        Index("ix_past_match_user_key", "user_key", "at_s"),
        Index("ix_past_match_at_s", "at_s"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_key: Mapped[str] = mapped_column(String(HEX_KEY_CHARS))
    at_s: Mapped[int] = mapped_column(BigInteger)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
