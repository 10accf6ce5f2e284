"""Freezing of the embedded tables for a backup."""

from typing import Any

import pytest

from toolbus_audit.ingest.frozen_tables import freeze
from toolbus_common.contracts import FreezeRequest
from toolbus_common.errors import InvalidError


class FakeStore:
    """Store that records its commands."""

    def __init__(self, *, embedded: bool = True) -> None:
        self.embedded = embedded
        self.commands: list[str] = []

    async def select(self, _sql: str) -> list[tuple[Any, ...]]:
        return [("rollup_hours_done",), ("events",)]

    async def command(self, sql: str) -> None:
        self.commands.append(sql)


async def test_each_table_is_frozen_under_the_name_of_the_backup() -> None:
    store = FakeStore()
    reply = await freeze(store, FreezeRequest(name="backup1"))
    assert reply.tables == ("rollup_hours_done", "events")
    assert store.commands == [
        "ALTER TABLE `rollup_hours_done` FREEZE WITH NAME 'backup1'",
        "ALTER TABLE `events` FREEZE WITH NAME 'backup1'",
    ]


async def test_tables_of_a_server_are_left_to_its_own_backups() -> None:
    store = FakeStore(embedded=False)
    with pytest.raises(InvalidError, match="its own BACKUP statement"):
        await freeze(store, FreezeRequest(name="backup1"))
    assert store.commands == []


@pytest.mark.parametrize("name", ["", "../x", "a'b", "A", "x" * 65])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        FreezeRequest(name=name)
