"""Guards of kind `lakera`: the API of Lakera Guard, version 2."""

from collections.abc import Sequence
from typing import Any

from toolbus_common.config.guards.services import LakeraOptions
from toolbus_executor.guard_services.adapters.base import (
    NOTHING,
    CheckedContent,
    Limits,
    ServiceFindings,
    Span,
    invalid,
    member,
    objects,
    occurrences,
    rule_name,
)
from toolbus_executor.guard_services.adapters.client import ServiceClient

LONGEST = 50_000  # characters


class LakeraService:
    """Lakera Guard. It returns the places of personal data and of profanity."""

    depends_on_call = False
    limits = Limits(LONGEST, LONGEST)

    def __init__(self, client: ServiceClient, options: LakeraOptions) -> None:
        self._client = client
        self._project = options.project
        self._path = f"{client.path}/v2/guard"

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Screen one text, as a message of the user or of the model."""
        role = "assistant" if checked.phase == "completions" else "user"
        body: dict[str, Any] = {
            "messages": [{"role": role, "content": texts[0]}],
            "payload": True,
            "breakdown": True,
            "dev_info": True,
        }
        if self._project:
            body["project_id"] = self._project
        response = await self._client.post(self._path, body, seconds)
        flagged = response.get("flagged")
        if not isinstance(flagged, bool):
            raise invalid("it has no 'flagged'")
        if not flagged:
            return NOTHING
        rules = {
            rule_name(each.get("detector_type")): 1.0
            for each in objects(response.get("breakdown"))
            if each.get("detected") is True
        }
        spans = _spans_of(objects(response.get("payload")), texts[0])
        if not rules:
            rules = {each.rule: 1.0 for each in spans} or {"flagged": 1.0}
        located = frozenset(each.rule for each in spans)
        version = str(member(response, "dev_info", "version") or "")
        return ServiceFindings(rules, tuple(spans), located=located, version=version[:64])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _spans_of(payload: list[dict[str, Any]], text: str) -> list[Span]:
    """Return the places of the matches. Search for a match whose reported place is wrong."""
    spans: list[Span] = []
    for each in payload:
        rule, match = rule_name(each.get("detector_type")), each.get("text")
        start, end = each.get("start"), each.get("end")
        if not isinstance(start, int) or not isinstance(end, int):
            raise invalid("a match has no position")
        if isinstance(match, str) and text[start:end] != match:
            spans += occurrences(rule, [text], match)
        else:
            spans.append(Span(rule, 0, start, end))
    return spans
