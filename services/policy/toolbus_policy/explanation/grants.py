"""Steps of an explanation that follow from the configuration: key, levels, grants, quarantine.

They describe the decision that the authorizer makes; they do not make it (no I/O).
"""

from collections.abc import Iterator

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration, Group, Level, Patterns
from toolbus_common.config.access.expiry import expired, shown_expiry
from toolbus_common.contracts import CallRequested, Listing
from toolbus_common.contracts.model_calls import decode_model_call, model_name
from toolbus_common.contracts.queries.administration import ExplainedStep, StepResult
from toolbus_common.mcp.builtin_server import BUILT_IN


def key_steps(principal: Principal, now: float) -> Iterator[ExplainedStep]:
    """Yield the state of the key, and the expiry of each level above it."""
    names = [level for level, _ in principal.levels]
    if principal.own.revoked:
        yield _step("key", "denied", "The key is revoked.", names[0])
    for level, terms in principal.levels:
        if expired(terms.expires, now):
            yield _step("key", "denied", f"Expired: {shown_expiry(terms.expires)}.", level)
        elif terms.expires is not None:
            yield _step("key", "passed", f"Valid until {shown_expiry(terms.expires)}.", level)
    chain = " → ".join(names)
    text = f"The levels are {chain}; the customer '{principal.customer}' pays."
    yield _step("key", "passed", text, names[0])
    yield from _missing(principal)


def _missing(principal: Principal) -> Iterator[ExplainedStep]:
    """Yield the levels that the key names and that do not exist: it then has no access."""
    found = {level for level, _ in principal.levels}
    for kind, name in (("user", principal.own.user), ("team", principal.own.team)):
        if name and f"{kind}:{name}" not in found:
            text = f"The {kind} does not exist, so the key has no access."
            yield _step("grant", "denied", text, f"{kind}:{name}")
    payers = {level for level in found if level.startswith("customer:")}
    if len(payers) > 1:
        text = f"The key has no access, because {' and '.join(sorted(payers))} would both pay."
        yield _step("grant", "denied", text)


def tool_steps(
    principal: Principal, call: CallRequested, listing: Listing | None, declared: Configuration
) -> Iterator[ExplainedStep]:
    """Yield whether the tool is listed, and whether each level grants it."""
    name, server = full_name(call.server, call.tool), call.server
    yield from _listed(call, listing, declared)
    if server == BUILT_IN:
        yield from _built_in(principal, name, declared)
        return
    if server in declared.servers:
        expose = declared.servers[server].expose
        if not granted(tuple(expose), call.tool):
            yield _step("grant", "denied", "The server does not expose it.", f"server:{server}")
    for level, terms in principal.levels:
        yield from _granted(level, terms, name, declared, "tools")
        yield from _denied(level, terms, name, declared)


def model_steps(
    principal: Principal, call: CallRequested, declared: Configuration
) -> Iterator[ExplainedStep]:
    """Yield whether each level grants the model, and permits its provider."""
    alias = decode_model_call(call.extra).alias if call.extra else ""
    name = alias or model_name(call.server, call.tool)
    provider = declared.providers.get(call.server)
    if provider is None:
        text = f"There is no provider '{call.server}'."
        yield _step("name", "denied", text)
    else:
        text = f"Sent to the model '{call.tool}' of the provider '{call.server}'."
        yield _step("name", "passed", text)
    for level, terms in principal.levels:
        yield from _granted(level, terms, name, declared, "models")
        if provider is None:
            continue
        if terms.model_regions is not None and provider.region not in terms.model_regions:
            regions = ", ".join(terms.model_regions)
            text = f"The provider's region '{provider.region}' is not one of: {regions}."
            yield _step("grant", "denied", text, level)
        missing = set(terms.model_labels) - set(provider.labels)
        if missing:
            text = f"The provider lacks the labels {', '.join(sorted(missing))}."
            yield _step("grant", "denied", text, level)


