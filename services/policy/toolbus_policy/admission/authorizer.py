"""Authorize calls: tools, prices and limits of one key (no clock, no I/O)."""

from dataclasses import replace

from toolbus_common.access import session_owner
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.oauth_scopes import needed
from toolbus_common.access.pricing import FREE, cost_of
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted, split_name
from toolbus_common.config import Patterns
from toolbus_common.contracts import FOLLOW, TOOLS_CALL, Listing, ServerState
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN
from toolbus_common.contracts.model_calls import MODEL_METHODS, is_model_method
from toolbus_common.errors import (
    InsufficientScopeError,
    ToolbusError,
    UnauthorizedError,
    UnknownModelError,
    UnknownToolError,
    UpstreamDeadError,
)
from toolbus_common.flow.labels import Labels, labels_of_call
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.result_uris import authorized_name
from toolbus_policy.admission.plan_cache import PrincipalCache
from toolbus_policy.admission.rule_evaluator import RuleEvaluator
from toolbus_policy.flow.terms import terms_of as terms_of_flow
from toolbus_policy.guards.effective import effective_guards
from toolbus_policy.ledger.admitted_call import Admission, Payer
from toolbus_policy.ledger.limits import budgets_of, loops_of, rates_of
from toolbus_policy.models.requests import terms_of

# Methods whose target must be in the server's list. Resources are exempt, because a template can
# have any number of URIs that are not listed.
_LISTED = {TOOLS_CALL: "tools", "prompts/get": "prompts"}
_COMPLETION, _READ = "completion/complete", "resources/read"
METHODS = frozenset(
    {
        *_LISTED, _READ, "resources/subscribe", _COMPLETION,
        "tasks/get", "tasks/update", "tasks/result", "tasks/cancel", FOLLOW,
    }
)  # fmt: skip
_NEVER_LISTED = frozenset({ServerState.CONNECTING, ServerState.FAILED})
# Methods that can need approval. Other methods belong to an earlier call, or have no effect.
_APPROVABLE = frozenset({TOOLS_CALL, "prompts/get", _READ})


class AuthorizationCache:
    """Listed names and authorizations, valid for one configuration and catalogue."""

    MAX_ENTRIES = 100_000
    MAX_MODELS = 10_000

    def __init__(self, snapshot: ConfigSnapshot, catalogue: dict[str, Listing]) -> None:
        self.catalogue = catalogue
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
        self.quarantined = {
            full_name(server, each.name)
            for server, listing in catalogue.items()
            for each in listing.quarantined
            if each.kind == "prompts"
        }
        self.payers = PrincipalCache[str, Payer](self.MAX_ENTRIES)
        self.models = PrincipalCache[tuple[str, str, str, str], Admission | None](self.MAX_MODELS)
        self.admissions = PrincipalCache[tuple[str, str, str, str], Admission | None](
            self.MAX_ENTRIES
        )


