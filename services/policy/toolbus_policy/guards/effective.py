"""The guards and plugins that apply to a call (no I/O). Those of all levels and targets add up."""

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration
from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.config.plugins import Point
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.model_calls import is_model_method
from toolbus_common.guards.attachment import each_attachment
from toolbus_common.plugins.subjects import checker_of
from toolbus_policy.guards.plugin_scope import plugins_of
from toolbus_policy.ledger.admitted_call import CallGuards

# The points at which executor asks plugins.
_LATER: tuple[Point, ...] = ("before_upstream", "after_result")
_LATER_MODEL: tuple[Point, ...] = ("after_model",)


def effective_guards(
    declared: Configuration,
    principal: Principal,
    server: str,
    method: str,
    tool: str,
) -> CallGuards | None:
    """Return the guards and plugins of a call; None if none applies to it.

    `server` can be a provider, and `tool` a model. An unknown guard applies in all phases, so that
    its check fails.
    """
    attached = each_attachment(principal, server, tool, method)
    names = [*dict.fromkeys(name for name, _ in attached)]
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
    # Executor searches what is sent for the secrets that it holds.
    later += [
        name for name in names if name not in later and _seeks(declared.guards.get(name), before)
    ]
    plugins = plugins_of(declared, principal, server, tool, method) if declared.plugins else {}

    def queried(*points: Point) -> tuple[str, ...]:
        return tuple(
            checker_of(name)
            for name, plugin in plugins.items()
            if not set(points).isdisjoint(plugin.hooks)
        )

    checking = tuple(name for name in names if _checks(declared.guards.get(name), before))
    found = CallGuards(
        phase=before,
        checking=checking + queried("before_model" if is_prompt else "before_decision"),
        later=(*later, *queried(*(_LATER_MODEL if is_prompt else _LATER))),
        has_placeholders=any(_redacts(declared.guards.get(name)) for name in later),
        decided=queried("after_decision"),
    )
    return found if found.checking or found.later or found.decided else None


def _checks(guard: Guard | None, phase: Phase) -> bool:
    """Return whether a guard checks a phase. An unknown guard checks all, and its check fails."""
    return guard is None or phase in guard.on


def _seeks(guard: Guard | None, phase: Phase) -> bool:
    """Return whether a guard looks for secrets in a phase."""
    return guard is not None and guard.kind == "secrets" and phase in guard.on


def _redacts(guard: Guard | None) -> bool:
    return guard is not None and guard.action == "redact"
