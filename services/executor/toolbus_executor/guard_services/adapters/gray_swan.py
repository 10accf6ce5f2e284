"""Guards of kind `gray_swan`: the monitor API of Gray Swan Cygnal."""

from collections.abc import Sequence
from typing import Any

from toolbus_common.config.guards.services import GraySwanOptions
from toolbus_executor.guard_services.adapters.base import (
    MAX_FINDINGS,
    NOTHING,
    CheckedContent,
    Limits,
    ServiceFindings,
    invalid,
    objects,
    rule_name,
    score_of,
)
from toolbus_executor.guard_services.adapters.client import ServiceClient

LONGEST = 50_000  # characters
KEY_HEADER = "grayswan-api-key"
_ROLES = {"prompts": "user", "arguments": "assistant", "completions": "assistant"}


class GraySwanService:
    """The monitor of Cygnal: a score of violation, the violated rules, indirect injections."""

    depends_on_call = False
    limits = Limits(LONGEST, LONGEST)

    def __init__(self, client: ServiceClient, options: GraySwanOptions) -> None:
        self._client = client
        self._path = f"{client.path}/cygnal/monitor"
        self._threshold = options.threshold
        own = {
            "policy_id": options.policy,
            "policy_ids": [*options.policies],
            "rules": options.rules,
        }
        self._settings: dict[str, Any] = {name: value for name, value in own.items() if value}
        self._settings["reasoning_mode"] = options.reasoning

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Monitor one text, as a message of the role that writes it."""
        message = {"role": _ROLES.get(checked.phase, "tool"), "content": texts[0]}
        response = await self._client.post(
            self._path, {"messages": [message], **self._settings}, seconds
        )
        violation = response.get("violation")
        if response.get("error") is True:
            raise invalid("the monitor reports an internal error")
        if isinstance(violation, bool) or not isinstance(violation, int | float):
            raise invalid("it has no 'violation'")
        score, rules = score_of(violation), dict[str, float]()
        if score >= self._threshold:
            names = [
                rule_name(each.get("name") or each.get("rule"))
                for each in objects(response.get("violated_rule_descriptions"))
            ]
            rules = dict.fromkeys(names[:MAX_FINDINGS] or ["violation"], score)
        for flag in ("ipi", "mutation"):
            if response.get(flag) is True:
                rules[flag] = max(score, self._threshold)
        return ServiceFindings(rules) if rules else NOTHING

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
