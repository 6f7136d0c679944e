"""Statements that several engines share."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Engine

from vecsync_dagster.compiled import CompiledStatements


def made(compiled: CompiledStatements) -> Engine:
    return sa.create_engine("sqlite://", execution_options={"compiled_cache": compiled})


def ask(engine: Engine, value: int) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(sa.literal(value).label("answer"))).one().answer)


def test_a_second_engine_takes_what_the_first_one_compiled() -> None:
    """The statement is there once, and each engine gets the answer to its own values."""
    compiled = CompiledStatements()
    assert ask(made(compiled), 0) == 0
    once = len(compiled)
    assert [ask(made(compiled), value) for value in (1, 2)] == [1, 2]
    assert len(compiled) == once > 0


def test_engines_of_other_settings_compile_their_own() -> None:
    """What a server says of itself when it is first connected to decides how statements look."""
    compiled = CompiledStatements()
    ask(made(compiled), 0)
    once = len(compiled)
    older = made(compiled)
    older.connect().close()
    older.dialect.server_version_info = (3, 7)
    assert ask(older, 1) == 1
    assert len(compiled) == 2 * once
