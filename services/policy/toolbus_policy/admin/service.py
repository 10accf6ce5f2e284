"""The office of who administers: each operation judged by the asker's role, then done."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec
import yaml

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api import models
from toolbus_common.admin_api.operations import OPERATIONS, Operation
from toolbus_common.config import Admin, Configuration, Key, KeyTerms
from toolbus_common.config.access.expiry import shown_expiry
from toolbus_common.config_store import keys as keyring
from toolbus_common.config_store.redacted_view import entries, exported, restored
from toolbus_common.config_store.repository import Applied, ConfigRepository
from toolbus_common.contracts import AdminReply, AdminRequest, LedgerQuery, LedgerReply
from toolbus_common.errors import (
    ForbiddenError,
    InvalidError,
    UnauthorizedError,
    UnconditionalError,
    UnknownEntryError,
)
from toolbus_policy.admin import request_parser
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.remote_restrictions import Reach
from toolbus_policy.approvals.approvers import Approver, Approvers

SOURCE = "api"
ANY = "*"


@dataclass(frozen=True, slots=True)
class Office:
    """Answers what is asked. Every method named in the table of operations is one of it."""

    administrator: Callable[[str], Awaitable[Administrator | None]]
    desk_of: Callable[[str], ConfigRepository]
    approvers: Approvers
    ledger: Callable[[LedgerQuery], Awaitable[LedgerReply]]
    reach: Reach

    async def answer(self, asked: AdminRequest) -> AdminReply:
        """Do what is asked, if whoever asks may."""
        operation = OPERATIONS.get(asked.operation)
        if operation is None or operation.kind != asked.kind:
            raise InvalidError("This version knows no such operation; restart what is older.")
        visitor = judged(await self.administrator(asked.key_digest), operation)
        doing: Callable[..., Awaitable[AdminReply]] = getattr(self, operation.does)
        return await doing(asked, visitor)

    # -- the whole -----------------------------------------------------------------------------

    async def who(self, _asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Who asks."""
        told = {"name": visitor.name, "role": visitor.role, "rights": visitor.rights}
        return _json(told)

    async def show_declaration(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Everything that is declared."""
        now = await self.desk_of(visitor.by).declared()
        shown = exported(now.declaration)
        if asked.form == "yaml":
            body = await asyncio.to_thread(_as_yaml, shown)
            return AdminReply(revision=now.revision, form="yaml", body=body)
        return _json({"revision": now.revision, "declaration": shown}, now.revision)

    async def apply(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Replace everything, or tell what that would change."""
        found = await asyncio.to_thread(
            request_parser.loaded, asked.body, asked.form, models.Written
        )
        request_parser.check_faults(list(found.problems))
        desk, at = self.desk_of(visitor.by), _revision(asked.match)
        warnings = [request_parser.told(warning) for warning in found.warnings]
        if asked.dry_run:
            now = await desk.declared()
            self._check_reach(now.declaration, found.declaration)
            planned, revision = await desk.plan(found.declaration)
            applied = Applied(tuple(planned), revision)
            return _json(_applied(applied, warnings, done=False), revision)
        if not asked.match:
            raise UnconditionalError(
                "Say in If-Match which revision this replaces, as GET told it, or * for any."
            )

        def make(old: Configuration) -> Configuration:
            self._check_reach(old, found.declaration)
            return found.declaration

        applied = await desk.change(make, SOURCE, at)
        return _json(_applied(applied, warnings, done=True), applied.revision)

    # -- entries -------------------------------------------------------------------------------

    async def list_entries(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """One page of a kind."""
        now = await self.desk_of(visitor.by).declared()
        found = entries(now.declaration, asked.kind)
        told = page(found, lambda n: {"name": n, "value": found[n]}, asked.after, asked.limit)
        return _json({**told, "revision": now.revision}, now.revision)

    async def show_entry(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """One entry."""
        now = await self.desk_of(visitor.by).declared()
        return _entry(asked, now.declaration, now.revision)

    async def put_entry(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Make or replace an entry."""
        entry = request_parser.written(asked.kind, asked.body)
        created = False

        def make(old: Configuration) -> Configuration:
            nonlocal created
            created = asked.name not in getattr(old, asked.kind)
            new = request_parser.with_entry(old, asked.kind, asked.name, entry)
            self._check_reach(old, new)
            return new

        desk = self.desk_of(visitor.by)
        await desk.change(make, SOURCE, _revision(asked.match))
        now = await desk.declared()  # others may have gone on: the revision is that of what is told
        return _entry(asked, now.declaration, now.revision, created=created)

    async def delete_entry(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Delete an entry."""

        def make(old: Configuration) -> Configuration:
            if asked.name not in getattr(old, asked.kind):
                raise _unknown(asked)
            return request_parser.with_entry(old, asked.kind, asked.name, None)

        desk = self.desk_of(visitor.by)
        applied = await desk.change(make, SOURCE, _revision(asked.match))
        return AdminReply(revision=applied.revision)

    def _check_reach(self, old: Configuration, new: Configuration) -> None:
        faults = self.reach.faults(old, restored(new, old))
        if faults:
            raise ForbiddenError(f"{faults[0]['place']}: {faults[0]['reason']}.", faults=faults)

    # -- keys ----------------------------------------------------------------------------------

    async def list_keys(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """One page of keys."""
        return await self._list(asked, visitor, _key)

    async def show_key(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """One key."""
        desk = self.desk_of(visitor.by)
        now, own = await desk.declared(), await desk.own_key(asked.name)
        found = own or now.declaration.keys.get(asked.name)
        if found is None:
            raise _unknown(asked)
        return _json(_key(asked.name, found, {asked.name} if own else ()), now.revision)

    async def create_key(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Make a key."""
        named: models.KeyNamed = request_parser.shaped(models.KeyNamed, asked.body)
        secret = await keyring.create_key(self.desk_of(visitor.by), named.name, named)
        return _json({"name": named.name, "secret": secret})

    async def replace_key(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Give a key other terms."""
        terms: KeyTerms = request_parser.shaped(KeyTerms, asked.body)
        await keyring.replace_key(self.desk_of(visitor.by), asked.name, terms)
        return await self.show_key(asked, visitor)

    async def rotate_key(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Give a key a new secret."""
        secret = await keyring.rotate_key(self.desk_of(visitor.by), asked.name)
        return _json({"name": asked.name, "secret": secret})

    async def revoke_key(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """End a key."""
        await keyring.revoke_key(self.desk_of(visitor.by), asked.name)
        return _json({"name": asked.name, "state": "revoked"})

    # -- admin keys ----------------------------------------------------------------------------

    async def list_admins(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """One page of admin keys."""
        return await self._list(asked, visitor, _admin)

    async def create_admin(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Make an admin key."""
        named: models.AdminNamed = request_parser.shaped(models.AdminNamed, asked.body)
        admin = Admin(role=named.role, expires=request_parser.expiry(named.expires))
        secret = await keyring.create_admin(self.desk_of(visitor.by), named.name, admin)
        return _json({"name": named.name, "secret": secret})

    async def revoke_admin(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """End an admin key."""
        await keyring.revoke_admin(self.desk_of(visitor.by), asked.name)
        return _json({"name": asked.name, "state": "revoked"})

    async def _list(
        self, asked: AdminRequest, visitor: Administrator, show: Callable[..., dict[str, Any]]
    ) -> AdminReply:
        desk = self.desk_of(visitor.by)
        now = await desk.declared()
        declared: Mapping[str, Key | Admin] = now.declaration.keys
        own: Mapping[str, Key | Admin]
        if show is _admin:
            declared, own = now.declaration.admins, await desk.own_admins()
        else:
            own = await desk.own_keys()
        found = {**declared, **own}
        told = page(found, lambda n: show(n, found[n], own), asked.after, asked.limit)
        return _json({**told, "revision": now.revision}, now.revision)

    # -- money and approvals -------------------------------------------------------------------

    async def budgets(self, asked: AdminRequest, _visitor: Administrator) -> AdminReply:
        """How the budgets stand."""
        return _json((await self.ledger(LedgerQuery(customer=asked.customer))).model_dump())

    async def list_approvals(self, _asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """What waits for a person."""
        return _json((await self.approvers.show(Approver(visitor.by))).model_dump())

    async def show_approval(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """One approval."""
        (told,) = (await self.approvers.show(Approver(visitor.by), asked.name)).approvals
        return _json(told.model_dump())

    async def approve(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Let a call through."""
        return await self._decide(asked, visitor, approve=True)

    async def reject(self, asked: AdminRequest, visitor: Administrator) -> AdminReply:
        """Refuse a call."""
        return await self._decide(asked, visitor, approve=False)

    async def _decide(
        self, asked: AdminRequest, visitor: Administrator, *, approve: bool
    ) -> AdminReply:
        note = request_parser.shaped(models.Decision, asked.body or b"{}").note
        who = Approver(visitor.by, visitor.key, visitor.user)
        (told,) = (await self.approvers.decide(who, asked.name, note, approve=approve)).approvals
        return _json(told.model_dump())


def judged(found: Administrator | None, operation: Operation) -> Administrator:
    """Whoever asks, if they may.

    Raises `UnauthorizedError`, `ForbiddenError` or `InsufficientScopeError`.
    """
    if found is None:
        raise UnauthorizedError("This opens no administration: it is unknown, revoked or expired.")
    found.check(operation.right)
    return found


def _json(value: Any, revision: int = 0) -> AdminReply:
    return AdminReply(revision=revision, body=msgspec.json.encode(value))


def _as_yaml(value: Any) -> bytes:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.encode()


def _revision(match: str) -> int | None:
    return int(match) if match not in ("", ANY) else None


def _entry(
    asked: AdminRequest, declared: Configuration, revision: int, *, created: bool = False
) -> AdminReply:
    found = entries(declared, asked.kind)
    if asked.name not in found:
        raise _unknown(asked)
    told = {"name": asked.name, "value": found[asked.name], "revision": revision}
    return AdminReply(revision=revision, created=created, body=msgspec.json.encode(told))


def _unknown(asked: AdminRequest) -> UnknownEntryError:
    kind = asked.kind or "keys"
    return UnknownEntryError(f"'{asked.name}' is not among the {kind}; list them to see which are.")


def _applied(applied: Applied, warnings: list[dict[str, Any]], *, done: bool) -> dict[str, Any]:
    changes = [
        {"sign": each.sign, "kind": each.section, "name": each.name, "said": str(each)}
        for each in applied.changes
    ]
    return {
        "applied": done,
        "revision": applied.revision,
        "changes": changes,
        "secrets": applied.secrets,
        "warnings": warnings,
    }


def _state(entry: Key | Admin, *, expired: bool) -> str:
    if not entry.secret_hash:
        return "no secret"
    return "revoked" if entry.revoked else "expired" if expired else "live"


def _key(name: str, key: Key, own: Container[str]) -> dict[str, Any]:
    value = key.model_dump(mode="json", exclude_defaults=True, exclude={"secret_hash", "revoked"})
    return {
        "name": name,
        "state": _state(key, expired=key.expired(time())),
        "origin": "command" if name in own else "declaration",
        "value": value,
    }


def _admin(name: str, admin: Admin, own: Container[str]) -> dict[str, Any]:
    return {
        "name": name,
        "state": _state(admin, expired=not admin.revoked and not admin.live(time())),
        "origin": "command" if name in own else "declaration",
        "role": admin.role,
        "expires": shown_expiry(admin.expires) or None,
    }
