"""Guards of kind `model_armor`: the sanitize API of Google Cloud Model Armor."""

from collections.abc import Iterator, Sequence
from typing import Any

from toolbus_common.config.guards.services import ModelArmorOptions
from toolbus_executor.guard_services.adapters.base import (
    FROM_MODEL,
    NOTHING,
    CheckedContent,
    Limits,
    ServiceFindings,
    Span,
    invalid,
    member,
    objects,
    rule_name,
)
from toolbus_executor.guard_services.adapters.client import ServiceClient

LONGEST = 8000  # characters; filters skip a text with more than 2000 tokens
MATCH, NO_MATCH = "MATCH_FOUND", "NO_MATCH_FOUND"
_CONFIDENCE = {"LOW_AND_ABOVE": 0.33, "MEDIUM_AND_ABOVE": 0.66, "HIGH": 1.0}


class ModelArmorService:
    """A template of Model Armor.

    If the guard redacts, each text is sent alone, because the service returns whole texts.
    """

    depends_on_call = False

    def __init__(self, client: ServiceClient, options: ModelArmorOptions, *, redacts: bool) -> None:
        self._client = client
        place = f"projects/{options.project}/locations/{options.location}"
        self._path = f"{client.path}/v1/{place}/templates/{options.template}"
        self.limits = Limits(LONGEST, LONGEST, joined=not redacts)

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Sanitize one text, as a prompt or as the response of a model."""
        verb, field = "sanitizeUserPrompt", "userPromptData"
        if checked.phase in FROM_MODEL:
            verb, field = "sanitizeModelResponse", "modelResponseData"
        response = await self._client.post(
            f"{self._path}:{verb}", {field: {"text": texts[0]}}, seconds
        )
        result = response.get("sanitizationResult")
        state = member(result, "filterMatchState")
        if state not in (MATCH, NO_MATCH):
            raise invalid("it has no 'filterMatchState'")
        if state == NO_MATCH:
            if member(result, "invocationResult") != "SUCCESS":
                raise invalid("some filters of the template were not executed")
            return NOTHING
        results = member(result, "filterResults")
        filters = [each for each in (results or {}).values() if isinstance(each, dict)]
        rules = {rule: score for each in filters for rule, score in _rules_of(each)}
        spans = [span for each in filters for span in _spans_of(each)]
        replaced = next(filter(None, map(_replaced, filters)), None)
        located = {each.rule for each in spans}
        if replaced is not None:
            located |= {rule for rule in rules if rule.startswith("sdp")}
        return ServiceFindings(
            rules or {"match": 1.0},
            tuple(spans),
            None if replaced is None else (replaced,),
            frozenset(located),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _rules_of(found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the names and scores of the matches of one filter."""
    types = member(found, "raiFilterResult", "raiFilterTypeResults")
    for name, each in (types if isinstance(types, dict) else {}).items():
        if member(each, "matchState") == MATCH:
            yield rule_name("rai", name), _score(each)
    for kind, rule in (
        ("piAndJailbreakFilterResult", "pi_and_jailbreak"),
        ("maliciousUriFilterResult", "malicious_uri"),
        ("csamFilterFilterResult", "csam"),
        ("virusScanFilterResult", "virus"),
    ):
        if member(found, kind, "matchState") == MATCH:
            yield rule, _score(found[kind])
    inspected = member(found, "sdpFilterResult", "inspectResult")
    if member(inspected, "matchState") == MATCH:
        named = [rule_name("sdp", each.get("infoType")) for each in _findings(inspected)]
        yield from ((name, 1.0) for name in named or ["sdp"])
    changed = member(found, "sdpFilterResult", "deidentifyResult")
    if member(changed, "matchState") == MATCH:
        kinds = member(changed, "infoTypes")
        names = kinds if isinstance(kinds, list) else []
        yield from ((rule_name("sdp", name), 1.0) for name in names or [""])


def _score(found: dict[str, Any]) -> float:
    return _CONFIDENCE.get(str(found.get("confidenceLevel")), 1.0)


def _findings(inspected: Any) -> list[dict[str, Any]]:
    return objects(member(inspected, "findings"))


def _spans_of(found: dict[str, Any]) -> Iterator[Span]:
    """Yield the places of a filter's matches, in characters."""
    inspected = member(found, "sdpFilterResult", "inspectResult")
    for each in _findings(inspected) if member(inspected, "matchState") == MATCH else ():
        place = member(each, "location", "codepointRange")
        yield Span(rule_name("sdp", each.get("infoType")), 0, *_range(place))
    items = member(found, "maliciousUriFilterResult", "maliciousUriMatchedItems")
    for item in objects(items):
        for place in objects(item.get("locations")):
            yield Span("malicious_uri", 0, *_range(place))


def _range(place: Any) -> tuple[int, int]:
    """Return the ends of a range. Google's JSON form of a 64-bit number is a text."""
    try:
        return int(member(place, "start") or 0), int(member(place, "end"))
    except (TypeError, ValueError) as error:
        raise invalid("a match has no position") from error


def _replaced(found: dict[str, Any]) -> str | None:
    changed = member(found, "sdpFilterResult", "deidentifyResult")
    text = member(changed, "data", "text")
    return text if member(changed, "matchState") == MATCH and isinstance(text, str) else None