class Authorizer:
    """Authorizer of calls against one configuration snapshot.

    A new snapshot needs a new authorizer. If only keys changed, the new authorizer reuses the
    cache: an entry is valid while the key's principal is the same object.
    """

    def __init__(
        self,
        snapshot: ConfigSnapshot,
        catalogue: dict[str, Listing],
        rule_evaluator: RuleEvaluator | None = None,
        cache: AuthorizationCache | None = None,
    ) -> None:
        self.version = snapshot.version
        self.snapshot = snapshot
        self.rule_evaluator = rule_evaluator
        self.cache = cache or AuthorizationCache(snapshot, catalogue)

    def authorize(
        self,
        key_digest: str,
        server: str,
        method: str,
        tool: str,
        now: float,
        restrictions: tuple[Patterns, ...] = (),
    ) -> Admission:
        """Return the admission of a call. Only tools and models have a price.

        The admission of a model request has `terms`, which `sized` applies to the request.
        `restrictions` are patterns in the request; the name must match each of them.

        Raises:
            UnauthorizedError: the key is unknown, revoked or expired.
            UnknownToolError: the tool does not exist, or is not granted (the same error).
            InsufficientScopeError: the tool is granted, but this access token has a smaller scope.
            UpstreamDeadError: the name is granted, but its server was never connected.

        """
        return self.authorize_principal(
            self._live(key_digest, now), server, method, tool, restrictions
        )

    def authorize_principal(
        self,
        principal: Principal,
        server: str,
        method: str,
        tool: str,
        restrictions: tuple[Patterns, ...] = (),
    ) -> Admission:
        """Return the admission of a call by the principal of a valid key.

        Raises like `authorize`, except `UnauthorizedError`.
        """
        if method == _READ:
            tool = authorized_name(tool)
        plan = (principal.key, server, method, tool)
        try:
            admission = self.cache.admissions.get(plan, principal)
        except KeyError:
            admission = self._admit_new(plan, principal)
        # The restrictions of a model request apply to the requested alias: see `sized`.
        restricted = restrictions and server != BUILT_IN and method not in MODEL_METHODS
        if restricted and not _within(restrictions, full_name(server, tool)):
            raise _unknown_error(server, method, tool)
        if admission is None:
            raise self._denial(principal, server, method, tool)
        return admission

    def _admit_new(self, plan: tuple[str, str, str, str], principal: Principal) -> Admission | None:
        """Return an admission that is not cached for tools, and cache it.

        Models have a separate cache: callers choose the names, and must not evict tools.
        """
        _, server, method, tool = plan
        cache = self.cache.models if is_model_method(method) else self.cache.admissions
        try:
            return self.cache.models.get(plan, principal)
        except KeyError:
            admission = self._admit(self._payer(principal), server, method, tool)
            return cache.put(plan, principal, admission and self._guarded(admission, plan))

    def _guarded(self, admission: Admission, plan: tuple[str, str, str, str]) -> Admission:
        """Return the admission with the guards and the information flow that apply to it."""
        _, server, method, tool = plan
        declared, principal = self.snapshot.configuration, admission.payer.principal
        guards = effective_guards(declared, principal, server, method, tool)
        rules = self.rule_evaluator
        flow = terms_of_flow(
            principal,
            server,
            method,
            tool,
            self.cache.catalogue.get(server),
            for_rules=rules is not None and rules.reads_flow,
        )
        if guards is None and flow is None:
            return admission
        return replace(admission, guards=guards, flow=flow)

    def labels_of(self, name: str) -> Labels:
        """Return the labels of information flow of a tool, by its full name."""
        server, tool = split_name(name)
        return self.labels_of_call(server, TOOLS_CALL, tool)

    def labels_of_call(self, server: str, method: str, tool: str) -> Labels:
        """Return the labels of information flow of a call."""
        declared = self.snapshot.configuration.servers.get(server)
        return labels_of_call(declared, method, tool, self.cache.catalogue.get(server))

    def payer_for(self, key_digest: str, now: float) -> Payer:
        """Return the payer of a valid key. Raises `UnauthorizedError`."""
        return self._payer(self._live(key_digest, now))

    def payer_of_key(self, key: str, now: float) -> Payer:
        """Return the payer of a key by its name. Raises `UnauthorizedError`."""
        principal = self.snapshot.principal_of(key, now)
        if principal is None:
            raise UnauthorizedError(
                "The API key that made this call was revoked, deleted or has expired. Repeat the "
                "call with a valid key."
            )
        return self._payer(principal)

    def _live(self, key_digest: str, now: float) -> Principal:
        found = self.snapshot.principal_for(key_digest, now)
        if found is None:
            raise UnauthorizedError("Invalid, revoked or expired API key.")
        return found

    def _denial(self, principal: Principal, server: str, method: str, tool: str) -> ToolbusError:
        """Return the error for a denied name.

        The error reveals that the tool exists only if the caller may use it with another token. A
        granted name of a server that was never connected has an error of its own, because the tool
        may be listed as soon as the server is connected.
        """
        if self._is_not_listed_yet(principal, server, method, tool):
            return UpstreamDeadError(
                f"Server '{server}' has not listed its {_LISTED[method]} yet, because it is not "
                "connected. Try again in a few seconds; if it stays so, 'toolbus status' shows why."
            )
        whole = principal.whole
        if whole is None or self._admit(payer_of(whole), server, method, tool) is None:
            return _unknown_error(server, method, tool)
        name = full_name(server, tool)
        scope = needed(self.snapshot.configuration, principal.token_scope, name)
        return InsufficientScopeError(
            f"The access token's scope does not include '{name}'; sign in again with scope "
            f"'{scope}'.",
            scope=scope,
        )

    def _is_not_listed_yet(self, principal: Principal, server: str, method: str, tool: str) -> bool:
        listing = self.cache.catalogue.get(server)
        return (
            method in _LISTED
            and (listing is None or listing.state in _NEVER_LISTED)
            and server in self.snapshot.configuration.servers
            and not (method == TOOLS_CALL and _hidden(self.snapshot, server, tool))
            and principal.bounds.cover(full_name(server, tool))
        )

    def _admit(self, payer: Payer, server: str, method: str, tool: str) -> Admission | None:
        declared, name = self.snapshot.configuration, full_name(server, tool)
        if method not in METHODS or not self.snapshot.serves(server):
            return self._admit_model(payer, server, method, tool)
        known = self.cache.known.get(method)
        if known is not None and name not in known:  # quarantined definitions are not listed
            return None
        # Arguments of a quarantined prompt are not completed either.
        if method == _COMPLETION and name in self.cache.quarantined:
            return None
        bounds = payer.principal.bounds
        if not (bounds.cover(name) if server != BUILT_IN else _may_use_builtin(payer, name)):
            return None
        cause = payer.principal.covering(name) if method in _APPROVABLE else ""
        details = (
            cause,
            known[name] if known is not None else "",
            *payer.principal.recording(server),
            payer.principal.strict,
        )
        if method != TOOLS_CALL:
            return Admission(payer, FREE, (), (), *details)
        cost = cost_of(name, declared.prices)
        counting = tuple(each for each in payer.budgets if each.counts(name, cost.reserved))
        return Admission(payer, cost, counting, payer.loops, *details)

    def _admit_model(
        self, payer: Payer, provider: str, method: str, model: str
    ) -> Admission | None:
        if method == AGENT_RUN:
            return self._admit_run(payer, provider, model)
        declared = self.snapshot.configuration
        if not is_model_method(method) or provider not in declared.providers:
            return None
        content, result_content = payer.principal.recording(provider)
        return Admission(
            payer,
            content=content,
            result_content=result_content,
            terms=terms_of(declared, payer, provider, model),
        )

    def _admit_run(self, payer: Payer, server: str, target: str) -> Admission | None:
        """Return the admission of a run of agent mode, which costs nothing but counts as a request.

        Every model request and tool call of the run is a call of its own, with its own admission.
        """
        if (server, target) != (BUILT_IN, AGENT) or payer.principal.own.agent is None:
            return None
        content, result_content = payer.principal.recording(server)
        free = replace(payer, token_rates=())
        return Admission(free, content=content, result_content=result_content)

    def _payer(self, principal: Principal) -> Payer:
        try:
            return self.cache.payers.get(principal.key, principal)
        except KeyError:
            return self.cache.payers.put(principal.key, principal, payer_of(principal))