def _listed(
    call: CallRequested, listing: Listing | None, declared: Configuration
) -> Iterator[ExplainedStep]:
    if call.server not in declared.servers and call.server != BUILT_IN:
        yield _step("name", "denied", f"There is no server '{call.server}'.")
        return
    view = declared.servers[call.server].tools.get(call.tool) if call.server != BUILT_IN else None
    if view is not None and view.hidden:
        text = "The tool is hidden in the configuration of its server."
        yield _step("name", "denied", text, f"server:{call.server}")
    if listing is None:
        yield _step("name", "denied", f"The tools of '{call.server}' are not known yet.")
        return
    for each in listing.quarantined:
        if each.kind == "tools" and each.name == call.tool:
            text = f"The definition is quarantined: {each.why or 'it changed'}."
            details = {"digest": each.digest, "approved": each.approved}
            yield _step("quarantine", "denied", text, f"server:{call.server}", **details)
            return
    if call.tool in listing.dropped:
        yield _step("name", "denied", f"It is not listed: {listing.dropped[call.tool]}.")
    elif all(each.name != call.tool for each in listing.tools):
        yield _step("name", "denied", f"'{call.server}' has no tool '{call.tool}'.")
    else:
        yield _step("name", "passed", f"The tool '{call.tool}' of the server '{call.server}'.")


def _built_in(principal: Principal, name: str, declared: Configuration) -> Iterator[ExplainedStep]:
    result: StepResult = "denied" if principal.code_mode is False else "passed"
    text = "Code mode is off." if result == "denied" else "A built-in tool needs no grant."
    yield _step("grant", result, text)
    for level, terms in principal.levels:
        yield from _denied(level, terms, name, declared)


def _granted(
    level: str, terms: Level, name: str, declared: Configuration, kind: str
) -> Iterator[ExplainedStep]:
    """Yield the step of one level: whether it grants the name, by which pattern and group."""
    sources = list(_sources(terms, declared, kind))
    is_key = level.startswith("key:")
    if not sources and not is_key:
        yield _step("grant", "skipped", f"Sets no {kind}, so it does not restrict them.", level)
        return
    for group, patterns in sources:
        found = next((each for each in patterns if granted((each,), name)), None)
        if found is not None:
            by = f" of the group '{group}'" if group else ""
            yield _step("grant", "passed", f"'{found}'{by} grants it.", level, pattern=found)
            return
    listed = ", ".join(each for _, patterns in sources for each in patterns)[:300]
    text = f"None of its {kind} matches '{name}': {listed or 'there are none'}."
    yield _step("grant", "denied", text, level)


def _denied(
    level: str, terms: Level, name: str, declared: Configuration
) -> Iterator[ExplainedStep]:
    """Yield the pattern of a level, or of one of its groups, that denies the name."""
    groups = [(group, declared.groups.get(group)) for group in terms.groups]
    sources: list[tuple[str, Patterns]] = [("", terms.deny)]
    sources += [(name_, group.deny) for name_, group in groups if group is not None]
    for group, patterns in sources:
        found = next((each for each in patterns if granted((each,), name)), None)
        if found is not None:
            by = f" of the group '{group}'" if group else ""
            yield _step("grant", "denied", f"'{found}' in 'deny'{by} denies it.", level)


def _sources(terms: Level, declared: Configuration, kind: str) -> Iterator[tuple[str, Patterns]]:
    unknown = Group(tools=(), models=())
    own: list[tuple[str, Level | Group]] = [("", terms)]
    own += [(name, declared.groups.get(name, unknown)) for name in terms.groups]
    for name, each in own:
        patterns: Patterns | None = getattr(each, kind)
        if patterns is not None:
            yield name, patterns


def _step(
    step: str, result: StepResult, text: str, level: str = "", **details: object
) -> ExplainedStep:
    return ExplainedStep(step=step, result=result, text=text, level=level, details=details)
