"""Parser of a rule's text. Its errors are messages for the author of the rule.

The result is Cedar's JSON form, which is stable and which the engine uses as well.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from cedarpy import PolicySet, policies_to_json_str

Expr = Any  # one node of Cedar's JSON form
Policy = dict[str, Any]

SCOPE = ("principal", "action", "resource")
MAX_DEPTH = 50
MAX_NESTABLE = 400
# The engine's parser has no recursion limit: a text that is nested too deeply would crash the
# process.
# A quoted text or a comment. A quoted text that does not end matches with an empty group 1: if it
# did not match, every later quote would be searched for its end again.
_HIDDEN = re.compile(r'"(?:[^"\\]|\\.?)*+("|\Z)|//[^\n]*', re.DOTALL)
_NESTABLE = re.compile(r"&&|\|\||[-+*.!\[({]|\bif\b")
NOT_CEDAR = "is not Cedar: "
_TOO_DEEP = "is nested too deeply, or too long in one policy; split it into several policies"


class RuleError(ValueError):
    """The text is not a valid rule. The message contains the reason and the fix."""


def policies(text: str) -> list[Policy]:
    """Return the `forbid` policies of a rule, in their order.

    Raises:
        RuleError: the text is not valid Cedar, or contains an element that rules must not contain.

    """
    _check_depth(text)
    try:
        parsed = json.loads(policies_to_json_str(text))
        static = parsed["staticPolicies"]
        found = [static[key] for key in sorted(static, key=_number)]
        # Also compile the form for evaluation, because it is one level deeper than the text.
        policy_set({at: forbidding(each, conjuncts(each)) for at, each in enumerate(found)})
    except RecursionError as error:
        raise RuleError(_TOO_DEEP) from error
    except ValueError as error:
        raise RuleError(_of(str(error))) from error
    if parsed["templates"]:
        raise RuleError("has a template; name the entity instead of ?principal or ?resource")
    if not found:
        raise RuleError("has no policy; write forbid(principal, action, resource) when {…};")
    if any(policy["effect"] != "forbid" for policy in found):
        raise RuleError("has a permit, but rules can only forbid; write forbid(…) unless {…};")
    return found


def without_hidden(text: str, replace: Callable[[str], str]) -> str:
    """Return a rule's text with its quoted texts and comments replaced.

    A quoted text that does not end stays.
    """
    return _HIDDEN.sub(lambda found: found[0] if found[1] == "" else replace(found[0]), text)


def policy_set(numbered: dict[int, Policy]) -> PolicySet:
    """Return the compiled policies, with their numbers as ids. Raises `ValueError`."""
    return PolicySet.from_json_str(policies_json(numbered))


def policies_json(numbered: dict[int, Policy]) -> str:
    """Return these policies as one document in Cedar's JSON form."""
    named = {str(number): policy for number, policy in numbered.items()}
    return json.dumps({"staticPolicies": named, "templates": {}, "templateLinks": []})


def forbidding(scope: Policy, conditions: list[Expr]) -> Policy:
    """Return a policy with the scope of another policy that forbids if all conditions are true."""
    return {
        "effect": "forbid",
        **{name: scope[name] for name in SCOPE},
        "conditions": [{"kind": "when", "body": each} for each in conditions],
    }


def conjuncts(policy: Policy) -> list[Expr]:
    """Return the conditions of a policy that must all be true, in Cedar's order of evaluation."""
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
    bare = without_hidden(text, lambda _: '""')
    depth = deepest = 0
    for sign in bare:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    maximum = max(len(_NESTABLE.findall(statement)) for statement in bare.split(";"))
    if deepest > MAX_DEPTH or maximum > MAX_NESTABLE:
        raise RuleError(_TOO_DEEP)


def _of(complaint: str) -> str:
    if "serializing" in complaint or "recursion" in complaint:
        return _TOO_DEEP
    return f"{NOT_CEDAR}{complaint.splitlines()[0]}"


def _number(policy_id: str) -> int:
    return int(policy_id.removeprefix("policy"))
