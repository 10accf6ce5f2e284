"""Administrators' operations on the whole configuration and its earlier revisions."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.models import Written
from toolbus_common.config import Configuration
from toolbus_common.config_store.loading.document import Document
from toolbus_common.config_store.loading.loader import Loaded, check
from toolbus_common.config_store.redacted_view import exported
from toolbus_common.config_store.repository import Applied, ConfigRepository
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_common.errors import UnconditionalError
from toolbus_common.nats.topology import CONFIG
from toolbus_policy.admin import request_parser
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.revisions import configuration_at, revisions

SOURCE = "api"
ANY = "*"


@dataclass(frozen=True, slots=True)
class ConfigurationOperations:
    """Operations on the whole configuration."""

    repository_for: Callable[[str], ConfigRepository]
    restrictions: RemoteRestrictions

    async def show_configuration(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return the whole configuration."""
        now = await self.repository_for(administrator.by).declared()
        shown = exported(now.configuration)
        if request.form == "yaml":
            body = await asyncio.to_thread(_as_yaml, shown)
            return AdminReply(revision=now.revision, form="yaml", body=body)
        return _reply({"revision": now.revision, "configuration": shown}, now.revision)

    async def apply_configuration(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Replace the configuration, or with `dry_run` only return the changes."""
        found = await asyncio.to_thread(
            request_parser.load_configuration, request.body, request.form, Written
        )
        return await self._replace(request, administrator, found)

    async def list_revisions(
        self, _request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return the stored revisions."""
        repository = self.repository_for(administrator.by)
        found = await revisions(await repository.bus.bucket(CONFIG))
        now = await repository.declared()
        items = [{"revision": each.number, "at": each.at} for each in found]
        return _reply({"items": items, "revision": now.revision}, now.revision)

    async def restore_revision(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Apply an earlier revision again, or with `dry_run` only return the changes.

        Its secrets are not applied: a rotated or removed secret stays invalid. Entries keep their
        current secrets, and a key that does not exist any more receives a new one.
        """
        bucket = await self.repository_for(administrator.by).bus.bucket(CONFIG)
        earlier = await configuration_at(bucket, int(request.name))
        found = await asyncio.to_thread(lambda: check(Document(data=exported(earlier)), None))
        return await self._replace(request, administrator, found)

    async def _replace(
        self, request: AdminRequest, administrator: Administrator, found: Loaded
    ) -> AdminReply:
        request_parser.raise_for_problems(list(found.problems))
        repository, at = self.repository_for(administrator.by), revision_of(request.match)
        warnings = [request_parser.problem_as_json(warning) for warning in found.warnings]
        if request.dry_run:
            now = await repository.declared()
            self.restrictions.check(now.configuration, found.configuration)
            planned, revision = await repository.plan(found.configuration)
            applied = Applied(tuple(planned), revision)
            return _reply(_applied(applied, warnings, done=False), revision)
        if not request.match:
            raise UnconditionalError(
                "Replacing the whole configuration requires 'If-Match' with the revision that GET "
                "returned, or '*' for any."
            )

        def make(old: Configuration) -> Configuration:
            self.restrictions.check(old, found.configuration)
            return found.configuration

        applied = await repository.change(make, SOURCE, at)
        return _reply(_applied(applied, warnings, done=True), applied.revision)


def revision_of(match: str) -> int | None:
    """Return the revision that a request expects; None for any."""
    return int(match) if match not in ("", ANY) else None


def _reply(value: Any, revision: int) -> AdminReply:
    return AdminReply(revision=revision, body=msgspec.json.encode(value))


def _as_yaml(value: Any) -> bytes:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.encode()


def _applied(applied: Applied, warnings: list[dict[str, Any]], *, done: bool) -> dict[str, Any]:
    changes = [
        {"sign": each.sign, "kind": each.section, "name": each.name, "text": str(each)}
        for each in applied.changes
    ]
    return {
        "applied": done,
        "revision": applied.revision,
        "changes": changes,
        "secrets": applied.secrets,
        "warnings": warnings,
    }
