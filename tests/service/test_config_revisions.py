"""Earlier revisions of the configuration, on a real bus: which are stored, and restoring one."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from toolbus_cli import config_client as desks
from toolbus_cli.state_dir import State
from toolbus_common.access.administrators import Administrator, of_key
from toolbus_common.config import Admin, Configuration
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AdminRequest
from toolbus_common.errors import (
    ForbiddenError,
    InvalidConfigurationError,
    StaleError,
    UnconditionalError,
    UnknownEntryError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings
from toolbus_policy.admin.configuration import ConfigurationOperations
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions

ANN: Administrator = of_key("ann", Admin(role="admin"))
URL = "https://docs.example/mcp"


@pytest.fixture
async def repository(operator: Bus, settings: Settings) -> AsyncIterator[ConfigRepository]:
    async with desks.opened(operator, State(settings.state_dir)) as opened:
        yield opened


async def applied(repository: ConfigRepository, **sections: Any) -> int:
    """Apply a configuration, and return its revision."""
    return (await repository.apply(Configuration.model_validate(sections), "file")).revision


async def restored(repository: ConfigRepository, revision: int, **given: Any) -> dict[str, Any]:
    """Restore a revision over the administration API."""
    operations = ConfigurationOperations(lambda _by: repository, RemoteRestrictions())
    request = AdminRequest(
        key_digest="p", operation="restore_revision", name=str(revision), **given
    )
    answer: dict[str, Any] = json.loads((await operations.restore_revision(request, ANN)).body)
    return answer


async def test_the_newest_revisions_are_listed(repository: ConfigRepository) -> None:
    made = [await applied(repository, teams={f"t{each}": {}}) for each in range(12)]
    operations = ConfigurationOperations(lambda _by: repository, RemoteRestrictions())
    request = AdminRequest(key_digest="p", operation="list_revisions")
    listed = json.loads((await operations.list_revisions(request, ANN)).body)
    assert [each["revision"] for each in listed["items"]] == made[::-1][:10]
    assert listed["revision"] == made[-1]
    assert all(each["at"].startswith("20") for each in listed["items"])
    with pytest.raises(UnknownEntryError):
        await restored(repository, made[0], match="*")


async def test_a_restored_revision_brings_no_rotated_or_removed_secret_back(
    repository: ConfigRepository,
) -> None:
    keys = {"bot": {"tools": ["a__*"]}, "gone": {"tools": ["*"]}}
    first = await applied(repository, keys=keys)
    removed = (await repository.declared()).configuration.keys["gone"].secret_hash
    await applied(repository, keys={"bot": {"tools": ["b__*"]}})
    await repository.replace_secret("bot", "f" * 64)
    plan = await restored(repository, first, dry_run=True)
    assert not plan["applied"]
    assert {(each["sign"], each["name"]) for each in plan["changes"]} == {
        ("~", "bot"), ("+", "gone"),
    }  # fmt: skip
    answer = await restored(repository, first, match="*")
    now = (await repository.declared()).configuration.keys
    assert now["bot"].tools == ("a__*",)
    assert now["bot"].secret_hash == "f" * 64
    assert now["gone"].secret_hash != removed
    assert list(answer["secrets"]) == ["gone"]


async def test_a_revision_is_restored_only_over_the_revision_that_was_read(
    repository: ConfigRepository,
) -> None:
    first = await applied(repository, teams={"a": {}})
    second = await applied(repository, teams={"b": {}})
    await applied(repository, teams={"c": {}})
    for error, match in ((UnconditionalError, ""), (StaleError, str(second))):
        with pytest.raises(error):
            await restored(repository, first, match=match)
    assert list((await repository.declared()).configuration.teams) == ["c"]


async def test_every_secret_that_is_missing_is_named_and_nothing_changes(
    repository: ConfigRepository,
) -> None:
    servers = {name: {"url": URL, "headers": {"X": "token-of-docs"}} for name in ("docs", "more")}
    first = await applied(repository, servers=servers)
    await applied(repository)
    with pytest.raises(InvalidConfigurationError) as raised:
        await restored(repository, first, match="*")
    assert {each["location"] for each in raised.value.data["errors"]} == {
        "servers.docs.headers.X", "servers.more.headers.X",
    }  # fmt: skip
    assert (await repository.declared()).configuration.servers == {}


async def test_a_program_that_an_operator_removed_is_not_restored_over_http(
    repository: ConfigRepository,
) -> None:
    first = await applied(repository, servers={"local": {"command": ["sh", "-c", "true"]}})
    await applied(repository)
    for given in ({"match": "*"}, {"dry_run": True}):
        with pytest.raises(ForbiddenError, match="toolbus apply"):
            await restored(repository, first, **given)
    assert (await repository.declared()).configuration.servers == {}
