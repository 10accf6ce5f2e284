"""The part of an explanation that the caller of a key may see (no I/O)."""

from toolbus_common.contracts.queries.administration import ExplainedStep, Explanation

# The errors that do not say whether a name exists.
_HIDING = frozenset({"unknown_tool", "unknown_model"})
_OWN = ("key:", "user:")


def own_view(found: Explanation) -> Explanation:
    """Return the part of an explanation that the caller could also learn from a real call.

    A name that is not granted appears as unknown, and the spending of other keys is hidden. The
    step that decides remains, because the error of a real call also names the level of an exceeded
    limit.
    """
    if found.code in _HIDING:
        step = ExplainedStep(step="name", result="denied", text=found.reason, decides=True)
        keys = [each for each in found.steps if each.step == "key" and _is_own(each)]
        return found.model_copy(update={"server": "", "target": "", "steps": (*keys, step)})
    steps = tuple(_shown(each) for each in found.steps if _is_visible(each))
    return found.model_copy(update={"steps": steps})


def _is_visible(step: ExplainedStep) -> bool:
    return step.decides or _is_own(step) or step.step in ("name", "price", "server")


def _is_own(step: ExplainedStep) -> bool:
    return step.level.startswith(_OWN)


def _shown(step: ExplainedStep) -> ExplainedStep:
    return step if _is_own(step) else step.model_copy(update={"details": {}})
