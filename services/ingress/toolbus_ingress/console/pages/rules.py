"""Rules: what each decided, and an editor that replays recorded calls before a change applies."""

import json
import re
from difflib import unified_diff
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.pages.calls import queried
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

PAGE = 50
DAYS = {"24h": 1, "7d": 7, "30d": 30, "90d": 90}
MOST_CALLS = 2000
NOT_FOUND = 404
DRAFT = """forbid(principal, action == Action::"tools/call", resource)
when { context.arguments has path && context.arguments.path like "/etc*" };
"""
_API = "/api/v1/rules"
_REPLAYS = "/api/v1/audit/rule-replays"
_HITS = """
SELECT arrayJoin(arrayConcat([concat('rule ', rule)], arrayMap(x -> concat('shadow ', x), shadow)))
    AS hit, uniqExact(call_id) AS calls, argMax(call_id, at) AS newest
FROM events
WHERE at >= now() - INTERVAL {days:UInt16} DAY AND (rule != '' OR notEmpty(shadow))
    AND event IN ('call.allowed', 'call.denied', 'approval.requested')
GROUP BY hit
"""
_LINE = re.compile(r"line (\d+): ")
_NO_HITS: dict[str, Any] = {"calls": 0, "newest": ""}
router = APIRouter(prefix="/rules")


@router.get("")
async def list_rules(
    visitor: SignedIn, after: str = "", search: str = "", since: str = "7d"
) -> Response:
    """Return one page of the rules; for auditors and admins with the calls that each decided."""
    period = since if since in DAYS else "7d"
    found = await visitor.api.get(_API, limit=PAGE, after=after, search=search)
    hits = await _hits(visitor, DAYS[period])
    rows = [
        {
            **each["value"],
            "name": each["name"],
            "decided": hits.get(f"rule {each['name']}", _NO_HITS),
            "would": hits.get(f"shadow {each['name']}", _NO_HITS),
            "failed": hits.get(f"shadow {each['name']}:error", _NO_HITS),
        }
        for each in found["items"]
    ]
    return visitor.page(
        "rules.html", rows=rows, next=found.get("next"), search=search, after=after,
        periods=DAYS, since=period, recorded="audit" in visitor.rights,
    )  # fmt: skip


@router.get("/edit")
async def show_rule(visitor: SignedIn, name: str = "") -> Response:
    """Return the editor of a rule; without a name, of a new one."""
    if not name:
        revision = (await visitor.api.get("/api/v1/configuration"))["revision"]
        return _editor(visitor, {"text": DRAFT, "revision": str(revision)})
    entry = await visitor.api.get(f"{_API}/{quote(name, safe='')}")
    return _editor(visitor, _form(name, entry["value"], str(entry["revision"])))


@router.post("/edit")
async def change_rule(visitor: SignedIn) -> Response:
    """Check a proposed rule against recorded calls, apply it, or delete a rule.

    A rule that differs from the one whose changes were shown is checked instead of applied.
    """
    form = visitor.form
    former, name = form.get("former", ""), form.get("name", "").strip()
    path, action = f"{_API}/{quote(name, safe='')}", form.get("action", "")
    match = f'"{form["revision"]}"' if form.get("revision", "").isdigit() else ""
    try:
        stored = await _stored(visitor, name)
        if stored is not None and former != name:
            return _editor(visitor, form, error=f"A rule named {name} exists. Open it instead.")
        if action == "delete":
            await visitor.api.send("DELETE", path, if_match=match)
            return redirect(address("rules"))
        if action == "apply" and form.get("shown") == _digest(form):
            await visitor.api.send("PUT", path, _value(form), if_match=match)
            return redirect(address("rules"))
        proposed = {"rules": {name: _value(form)}, "since": form.get("since") or "24h"}
        replay = (await visitor.api.send("POST", _REPLAYS, {**proposed, "calls": MOST_CALLS})).data
    except ProblemError as problem:
        marks = _marks(form, problem)
        if not marks:
            return _editor(visitor, form, problem=problem)
        wrong = "Nothing was changed, because the text has mistakes. Each is shown in its line."
        return _editor(visitor, form, error=wrong, marks=marks)
    current = _form(name, stored, "") if stored is not None else {}
    return _editor(
        visitor, form, replay=replay, changes=_changes(current, form), shown=_digest(form)
    )


