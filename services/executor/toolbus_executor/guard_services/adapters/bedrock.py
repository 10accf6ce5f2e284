"""Guards of kind `bedrock`: the ApplyGuardrail API of Amazon Bedrock."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from toolbus_common.config.guards.services import BedrockOptions
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
    occurrences,
    rule_name,
)
from toolbus_executor.guard_services.adapters.client import ServiceClient

LONGEST = 20_000  # characters; the default quota of a request is 25 units of 1000 characters
INTERVENED = "GUARDRAIL_INTERVENED"
_CONFIDENCE = {"NONE": 0.0, "LOW": 0.33, "MEDIUM": 0.66, "HIGH": 1.0}
_ACTIONS = frozenset({"BLOCKED", "ANONYMIZED"})


class BedrockService:
    """A guardrail of Amazon Bedrock, in one version."""

    depends_on_call = False
    limits = Limits(LONGEST, LONGEST)

    def __init__(self, client: ServiceClient, options: BedrockOptions) -> None:
        self._client = client
        name, version = quote(options.guardrail, safe=""), quote(options.version, safe="")
        self._path = f"{client.path}/guardrail/{name}/version/{version}/apply"
        self._version = options.version

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Apply the guardrail to these texts."""
        source = "OUTPUT" if checked.phase in FROM_MODEL else "INPUT"
        body = {"source": source, "content": [{"text": {"text": text}} for text in texts]}
        response = await self._client.post(self._path, body, seconds)
        if response.get("action") == "NONE":
            return NOTHING
        if response.get("action") != INTERVENED:
            raise invalid("its 'action' is unknown")
        rules: dict[str, float] = {}
        spans: list[Span] = []
        located: set[str] = set()
        for rule, score, match in _found(objects(response.get("assessments"))):
            rules[rule] = max(score, rules.get(rule, 0.0))
            places = occurrences(rule, texts, match)
            spans += places
            (located.add if places else located.discard)(rule)
        if not rules:
            rules = {"intervened": 1.0}
        return ServiceFindings(
            rules, tuple(spans), located=frozenset(located), version=self._version
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _found(assessments: list[dict[str, Any]]) -> Iterator[tuple[str, float, str]]:
    """Yield the name, the score and the matched text (possibly empty) of each finding."""
    for each in assessments:
        for topic in _acted(each, "topicPolicy", "topics"):
            yield rule_name("topic", topic.get("name")), 1.0, ""
        for found in _acted(each, "contentPolicy", "filters"):
            score = _CONFIDENCE.get(str(found.get("confidence")), 1.0)
            yield rule_name("content", found.get("type")), score, ""
        for word in _acted(each, "wordPolicy", "customWords"):
            yield "word:custom", 1.0, str(word.get("match", ""))
        for word in _acted(each, "wordPolicy", "managedWordLists"):
            yield rule_name("word", word.get("type")), 1.0, str(word.get("match", ""))
        for entity in _acted(each, "sensitiveInformationPolicy", "piiEntities"):
            yield rule_name("pii", entity.get("type")), 1.0, str(entity.get("match", ""))
        for regex in _acted(each, "sensitiveInformationPolicy", "regexes"):
            yield rule_name("regex", regex.get("name")), 1.0, str(regex.get("match", ""))
        for found in _acted(each, "contextualGroundingPolicy", "filters"):
            yield rule_name("grounding", found.get("type")), 1.0, ""


def _acted(assessment: dict[str, Any], policy: str, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of a policy that the guardrail acted on."""
    for entry in objects(member(assessment, policy, kind)):
        if entry.get("action") in _ACTIONS:
            yield entry