def _may_use_builtin(payer: Payer, name: str) -> bool:
    """Return whether the payer may use a built-in tool, which needs no grant but can be denied."""
    principal = payer.principal
    return principal.code_mode is not False and not principal.bounds.deny(name)


def _unknown_error(server: str, method: str, tool: str) -> ToolbusError:
    if is_model_method(method):  # the caller may have requested an alias
        return UnknownModelError("Unknown model. GET /v1/models lists the models.")
    named = tool if method.startswith("resources/") else full_name(server, tool)
    return UnknownToolError.named(named, method)


def _within(restrictions: tuple[Patterns, ...], name: str) -> bool:
    return all(granted(patterns, name) for patterns in restrictions)


def _hidden(snapshot: ConfigSnapshot, server: str, tool: str) -> bool:
    declared = snapshot.configuration.servers.get(server)
    view = declared.tools.get(tool) if declared is not None else None
    return view is not None and view.hidden


def payer_of(principal: Principal) -> Payer:
    """Return the payer of a principal, with the limits of every level of its hierarchy."""
    levels = principal.levels
    rates = rates_of(levels)
    return Payer(
        principal=principal,
        team=principal.own.team,
        user=principal.own.user,
        environment=principal.environment,
        budgets=budgets_of(levels),
        rates=tuple(each for each in rates if not each.in_tokens),
        loops=loops_of(levels),
        id=session_owner.principal_id_of(principal),
        token_rates=tuple(each for each in rates if each.in_tokens),
    )