async def _hits(visitor: Visitor, days: int) -> dict[str, dict[str, Any]]:
    """Return the number of calls by rule or shadow rule; none if the person may not query."""
    if "audit" not in visitor.rights:
        return {}
    return {each["hit"]: each for each in (await queried(visitor, _HITS, days=str(days))).records}


async def _stored(visitor: Visitor, name: str) -> dict[str, Any] | None:
    """Return the configured rule of this name, if there is one."""
    try:
        entry = await visitor.api.get(f"{_API}/{quote(name, safe='')}")
    except ProblemError as problem:
        if problem.status == NOT_FOUND:
            return None
        raise
    value: dict[str, Any] = entry["value"]
    return value


def _form(name: str, value: dict[str, Any], revision: str) -> dict[str, str]:
    """Return the fields of the form that have the values of a rule."""
    return {
        "former": name, "name": name, "revision": revision, "text": value["cedar"],
        "effect": value.get("effect", "deny"), "reason": value.get("reason", ""),
        "shadow": "yes" if value.get("shadow") else "",
    }  # fmt: skip


def _value(form: dict[str, str]) -> dict[str, Any]:
    """Return the rule that a form describes."""
    return {
        "cedar": form.get("text", "").replace("\r\n", "\n").rstrip(),
        "effect": form.get("effect", "deny"),
        "shadow": form.get("shadow") == "yes",
        "reason": form.get("reason", ""),
    }


def _digest(form: dict[str, str]) -> str:
    """Return the digest of a proposed rule, so that only the rule that was shown is applied."""
    return sha256(json.dumps([form.get("name", "").strip(), _value(form)]).encode()).hexdigest()


def _editor(visitor: Visitor, form: dict[str, str], **shown: Any) -> Response:
    fields = ("former", "name", "revision", "text", "effect", "reason", "shadow", "since")
    problem = shown.get("problem")
    return visitor.page(
        "rule.html",
        problem.status if problem else 422 if "error" in shown else 200,
        form={field: form.get(field, "") for field in fields},
        periods=DAYS,
        **{"replay": None, "changes": [], "marks": [], "shown": "", **shown},
    )


def _changes(current: dict[str, str], form: dict[str, str]) -> list[dict[str, str]]:
    """Return the lines of the difference to the configured rule."""
    before = _written(_value(current)) if current else []
    lines = list(unified_diff(before, _written(_value(form)), lineterm="", n=2))[2:]
    return [
        {"text": line, "tone": {"+": "good", "-": "bad"}.get(line[:1], "")}
        for line in lines
        if not line.startswith("@@")
    ]


def _written(value: dict[str, Any]) -> list[str]:
    shadow = "shadow: yes" if value["shadow"] else "shadow: no"
    return [
        f"effect: {value['effect']}",
        shadow,
        f"reason: {value['reason']}",
        *value["cedar"].splitlines(),
    ]


def _marks(form: dict[str, str], problem: ProblemError) -> list[dict[str, Any]]:
    """Return the lines of the text, each with its mistakes; none if others are elsewhere."""
    if not problem.errors or not all(each["location"].endswith("cedar") for each in problem.errors):
        return []
    lines = form.get("text", "").splitlines()
    found: dict[int, list[str]] = {}
    for each in problem.errors:
        line = _LINE.match(each["reason"])
        reason = _LINE.sub("", each["reason"], count=1)
        found.setdefault(int(line[1]) if line else 1, []).append(reason)
    return [
        {"number": at, "text": line, "mistakes": found.get(at, [])}
        for at, line in enumerate(lines, 1)
    ]
