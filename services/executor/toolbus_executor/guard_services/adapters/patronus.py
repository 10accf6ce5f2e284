"""Guards of kind `patronus`: the evaluate API of Patronus AI."""

from collections.abc import Sequence
from typing import Any

from toolbus_common.config.guards.services import PatronusOptions
from toolbus_executor.guard_services.adapters.base import (
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

LONGEST = 100_000  # characters
KEY_HEADER = "X-API-KEY"
_ENDS = 2  # numbers of a place: its start and its end


class PatronusService:
    """Evaluators of Patronus AI. Content that fails one of them is a finding."""

    depends_on_call = False
    limits = Limits(LONGEST, LONGEST)

    def __init__(self, client: ServiceClient, options: PatronusOptions) -> None:
        self._client = client
        self._options = options
        self._path = f"{client.path}/v1/evaluate"

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Evaluate one text: a prompt as the input of a model, other content as its output."""
        evaluators = [
            {"evaluator": each.evaluator, "explain_strategy": "never"}
            | ({"criteria": each.criteria} if each.criteria else {})
            for each in self._options.evaluators
        ]
        field = "task_input" if checked.phase == "prompts" else "task_output"
        body: dict[str, Any] = {
            "evaluators": evaluators, field: texts[0], "capture": self._options.capture,
        }  # fmt: skip
        if self._options.app:
            body["app"] = self._options.app
        response = await self._client.post(self._path, body, seconds)
        results = objects(response.get("results"))
        if len(results) != len(evaluators):
            raise invalid(f"it does not have {len(evaluators)} results")
        rules: dict[str, float] = {}
        spans: list[Span] = []
        for result in results:
            passed = member(result, "evaluation_result", "pass")
            if result.get("status") != "success" or not isinstance(passed, bool):
                raise invalid(
                    f"the evaluator '{rule_name(result.get('evaluator_id'))}' has no result"
                )
            if not passed:
                rule = rule_name(result.get("evaluator_id"), result.get("criteria"))
                rules[rule] = 1.0
                spans += _spans_of(rule, result)
        return ServiceFindings(rules, tuple(spans), located=frozenset(each.rule for each in spans))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _spans_of(rule: str, result: dict[str, Any]) -> list[Span]:
    """Return the places that an evaluator reports."""
    found = member(result, "evaluation_result", "additional_info", "positions")
    return [
        Span(rule, 0, int(each[0]), int(each[1]))
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, list) and len(each) == _ENDS and all(map(_is_number, each))
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # noqa: PLR2004
