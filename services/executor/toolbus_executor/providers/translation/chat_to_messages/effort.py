"""Conversion of the reasoning effort to the configuration of thinking."""

import re
from typing import Any

from toolbus_common.errors import InvalidError

# Models that think within a budget of tokens; later models choose it themselves (`adaptive`).
# Source: the model lists of any-llm-sdk 1.40.
_BUDGET_MODELS = re.compile(
    r"claude-(3|(opus|sonnet|haiku)-4-([015]\b|2025)|(opus|sonnet)-4\b(?!-))"
)
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576}
_BUDGETS |= {"xhigh": 32768, "max": 32768}
_SMALLEST = 1024  # the smallest budget, and the minimum left for the answer, in tokens


def thinking(
    effort: str | None, model: str, limit: int, turns: list[dict[str, Any]], *, forced: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the field `thinking`, and the effort for the field `output_config`.

    `limit` is the limit of output tokens, which includes the budget. `forced` means that the tool
    choice forces a tool call. The effort is a hint, so thinking is left out where the provider
    refuses it: if a tool call is forced, if no budget fits into the limit, or if the turn began
    without a thinking block.
    """
    if effort is None:
        return {}, {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}, {}
    if effort not in _BUDGETS:
        raise InvalidError(
            f"The reasoning effort '{effort[:64]}' is unknown. Use none or one of "
            f"{', '.join(_BUDGETS)}."
        )
    if forced:
        return {}, {}
    if not _BUDGET_MODELS.search(model.lower()):
        level = "low" if effort == "minimal" else effort
        return {"thinking": {"type": "adaptive"}}, {"effort": level}
    budget = min(_BUDGETS[effort], limit - _SMALLEST)
    if budget < _SMALLEST or _continues_without_thinking(turns):
        return {}, {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}, {}


def _continues_without_thinking(turns: list[dict[str, Any]]) -> bool:
    """Return whether the last turn of the model called tools and began without thinking."""
    for turn in reversed(turns):
        blocks = turn["content"] if isinstance(turn["content"], list) else []
        if turn["role"] == "assistant":
            types = [block["type"] for block in blocks]
            return "tool_use" in types and types[0] not in ("thinking", "redacted_thinking")
        if not any(block["type"] == "tool_result" for block in blocks):
            return False
    return False
