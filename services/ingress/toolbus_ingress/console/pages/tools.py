"""Tools of a server: the list, and a form that tries one of them as an ordinary call."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.schema_form import ArgumentField, fields_of, filled
from toolbus_ingress.console.visitor import SignedIn, Visitor

PAGE = 50
_API = "/api/v1/servers"
_EXPLAIN, _EXECUTE = "/v1/mcp/tools/explain", "/v1/mcp/tools/execute"
_UNCONFIRMED = "Confirm that the call may change or destroy data."
router = APIRouter(prefix="/servers")


@router.get("/{name}/tools")
async def list_tools(visitor: SignedIn, name: str, after: str = "", search: str = "") -> Response:
    """Return one page of a server's tools."""
    path = f"{_API}/{quote(name, safe='')}/definitions"
    found = await visitor.api.get(path, limit=PAGE, after=after, search=search, everything=True)
    rows = [each for each in found["items"] if each["kind"] == "tools"]
    return visitor.page(
        "tools.html", server=name, rows=rows, next=found.get("next"), search=search, after=after
    )


@router.get("/{name}/tools/try")
async def show_form(visitor: SignedIn, name: str, tool: str = "") -> Response:
    """Return the form of one tool."""
    definition = await _definition(visitor, name, tool)
    return _page(visitor, name, tool, definition, fields_of(_schema(definition)))


@router.post("/{name}/tools/try")
async def try_tool(visitor: SignedIn, name: str) -> Response:
    """Call a tool with a key that the person enters, and show its result or why it is denied."""
    form, tool = visitor.form, visitor.form.get("tool", "")
    definition = await _definition(visitor, name, tool)
    fields, arguments = filled(fields_of(_schema(definition)), form)
    key, full = form.get("key", "").strip(), await _full_name(visitor, name, tool)
    confirmed = not is_destructive(definition) or form.get("confirmed") == "yes"
    if not (key and confirmed) or any(each.error for each in fields):
        problems = {"key_missing": not key, "unconfirmed": "" if confirmed else _UNCONFIRMED}
        return _page(visitor, name, tool, definition, fields, 422, **problems)
    caller = replace(visitor.api, credential=key)
    try:
        call = {"id": "console", "function": {"name": full, "arguments": arguments}}
        message = (await caller.send("POST", _EXECUTE, call)).data
    except ProblemError as problem:
        explained = await _explained(visitor, key, full, arguments)
        return _page(
            visitor, name, tool, definition, fields, problem.status,
            denied=problem, explained=explained, full=full,
        )  # fmt: skip
    return _page(visitor, name, tool, definition, fields, result=message["content"], full=full)


def is_destructive(definition: dict[str, Any]) -> bool:
    """Return whether a tool may change or destroy data; true unless it declares otherwise."""
    hints = definition.get("annotations")
    hints = hints if isinstance(hints, dict) else {}
    return hints.get("readOnlyHint") is not True and hints.get("destructiveHint") is not False


def _schema(definition: dict[str, Any]) -> Any:
    return definition.get("inputSchema")


async def _definition(visitor: Visitor, server: str, tool: str) -> dict[str, Any]:
    """Return the definition of a listed tool. Raises `ProblemError`."""
    path = f"{_API}/{quote(server, safe='')}/definitions"
    found = await visitor.api.get(path, search=tool, limit=1000, everything=True)
    for each in found["items"]:
        if (each["kind"], each["name"]) == ("tools", tool) and not each["quarantined"]:
            definition: dict[str, Any] = each["definition"]
            return definition
    problem = {"detail": "The server has no such tool, or it is quarantined.", "fix": ""}
    raise ProblemError(404, problem)


async def _full_name(visitor: Visitor, server: str, tool: str) -> str:
    """Return the name of a tool at the shared endpoint."""
    entry = await visitor.api.get(f"{_API}/{quote(server, safe='')}")
    views = entry["value"].get("tools") or {}
    return f"{server}__{(views.get(tool) or {}).get('alias') or tool}"


async def _explained(
    visitor: Visitor, key: str, name: str, arguments: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the explanation of a denial for the holder of the key; None if there is none."""
    caller = replace(visitor.api, credential=key)
    try:
        body = {"name": name, "arguments": arguments}
        found: dict[str, Any] = (await caller.send("POST", _EXPLAIN, body)).data
    except ProblemError:
        return None
    return found


def _page(
    visitor: Visitor,
    server: str,
    tool: str,
    definition: dict[str, Any],
    fields: list[ArgumentField],
    status: int = 200,
    **shown: Any,
) -> Response:
    texts = {each: definition.get(each) for each in ("title", "description")}
    values = {"result": None, "denied": None, "explained": None, "key_missing": False}
    return visitor.page(
        "try.html",
        status,
        server=server,
        tool=tool,
        fields=fields,
        destructive=is_destructive(definition),
        description=texts["description"] if isinstance(texts["description"], str) else "",
        **{**values, "unconfirmed": "", "full": "", **shown},
    )
