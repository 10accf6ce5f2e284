"""Verdicts in the forms of the common guardrail APIs, of HTTP services and of MCP tools (no I/O).

`flagged`, `allowed`, `verdict` or `action` decides. Without any of them, the response is invalid.
If they contradict each other, the content counts as flagged.
"""

from typing import Any

from msgspec import UNSET

from toolbus_executor.guard_services.adapters.base import (
    MAX_FINDINGS,
    NOTHING,
    ServiceFindings,
    Span,
    invalid,
    member,
    objects,
    rule_name,
    score_of,
)

_PASSING = frozenset({"allow", "allowed", "pass", "passed", "none", "ok", "accept", "continue"})
_FLAGGING = frozenset(
    {
        "block", "blocked", "deny", "denied", "reject", "rejected", "flag", "flagged", "redact",
        "redacted", "mask", "masked", "modify", "guardrail_intervened",
    }
)  # fmt: skip
_NAMES = ("rule", "name", "type", "category", "detector_type", "id")


def findings_of(response: dict[str, Any], number: int) -> ServiceFindings:
    """Return the verdict of a response about `number` texts. Raises `UpstreamInvalidError`."""
    if isinstance(response.get("results"), list):
        return _of_moderation(objects(response["results"]), number)
    rules, spans = _rules_of(response)
    if not _is_flagged(response):
        return NOTHING
    score = score_of(response.get("score"))
    named = {name: own if own is not None else score for name, own in rules.items()}
    replaced, content = _replaced(response, number), response.get("content", UNSET)
    is_located = replaced is not None or content not in (UNSET, None)
    names = named or {_reason(response): score}
    return ServiceFindings(
        dict(list(names.items())[:MAX_FINDINGS]),
        tuple(spans),
        replaced,
        frozenset(names) if is_located else frozenset(each.rule for each in spans),
        UNSET if content is None else content,
        str(response.get("version", ""))[:64],
    )


def _is_flagged(response: dict[str, Any]) -> bool:
    votes: list[bool] = []
    for name, flags in (("flagged", True), ("blocked", True), ("allowed", False),
                        ("verdict", False), ("passed", False)):  # fmt: skip
        value = response.get(name)
        if isinstance(value, bool):
            votes.append(value is flags)
        elif value is not None and name != "verdict":
            raise invalid(f"'{name}' is not true or false")
    for name in ("action", "verdict"):
        if isinstance(value := response.get(name), str):
            if value.lower() not in _PASSING | _FLAGGING:
                raise invalid(f"its '{name}' is unknown")
            votes.append(value.lower() in _FLAGGING)
    if not votes:
        raise invalid("it has no 'flagged', 'allowed' or 'action'")
    return any(votes)


def _rules_of(response: dict[str, Any]) -> tuple[dict[str, float | None], list[Span]]:
    """Return the names of the findings with their scores, and their places in the sent texts."""
    rules: dict[str, float | None] = {}
    spans: list[Span] = []
    found = response.get("findings")
    if found is None:
        return rules, spans
    if not isinstance(found, list):
        raise invalid("'findings' is not a list")
    for each in found:
        if isinstance(each, str):
            rules.setdefault(rule_name(each), None)
            continue
        if not isinstance(each, dict):
            raise invalid("a finding is neither a text nor an object")
        name = rule_name(next((each[key] for key in _NAMES if each.get(key)), ""))
        score = each.get("score")
        rules[name] = None if score is None else max(score_of(score), rules.get(name) or 0.0)
        text, start, end = each.get("text", 0), each.get("start"), each.get("end")
        if isinstance(text, int) and isinstance(start, int) and isinstance(end, int):
            spans.append(Span(name, text, start, end))
    return rules, spans


def _reason(response: dict[str, Any]) -> str:
    """Return a name for an unnamed finding: its first category, or `flagged`.

    The reasons that a service sends are not used, because they can contain content.
    """
    categories = response.get("categories")
    if isinstance(categories, dict):
        for name, value in categories.items():
            if value is True:
                return rule_name(name)
    return "flagged"


def _replaced(response: dict[str, Any], number: int) -> tuple[str, ...] | None:
    texts = response.get("texts")
    if texts is None:
        return None
    if (
        not isinstance(texts, list)
        or len(texts) != number
        or not all(isinstance(each, str) for each in texts)
    ):
        raise invalid(f"'texts' must have {number} texts, one for each text of the request")
    return tuple(texts)


def _of_moderation(results: list[dict[str, Any]], number: int) -> ServiceFindings:
    """Return the verdict of a moderation API, with one result per text."""
    if len(results) != number:
        raise invalid(f"'results' must have {number} entries, one for each text of the request")
    rules: dict[str, float] = {}
    for result in results:
        if not isinstance(result.get("flagged"), bool):
            raise invalid("a result has no 'flagged'")
        if not result["flagged"]:
            continue
        categories = member(result, "categories")
        named = [
            name for name, on in (categories if isinstance(categories, dict) else {}).items() if on
        ]
        for name in named or ["flagged"]:
            rule = rule_name(name)
            score = score_of(member(result, "category_scores", name))
            rules[rule] = max(score, rules.get(rule, 0.0))
    return ServiceFindings(dict(list(rules.items())[:MAX_FINDINGS]))
