"""The guards that apply to a call (no I/O). Those of all levels and targets add up."""

from collections.abc import Iterable, Iterator, Sequence

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration
from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.model_calls import is_model_method
from toolbus_policy.ledger.admitted_call import CallGuards


def effective_guards(
    declared: Configuration,
    principal: Principal,
    server: str,
    method: str,
    tool: str,
    models: Sequence[str] = (),
) -> CallGuards | None:
    """Return the guards of a call; None if no guard applies to it.

    `server` can be a provider. `models` are the names of the requested model: `provider/model` and
    its aliases. A guard of any of these names applies, because they stand for the same model.
    """
    names = [*dict.fromkeys(_attached(declared, principal, server, tool, models))]
    names += [name for name, each in declared.guards.items() if each.always and name not in names]
    is_prompt = is_model_method(method) or method == AGENT_RUN
    before: Phase = "prompts" if is_prompt else "arguments"
    after: Phase = "completions" if is_prompt else "results"
    # A value can be restored in a call to which its guard does not apply otherwise.
    target = full_name(server, tool)
    restoring = {
        name
        for name, each in declared.guards.items()
        if each.restore and not is_prompt and granted(each.restore, target)
    }
    later = [name for name in names if _checks(declared.guards.get(name), after)]
    later += [each for each in declared.guards if each in restoring and each not in later]
    found = CallGuards(
        phase=before,
        checking=tuple(name for name in names if _checks(declared.guards.get(name), before)),
        later=tuple(later),
        has_placeholders=any(_redacts(declared.guards.get(name)) for name in later),
    )
    return found if found.checking or found.later else None


def _attached(
    declared: Configuration, principal: Principal, server: str, tool: str, models: Sequence[str]
) -> Iterator[str]:
    """Yield the names of the guards at every level and target. Some repeat."""
    for _, level in principal.levels:
        yield from level.guards
        for group in level.groups:
            found = declared.groups.get(group)
            yield from found.guards if found is not None else ()
    target = declared.servers.get(server)
    if target is not None:
        yield from target.guards
        view = target.tools.get(tool)
        yield from view.guards if view is not None else ()
    provider = declared.providers.get(server)
    if provider is not None and models:
        yield from provider.guards
    for pattern, guards in declared.model_guards.items():
        yield from guards if _matches_any(pattern, models) else ()


def _matches_any(pattern: str, models: Iterable[str]) -> bool:
    return any(granted((pattern,), name) for name in models)


def _checks(guard: Guard | None, phase: Phase) -> bool:
    """Return whether a guard checks a phase. An unknown guard does, and fails."""
    return guard is None or phase in guard.on


def _redacts(guard: Guard | None) -> bool:
    return guard is not None and guard.action == "redact"
