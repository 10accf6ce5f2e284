"""Perform administration operations, each allowed by the caller's role."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api import models
from toolbus_common.admin_api.operations import OPERATIONS, exists
from toolbus_common.admin_api.roles import Right
from toolbus_common.config import Admin, Configuration, Key, KeyTerms
from toolbus_common.config_store import keys as keyring
from toolbus_common.config_store.redacted_view import entries
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    AdminReply,
    AdminRequest,
    CachedResponsesQuery,
    CachedResponsesReply,
    FlowRunsQuery,
    LedgerQuery,
    LedgerReply,
    PurgeCacheReply,
    PurgeCacheRequest,
    ResetFlowRequest,
    RunsReply,
    RunsRequest,
)
from toolbus_common.errors import (
    InvalidError,
    UnauthorizedError,
    UnknownEntryError,
)
from toolbus_policy.admin import request_parser
from toolbus_policy.admin.configuration import SOURCE, revision_of
from toolbus_policy.admin.guard_coverage import guard_coverage
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.shown_keys import shown_admin, shown_key
from toolbus_policy.approvals.approvers import Approver, ApproverService
from toolbus_policy.flow.queries import RunQueryHandler


@dataclass(frozen=True, slots=True)
class AdminService:
    """Administration operations: a method here or in `others` for each of `OPERATIONS`."""

    administrator: Callable[[str], Awaitable[Administrator | None]]
    repository_for: Callable[[str], ConfigRepository]
    approvers: ApproverService
    ledger: Callable[[LedgerQuery], Awaitable[LedgerReply]]
    restrictions: RemoteRestrictions
    request: Callable[..., Awaitable[Any]]
    flow: RunQueryHandler
    others: tuple[object, ...]

    async def handle(self, request: AdminRequest) -> AdminReply:
        """Perform the operation, if the caller's role allows it.

        Raises also the errors of `check_right` and of the operation.
        """
        if not exists(request.operation, request.kind):
            raise InvalidError(
                "Unknown operation: ingress and policy differ in version. Restart the older one."
            )
        right = OPERATIONS[request.operation]
        administrator = check_right(await self.administrator(request.key_digest), right)
        others = (each for each in self.others if hasattr(each, request.operation))
        performer = next(others, self)
        perform: Callable[..., Awaitable[AdminReply]] = getattr(performer, request.operation)
        return await perform(request, administrator)

    async def who_am_i(self, _request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Return the caller's name, role and rights."""
        body = {
            "name": administrator.name,
            "role": administrator.role,
            "rights": administrator.rights,
        }
        return _json(body)

    # -- entries -------------------------------------------------------------------------------

    async def list_entries(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Return one page of entries of a kind."""
        now = await self.repository_for(administrator.by).declared()
        found = entries(now.configuration, request.kind)
        shown = page(found, lambda n: {"name": n, "value": found[n]}, request)
        return _json({**shown, "revision": now.revision}, now.revision)

    async def show_entry(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Return one entry."""
        now = await self.repository_for(administrator.by).declared()
        return _entry(request, now.configuration, now.revision)

    async def put_entry(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Create or replace an entry."""
        entry = request_parser.parse_entry(request.kind, request.body)
        created = False

        def make(old: Configuration) -> Configuration:
            nonlocal created
            created = request.name not in getattr(old, request.kind)
            new = request_parser.with_entry(old, request.kind, request.name, entry)
            self.restrictions.check(old, new)
            return new

        repository = self.repository_for(administrator.by)
        await repository.change(make, SOURCE, revision_of(request.match))
        # The revision must match the returned entry, which another caller may have changed.
        now = await repository.declared()
        return _entry(request, now.configuration, now.revision, created=created)

    async def delete_entry(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Delete an entry."""

        def make(old: Configuration) -> Configuration:
            if request.name not in getattr(old, request.kind):
                raise _unknown_error(request)
            return request_parser.with_entry(old, request.kind, request.name, None)

        repository = self.repository_for(administrator.by)
        applied = await repository.change(make, SOURCE, revision_of(request.match))
        return AdminReply(revision=applied.revision)

    # -- keys ----------------------------------------------------------------------------------

    async def list_keys(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Return one page of keys."""
        return await self._list(request, administrator, shown_key)

    async def show_key(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Return one key."""
        repository = self.repository_for(administrator.by)
        now, own = await repository.declared(), await repository.own_key(request.name)
        found = own or now.configuration.keys.get(request.name)
        if found is None:
            raise _unknown_error(request)
        return _json(shown_key(request.name, found, {request.name} if own else ()), now.revision)

    async def create_key(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Create a key."""
        named: models.KeyNamed = request_parser.parse_body(models.KeyNamed, request.body)
        secret = await keyring.create_key(self.repository_for(administrator.by), named.name, named)
        return _json({"name": named.name, "secret": secret})

    async def replace_key(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Replace a key's terms."""
        terms: KeyTerms = request_parser.parse_body(KeyTerms, request.body)
        await keyring.replace_key(self.repository_for(administrator.by), request.name, terms)
        return await self.show_key(request, administrator)

    async def rotate_key(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Replace a key's secret."""
        secret = await keyring.rotate_key(self.repository_for(administrator.by), request.name)
        return _json({"name": request.name, "secret": secret})

    async def revoke_key(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Revoke a key."""
        await keyring.revoke_key(self.repository_for(administrator.by), request.name)
        return _json({"name": request.name, "state": "revoked"})

    # -- admin keys ----------------------------------------------------------------------------

    async def list_admins(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Return one page of admin keys."""
        return await self._list(request, administrator, shown_admin)

    async def create_admin(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Create an admin key."""
        named: models.AdminNamed = request_parser.parse_body(models.AdminNamed, request.body)
        admin = Admin(role=named.role, expires=request_parser.expiry(named.expires))
        secret = await keyring.create_admin(
            self.repository_for(administrator.by), named.name, admin
        )
        return _json({"name": named.name, "secret": secret})

    async def revoke_admin(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Revoke an admin key."""
        await keyring.revoke_admin(self.repository_for(administrator.by), request.name)
        return _json({"name": request.name, "state": "revoked"})

    async def _list(
        self,
        request: AdminRequest,
        administrator: Administrator,
        show: Callable[..., dict[str, Any]],
    ) -> AdminReply:
        repository = self.repository_for(administrator.by)
        now = await repository.declared()
        declared: Mapping[str, Key | Admin] = now.configuration.keys
        own: Mapping[str, Key | Admin]
        if show is shown_admin:
            declared, own = now.configuration.admins, await repository.own_admins()
        else:
            own = await repository.own_keys()
        found = {**declared, **own}
        listing = page(found, lambda n: show(n, found[n], own), request)
        return _json({**listing, "revision": now.revision}, now.revision)

    async def show_coverage(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return one page of the shares of calls that each guard checked."""
        repository = self.repository_for(administrator.by)
        found = await guard_coverage(repository, request, self.request)
        return _json(found, found["revision"])

    # -- cache of model responses --------------------------------------------------------------

    async def show_cache(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the selected cached responses without their content."""
        selection = request_parser.parse_body(models.CacheSelection, request.body)
        query = CachedResponsesQuery(limit=request.limit, **selection.model_dump())
        return _json((await self.request(query, CachedResponsesReply)).model_dump())

    async def purge_cache(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Remove the selected cached responses."""
        selection = request_parser.parse_body(models.CachePurge, request.body)
        purge = PurgeCacheRequest(by=administrator.by, **selection.model_dump())
        return _json((await self.request(purge, PurgeCacheReply)).model_dump())

    # -- budgets and approvals -----------------------------------------------------------------

    async def list_budgets(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the states of the budgets."""
        return _json((await self.ledger(LedgerQuery(customer=request.customer))).model_dump())

    async def list_approvals(
        self, _request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return pending approvals."""
        return _json((await self.approvers.show(Approver(administrator.by))).model_dump())

    async def show_approval(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return one approval."""
        (state,) = (await self.approvers.show(Approver(administrator.by), request.name)).approvals
        return _json(state.model_dump())

    async def approve_call(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Approve a call."""
        return await self._decide(request, administrator, approve=True)

    async def reject_call(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Reject a call."""
        return await self._decide(request, administrator, approve=False)

    # -- runs of agent mode, and what runs have read -------------------------------------------

    async def list_runs(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one page of runs."""
        query = RunsRequest(limit=request.limit, after=request.after)
        return _json((await self.request(query, RunsReply)).model_dump())

    async def show_run(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one run."""
        return await self._run(RunsRequest(run=request.name))

    async def cancel_run(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Cancel a run."""
        return await self._run(RunsRequest(run=request.name, cancel=True))

    async def _run(self, query: RunsRequest) -> AdminReply:
        return _json((await self.request(query, RunsReply)).runs[0].model_dump())

    async def list_flow_runs(self, _request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return what runs have read."""
        return _json((await self.flow.show(FlowRunsQuery())).model_dump())

    async def reset_flow_run(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Clear the record of what a run has read."""
        reason = request_parser.parse_body(models.ResetReason, request.body).reason
        reset = ResetFlowRequest(run=request.name, by=administrator.by, note=reason)
        return _json((await self.flow.reset(reset)).runs[0].model_dump())

    async def _decide(
        self, request: AdminRequest, administrator: Administrator, *, approve: bool
    ) -> AdminReply:
        note = request_parser.parse_body(models.Decision, request.body or b"{}").note
        who = Approver(administrator.by, administrator.key, administrator.user)
        (state,) = (await self.approvers.decide(who, request.name, note, approve=approve)).approvals
        return _json(state.model_dump())


def check_right(found: Administrator | None, right: Right | None) -> Administrator:
    """Return the administrator, if the role includes the right.

    Raises `UnauthorizedError`, `ForbiddenError` or `InsufficientScopeError`.
    """
    if found is None:
        raise UnauthorizedError("Invalid, revoked or expired admin key.")
    found.check(right)
    return found


def _json(value: Any, revision: int = 0) -> AdminReply:
    return AdminReply(revision=revision, body=msgspec.json.encode(value))


def _entry(
    request: AdminRequest, declared: Configuration, revision: int, *, created: bool = False
) -> AdminReply:
    found = entries(declared, request.kind)
    if request.name not in found:
        raise _unknown_error(request)
    body = {"name": request.name, "value": found[request.name], "revision": revision}
    return AdminReply(revision=revision, created=created, body=msgspec.json.encode(body))


def _unknown_error(request: AdminRequest) -> UnknownEntryError:
    kind = request.kind or "keys"
    return UnknownEntryError(
        f"'{request.name}' does not exist in {kind}; list {kind} to see the names."
    )
