"""From a rule's text to its policies as data, or the sentence that says what is wrong with it.

The data is Cedar's own JSON form: stable, and read by the engine and by us alike.
"""

import json
import re
from typing import Any

from cedarpy import PolicySet, policies_to_json_str

Expr = Any  # one node of Cedar's JSON form
Policy = dict[str, Any]

SCOPE = ("principal", "action", "resource")
DEEPEST = 50
MOST_NESTABLE = 400
# The engine's parser descends without a limit of its own: too deep a text ends the process.
_SILENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*', re.DOTALL)
_NESTABLE = re.compile(r"&&|\|\||[-+*.!\[({]|\bif\b")
_TOO_DEEP = "is nested too deeply, or too long in one policy; make several policies of it"


class RuleError(ValueError):
    """A text that is no rule: the message is a sentence for whoever wrote it."""


def policies(text: str) -> list[Policy]:
    """The `forbid` policies of a rule, in order.

    Raises:
        RuleError: the text is not Cedar, or holds what a rule cannot.

    """
    _check_depth(text)
    try:
        told = json.loads(policies_to_json_str(text))
        found = [told["staticPolicies"][key] for key in sorted(told["staticPolicies"], key=_number)]
        # In the form in which the rulebook asks it: a level deeper than it was written.
        policy_set({at: forbidding(each, conjuncts(each)) for at, each in enumerate(found)})
    except RecursionError as error:
        raise RuleError(_TOO_DEEP) from error
    except ValueError as error:
        raise RuleError(_of(str(error))) from error
    if told["templates"]:
        raise RuleError("holds a template; name the entity instead of ?principal or ?resource")
    if not found:
        raise RuleError("holds no policy; write forbid(principal, action, resource) when {…};")
    if any(policy["effect"] != "forbid" for policy in found):
        raise RuleError("holds a permit; grants permit, and a rule forbids: write forbid(…) unless")
    return found


def policy_set(numbered: dict[int, Policy]) -> PolicySet:
    """The engine's own form of these policies, under their numbers. Raises `ValueError`."""
    return PolicySet.from_json_str(policies_json(numbered))


def policies_json(numbered: dict[int, Policy]) -> str:
    """These policies as one document of Cedar's JSON form."""
    named = {str(number): policy for number, policy in numbered.items()}
    return json.dumps({"staticPolicies": named, "templates": {}, "templateLinks": []})


def forbidding(scope: Policy, conditions: list[Expr]) -> Policy:
    """What forbids within a policy's scope whatever all these conditions hold for."""
    return {
        "effect": "forbid",
        **{name: scope[name] for name in SCOPE},
        "conditions": [{"kind": "when", "body": each} for each in conditions],
    }


def conjuncts(policy: Policy) -> list[Expr]:
    """The conditions that must all hold, in the order in which Cedar looks at them."""
    found: list[Expr] = []
    for condition in policy["conditions"]:
        body = condition["body"]
        found += [{"!": {"arg": body}}] if condition["kind"] == "unless" else _split(body)
    return found


def _split(body: Expr) -> list[Expr]:
    right: list[Expr] = []
    while isinstance(body, dict) and "&&" in body:
        right.append(body["&&"]["right"])
        body = body["&&"]["left"]
    return [body, *reversed(right)]


def _check_depth(text: str) -> None:
    bare = _SILENT.sub('""', text)
    depth = deepest = 0
    for sign in bare:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    most = max(len(_NESTABLE.findall(statement)) for statement in bare.split(";"))
    if deepest > DEEPEST or most > MOST_NESTABLE:
        raise RuleError(_TOO_DEEP)


def _of(complaint: str) -> str:
    if "serializing" in complaint or "recursion" in complaint:
        return _TOO_DEEP
    return f"is not Cedar: {complaint.splitlines()[0]}"


def _number(policy_id: str) -> int:
    return int(policy_id.removeprefix("policy"))
