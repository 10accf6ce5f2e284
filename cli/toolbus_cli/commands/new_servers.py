"""Addition of servers to the configuration in force, here or in a context."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toolbus_cli.commands.repository import at_work
from toolbus_cli.errors import CommandError
from toolbus_cli.remote import contexts
from toolbus_cli.remote.client import request
from toolbus_cli.remote.configuration import PATH
from toolbus_common.config import Configuration
from toolbus_common.config_store.repository import ConfigRepository


def added(
    servers: dict[str, dict[str, Any]], named: Configuration, state_dir: Path, source: str
) -> None:
    """Add all servers, or none if one of their names is taken. Raises `CommandError`.

    `servers` are the fields as the operator wrote them; `named` has the same servers, validated.
    """
    if (context := contexts.chosen()) is not None:
        _put(context, servers)
        return

    async def work(repository: ConfigRepository) -> None:
        stored = await repository.declared()
        now = stored.configuration
        _check_free(now.servers, named.servers)
        combined = now.model_copy(update={"servers": {**now.servers, **named.servers}})
        await repository.apply(combined, source, stored.revision, named=named)

    at_work(state_dir, work)


def _put(context: contexts.Context, servers: dict[str, dict[str, Any]]) -> None:
    found = request(context, "GET", PATH)
    _check_free(found["configuration"].get("servers", {}), servers)
    revision = found["revision"]
    for name, fields in servers.items():
        path = f"/servers/{quote(name, safe='')}"
        body = json.dumps(fields).encode()
        headers = {"Content_Type": "application/json", "If_Match": f'"{revision}"'}
        revision = request(context, "PUT", path, body, **headers)["revision"]


def _check_free(taken: Collection[str], new: Collection[str]) -> None:
    if both := sorted(set(taken) & set(new)):
        raise CommandError(
            f"A server '{both[0]}' is already configured; choose another name for one of the two."
        )
