"""Decisions: who may call what, at what price, against which limits. Pure: no clock, no I/O."""

from toolbus_common.access import session_owner
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.oauth_scopes import needed
from toolbus_common.access.pricing import FREE, cost_of
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Patterns
from toolbus_common.contracts import FOLLOW, TOOLS_CALL, Listing
from toolbus_common.errors import (
    InsufficientScopeError,
    ToolbusError,
    UnauthorizedError,
    UnknownToolError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.result_uris import governing
from toolbus_policy.admission.plan_cache import Memory
from toolbus_policy.admission.rule_evaluator import Ruling
from toolbus_policy.ledger.admitted_call import Admission, Payer
from toolbus_policy.ledger.limits import (
    budgets_of,
    loops_of,
    rates_of,
)

# Methods whose subject must be listed. A resource need not be: templates make any number of them.
_LISTED = {TOOLS_CALL: "tools", "prompts/get": "prompts"}
_COMPLETION, _READ = "completion/complete", "resources/read"
METHODS = frozenset(
    {
        *_LISTED, _READ, "resources/subscribe", _COMPLETION,
        "tasks/get", "tasks/update", "tasks/result", "tasks/cancel", FOLLOW,
    }
)  # fmt: skip
# What a person can be asked about: the rest belongs to a call that was made, or sends nothing.
_APPROVABLE = frozenset({TOOLS_CALL, "prompts/get", _READ})


class Standing:
    """What stands while declaration and catalogue do: what is listed, and what keys may call."""

    MOST_REMEMBERED = 100_000

    def __init__(self, snapshot: ConfigSnapshot, catalogue: dict[str, Listing]) -> None:
        self.known = {
            method: {
                full_name(server, offered.name): offered.digest
                for server, listing in catalogue.items()
                for offered in getattr(listing, kind)
                if snapshot.serves(server)
                and not (kind == "tools" and _hidden(snapshot, server, offered.name))
            }
            for method, kind in _LISTED.items()
        }
        self.held = {
            full_name(server, each.name)
            for server, listing in catalogue.items()
            for each in listing.quarantined
            if each.kind == "prompts"
        }
        self.payers = Memory[str, Payer](self.MOST_REMEMBERED)
        self.admissions = Memory[tuple[str, str, str, str], Admission | None](self.MOST_REMEMBERED)


class Judge:
    """Decides against one snapshot; what does not depend on the call is worked out once.

    A new snapshot is a new judge. Where only keys have changed it takes over what stands: what
    was worked out of a key holds while the key's principal does.
    """

    def __init__(
        self,
        snapshot: ConfigSnapshot,
        catalogue: dict[str, Listing],
        ruling: Ruling | None = None,
        standing: Standing | None = None,
    ) -> None:
        self.version = snapshot.version
        self.snapshot = snapshot
        self.ruling = ruling
        self.standing = standing or Standing(snapshot, catalogue)

    def decide(
        self,
        key_digest: str,
        server: str,
        method: str,
        tool: str,
        now: float,
        restriction: tuple[Patterns, ...] = (),
    ) -> Admission:
        """Yes, or the error that says no. Only tools have a price.

        `restriction` is what the request itself asked to be kept within.

        Raises:
            UnauthorizedError: the key is unknown, revoked or expired.
            UnknownToolError: no such tool, or it is not granted: the two are told alike.
            InsufficientScopeError: it is granted, but this access token is for less.

        """
        return self.decide_for(self._live(key_digest, now), server, method, tool, restriction)

    def decide_for(
        self,
        principal: Principal,
        server: str,
        method: str,
        tool: str,
        restriction: tuple[Patterns, ...] = (),
    ) -> Admission:
        """The same for a key that is known to be live. Raises all but `UnauthorizedError`."""
        if method == _READ:
            tool = governing(tool)
        about = (principal.key, server, method, tool)
        try:
            admission = self.standing.admissions.recall(about, principal)
        except KeyError:
            admission = self._admit(self._payer(principal), server, method, tool)
            self.standing.admissions.keep(about, principal, admission)
        narrows = restriction and server != BUILT_IN
        if narrows and not _within(restriction, full_name(server, tool)):
            raise _unknown(server, method, tool)
        if admission is None:
            raise self._refusal(principal, server, method, tool)
        return admission

    def asker(self, key_digest: str, now: float) -> Payer:
        """Who asks, whatever for. Raises `UnauthorizedError`."""
        return self._payer(self._live(key_digest, now))

    def holder(self, key: str, now: float) -> Payer:
        """The key of a name, if it is live still. Raises `UnauthorizedError`."""
        principal = self.snapshot.principal_of(key, now)
        if principal is None:
            raise UnauthorizedError("The key that made this call is revoked, expired or gone.")
        return self._payer(principal)

    def _live(self, key_digest: str, now: float) -> Principal:
        found = self.snapshot.principal_for(key_digest, now)
        if found is None:
            raise UnauthorizedError("This key opens nothing: it is unknown, revoked or expired.")
        return found

    def _refusal(self, principal: Principal, server: str, method: str, tool: str) -> ToolbusError:
        """Why not: only who may use it with another token is told that it is there."""
        whole = principal.whole
        if whole is None or self._admit(payer_of(whole), server, method, tool) is None:
            return _unknown(server, method, tool)
        name = full_name(server, tool)
        scope = needed(self.snapshot.declaration, principal.token_scope, name)
        return InsufficientScopeError(
            f"This access token is not for {name}; sign in again for the scope '{scope}'.",
            scope=scope,
        )

    def _admit(self, payer: Payer, server: str, method: str, tool: str) -> Admission | None:
        declared, name = self.snapshot.declaration, full_name(server, tool)
        if method not in METHODS or not self.snapshot.serves(server):
            return None
        known = self.standing.known.get(method)
        if known is not None and name not in known:  # what is held back is not known here
            return None
        if (
            method == _COMPLETION and name in self.standing.held
        ):  # nor is what completes its arguments
            return None
        bounds = payer.principal.bounds
        if not (bounds.cover(name) if server != BUILT_IN else _may_program(payer, name)):
            return None
        cause = payer.principal.covering(name) if method in _APPROVABLE else ""
        told = (
            cause,
            known[name] if known is not None else "",
            *payer.principal.recording(server),
            payer.principal.strict,
        )
        if method != TOOLS_CALL:
            return Admission(payer, FREE, (), (), *told)
        cost = cost_of(name, declared.prices)
        counting = tuple(each for each in payer.budgets if each.counts(name, cost.held))
        return Admission(payer, cost, counting, payer.loops, *told)

    def _payer(self, principal: Principal) -> Payer:
        try:
            return self.standing.payers.recall(principal.key, principal)
        except KeyError:
            return self.standing.payers.keep(principal.key, principal, payer_of(principal))


def _may_program(payer: Payer, name: str) -> bool:
    """Our own tools need no grant, for they reach no further than the key: only no denial."""
    principal = payer.principal
    return principal.code_mode is not False and not principal.bounds.deny(name)


def _unknown(server: str, method: str, tool: str) -> UnknownToolError:
    named = tool if method.startswith("resources/") else full_name(server, tool)
    return UnknownToolError.named(named, method)


def _within(restriction: tuple[Patterns, ...], name: str) -> bool:
    return all(granted(patterns, name) for patterns in restriction)


def _hidden(snapshot: ConfigSnapshot, server: str, tool: str) -> bool:
    declared = snapshot.declaration.servers.get(server)
    view = declared.tools.get(tool) if declared is not None else None
    return view is not None and view.hidden


def payer_of(principal: Principal) -> Payer:
    """A key with everything above it: grants intersect, limits add up."""
    levels = principal.levels
    return Payer(
        principal=principal,
        team=principal.own.team,
        user=principal.own.user,
        environment=principal.environment,
        budgets=budgets_of(levels),
        rates=rates_of(levels),
        loops=loops_of(levels),
        id=session_owner.principal_id_of(principal),
    )
