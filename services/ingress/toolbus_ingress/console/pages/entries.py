"""The other kinds of entries, such as teams, rules and guards: list, edit and delete as JSON."""

import json
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from toolbus_common.admin_api.models import KINDS, noun_of
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import json_text, redirect
from toolbus_ingress.console.visitor import SignedIn, address

PAGE = 50
router = APIRouter(prefix="/entries")


@router.get("/{kind}")
async def list_entries(visitor: SignedIn, kind: str, after: str = "", search: str = "") -> Response:
    """Return one page of the entries of a kind."""
    found = await visitor.api.get(_path(kind), limit=PAGE, after=after, search=search)
    return visitor.page(
        "entries.html",
        kind=kind,
        noun=noun_of(kind),
        rows=found["items"],
        next=found.get("next"),
        search=search,
        after=after,
    )


@router.get("/{kind}/edit")
async def show_form(visitor: SignedIn, kind: str, name: str = "") -> Response:
    """Return the form of an entry; without a name, the form of a new one."""
    text, revision = "{}", ""
    if name:
        entry = await visitor.api.get(_path(kind, name))
        text = json_text(entry["value"])
        revision = str(entry["revision"])
    return _form(visitor, kind, name, text, revision)


@router.post("/{kind}/edit")
async def save_entry(visitor: SignedIn, kind: str) -> Response:
    """Create, replace or delete an entry."""
    form = visitor.form
    name, text, revision = (form.get(each, "") for each in ("name", "text", "revision"))
    name = name.strip()
    match = f'"{revision}"' if revision.isdigit() else ""
    try:
        if form.get("action") == "delete":
            await visitor.api.send("DELETE", _path(kind, name), if_match=match)
        else:
            value = json.loads(text)
            await visitor.api.send("PUT", _path(kind, name), value, if_match=match)
    except ProblemError as problem:
        return _form(visitor, kind, name, text, revision, problem=problem)
    except ValueError as error:
        return _form(
            visitor,
            kind,
            name,
            text,
            revision,
            error=f"This is not valid JSON: {error}. Correct it.",
        )
    return redirect(address("entries", kind))


def _form(
    visitor: SignedIn, kind: str, name: str, text: str, revision: str, **shown: Any
) -> Response:
    return visitor.page(
        "entry.html",
        422 if shown else 200,
        kind=kind,
        noun=noun_of(kind),
        entry_name=name,
        text=text,
        revision=revision,
        **shown,
    )


def _path(kind: str, name: str = "") -> str:
    """Return the path of a kind, or of one of its entries. Raises `HTTPException` (404)."""
    if kind not in KINDS:
        raise HTTPException(404)
    return f"/api/v1/{kind}/{quote(name, safe='')}" if name else f"/api/v1/{kind}"
