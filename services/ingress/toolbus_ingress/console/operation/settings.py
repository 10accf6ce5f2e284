"""Settings: the version, the origin of entries, and the history of changes, with undo."""

import asyncio
import json
from difflib import unified_diff
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_common import VERSION
from toolbus_common.admin_api.models import KINDS, noun_of
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.operation.models import saved_rows
from toolbus_ingress.console.operation.revisions import API as REVISIONS
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

SHOWN = 100
MOST_LINES = 400
PERIODS = ("24h", "7d", "30d", "90d")
KIND_OF = {noun_of(kind): kind for kind in KINDS} | {kind: kind for kind in KINDS}
_HIDDEN = ("secret", "(set)", "digest")
router = APIRouter(prefix="/settings")


@router.get("")
async def show_settings(visitor: SignedIn, since: str = "30d") -> Response:
    """Return the settings, and for auditors and admins the history of changes."""
    return await _settings(visitor, since)


@router.post("/restore")
async def restore_entry(visitor: SignedIn) -> Response:
    """Undo a change: restore the entry's former value, or remove the added entry."""
    form = visitor.form
    kind, name = KIND_OF.get(form.get("kind", ""), ""), form.get("name", "")
    path = f"/api/v1/{kind}/{quote(name, safe='')}"
    try:
        value = json.loads(form.get("value") or "null")
        if not kind:
            return await _settings(visitor, error="Entries of this kind cannot be restored here.")
        if value is None:
            await visitor.api.send("DELETE", path)
        else:
            await visitor.api.send("PUT", path, value)
    except ProblemError as problem:
        return await _settings(visitor, problem=problem)
    except ValueError:
        return await _settings(visitor, error="The value is not JSON. Open the entry instead.")
    return redirect(address("settings"))


async def _settings(visitor: Visitor, since: str = "30d", **shown: Any) -> Response:
    period = since if since in PERIODS else "30d"
    configuration, keys, changes, stored = await asyncio.gather(
        visitor.api.get("/api/v1/configuration"),
        visitor.api.get("/api/v1/keys", limit=1000),
        saved_rows(visitor, "config-changes", since=period),
        visitor.api.get(REVISIONS),
    )
    sections = {
        name: len(value)
        for name, value in configuration["configuration"].items()
        if isinstance(value, dict | list) and value
    }
    own = [each["name"] for each in keys["items"] if each["origin"] == "command"]
    return visitor.page(
        "settings.html",
        shown["problem"].status if "problem" in shown else 422 if shown else 200,
        version=VERSION,
        revision=configuration["revision"],
        sections=sections,
        own=own,
        stored=[_revision(each, changes) for each in stored["items"]],
        changes=[_change(each) for each in changes[:SHOWN]],
        periods=PERIODS,
        since=period,
        recorded="audit" in visitor.rights,
        licenses=licenses(),
        **shown,
    )


def _revision(stored: dict[str, Any], changes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a stored revision with who made it, and the entries that it changed."""
    own = [each for each in changes if each["revision"] == stored["revision"]]
    return {
        **stored,
        "by": own[0]["by"] if own else "",
        "entries": [f"{each['kind']} {each['name']}" for each in own],
    }


def _change(row: dict[str, Any]) -> dict[str, Any]:
    """Return a change with its difference, and its former value if that can be restored."""
    before, after = _indented(row["before"]), _indented(row["after"])
    lines = list(unified_diff(before, after, lineterm="", n=3))[2:]
    kind = KIND_OF.get(row["kind"], "")
    hidden = any(each in row["before"] for each in _HIDDEN)
    return {
        **row,
        "sign": "+" if not before else "-" if not after else "~",
        "lines": [
            {"text": line, "tone": {"+": "good", "-": "bad"}.get(line[:1], "")}
            for line in lines[:MOST_LINES]
            if not line.startswith("@@")
        ],
        "href": f"{address('entries', kind, 'edit')}?name={quote(row['name'], safe='')}"
        if kind
        else "",
        "restorable": bool(kind) and not hidden,
    }


def _indented(text: str) -> list[str]:
    """Return the lines of a recorded value; none if there was no entry."""
    if not text:
        return []
    try:
        value = json.loads(text)
    except ValueError:
        return text.splitlines()
    return [] if value is None else json.dumps(value, indent=2, ensure_ascii=False).splitlines()


@cache
def licenses() -> list[dict[str, str]]:
    """Return the licences of Toolbus and of the files that the console's pages load."""
    found = [{"name": f"Toolbus {VERSION}", "license": "Apache-2.0", "text": ""}]
    folder = files("toolbus_ingress.console") / "static" / "licenses"
    for each in sorted(folder.iterdir(), key=lambda file: file.name):
        text = each.read_text("utf-8")
        found.append({"name": each.name.removesuffix(".txt"), "license": "", "text": text})
    for name in ("fastapi", "jinja2", "nats-py", "pydantic", "redis", "uvicorn", "cryptography"):
        try:
            about = metadata(name)
        except PackageNotFoundError:
            continue
        fields = ("License-Expression", "License")
        known = next((about[field] for field in fields if field in about), "")
        shown = f"{name} {about['Version']}"
        found.append({"name": shown, "license": known.split("\n")[0][:80], "text": ""})
    return found
