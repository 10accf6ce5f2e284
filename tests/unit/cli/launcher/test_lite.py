"""Options that the lite form rejects, and its start."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolbus_cli.errors import CommandError
from toolbus_cli.launcher.lite import check_options, ready, unused_sections
from toolbus_common.config import Configuration


def test_the_lite_form_rejects_several_processes_and_a_clickhouse_server() -> None:
    check_options(separate=False, clickhouse="")
    with pytest.raises(CommandError, match="leave out --separate"):
        check_options(separate=True, clickhouse="")
    with pytest.raises(CommandError, match="unset TOOLBUS_CLICKHOUSE_URL") as caught:
        check_options(separate=False, clickhouse="http://user:secret@host:8123")
    assert "secret" not in caught.value.message


def test_sections_that_only_the_full_form_uses_are_named() -> None:
    assert unused_sections(Configuration()) == []
    readers = Configuration.model_validate(
        {"readers": {"bi": {"secret_hash": "sha256:" + "0" * 64, "customers": ["acme"]}}}
    )
    assert unused_sections(readers) == ["readers"]


async def test_a_signal_ends_the_wait_for_services_that_are_not_ready() -> None:
    stop, service = asyncio.Event(), SimpleNamespace(is_ready=False)
    waiting = asyncio.create_task(ready(cast("Any", [service]), stop))
    stop.set()
    async with asyncio.timeout(30):  # less than the limit of a start
        await waiting
