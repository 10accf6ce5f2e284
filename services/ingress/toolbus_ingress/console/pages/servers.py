"""Servers: the list, one server, and adding servers from a client's JSON."""

import json
import shlex
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

PAGE = 50
EXAMPLE = '{\n  "mcpServers": {\n    "docs": {"url": "https://docs.example.com/mcp"}\n  }\n}'
SUGGESTED = 12
ADDED_KINDS = {
    "url": "MCP server (URL)", "openapi": "OpenAPI document (URL)", "graphql": "GraphQL (URL)",
    "command": "program (command)",
}  # fmt: skip
_API, _CATALOGUE = "/api/v1/servers", "/api/v1/catalogue"
_ADDRESSES = ("url", "openapi", "graphql", "grpc", "a2a", "command", "image", "python")
router = APIRouter(prefix="/servers")


@router.get("")
async def list_servers(visitor: SignedIn, after: str = "", search: str = "") -> Response:
    """Return one page of the servers."""
    found = await visitor.api.get(_API, limit=PAGE, after=after, search=search)
    rows = [{"name": each["name"], **_summary(each["value"])} for each in found["items"]]
    return visitor.page(
        "servers.html", rows=rows, next=found.get("next"), search=search, after=after
    )


@router.get("/add")
async def show_form(visitor: SignedIn, entry: str = "", search: str = "") -> Response:
    """Return the form that adds servers; `entry` fills it from an entry of the catalogue."""
    text, missing = EXAMPLE, []
    if entry:
        found = await visitor.api.get(f"{_CATALOGUE}/{quote(entry, safe='')}")
        text, missing = json.dumps({entry: found["server"]}, indent=2), found["missing"]
    offered = await visitor.api.get(_CATALOGUE, limit=SUGGESTED, search=search)
    return _form(visitor, text=text, missing=missing, offered=offered["items"], search=search)


@router.post("/add")
async def add_servers(visitor: SignedIn) -> Response:
    """Add each server of a pasted JSON, and show what happened to each."""
    form = visitor.form
    text = form.get("text", "")
    try:
        proposed = addressed_server(form) or proposed_servers(text)
    except ValueError as error:
        return _form(visitor, 422, text=text, error=str(error))
    held = {"definitions": "each"} if form.get("held") == "yes" else {}
    added = [await _add(visitor, name, {**held, **value}) for name, value in proposed.items()]
    if len(added) == 1 and not added[0]["detail"]:
        return redirect(address("servers", added[0]["name"]))
    return _form(visitor, text=text, added=added)


@router.get("/{name}")
async def show_server(visitor: SignedIn, name: str) -> Response:
    """Return one server with its configuration and its quarantined definitions."""
    return await _server(visitor, name)


@router.post("/{name}/definitions")
async def decide(visitor: SignedIn, name: str) -> Response:
    """Approve or reject one definition, exactly as it was shown."""
    form = visitor.form
    action = "approve" if form.get("action") == "approve" else "reject"
    body = {field: form.get(field, "") for field in ("kind", "name", "digest")}
    try:
        await visitor.api.send("POST", f"{_API}/{quote(name, safe='')}/definitions/{action}", body)
    except ProblemError as problem:
        return await _server(visitor, name, problem)
    return redirect(address("servers", name))


async def _server(visitor: Visitor, name: str, problem: ProblemError | None = None) -> Response:
    path = f"{_API}/{quote(name, safe='')}"
    entry = await visitor.api.get(path)
    held = await visitor.api.get(f"{path}/definitions", limit=PAGE)
    return visitor.page(
        "server.html", 200 if problem is None else problem.status, entry=entry, held=held,
        summary=_summary(entry["value"]), problem=problem,
    )  # fmt: skip


def addressed_server(form: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the server in the fields of the form; empty without a name. Raises `ValueError`."""
    name, place = form.get("name", "").strip(), form.get("address", "").strip()
    kind = form.get("kind", "url")
    if not name:
        return {}
    if not place or kind not in ADDED_KINDS:
        raise ValueError("Enter the address of the server, and choose its kind.")
    return {name: {kind: shlex.split(place) if kind == "command" else place}}


def _form(visitor: Visitor, status: int = 200, **shown: Any) -> Response:
    values = {"added": [], "missing": [], "offered": [], "search": "", "kinds": ADDED_KINDS}
    return visitor.page("servers_add.html", status, **{**values, **shown})


def proposed_servers(text: str) -> dict[str, dict[str, Any]]:
    """Return the servers of a client's JSON, or of a JSON object of servers.

    Raises:
        ValueError: the text is not such JSON; the message says what is missing.

    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"This is not valid JSON: {error}.") from error
    servers = data.get("mcpServers", data.get("servers", data)) if isinstance(data, dict) else None
    if not isinstance(servers, dict) or not servers:
        raise ValueError('Paste an object such as {"mcpServers": {"docs": {"url": "https://…"}}}.')
    if not all(isinstance(value, dict) for value in servers.values()):
        raise ValueError("Each server must be an object with a url or a command.")
    return {name: _without_client_fields(value) for name, value in servers.items()}


def _without_client_fields(value: dict[str, Any]) -> dict[str, Any]:
    """Return a server without fields that only the client needs."""
    return {key: each for key, each in value.items() if key not in ("type", "disabled")}


async def _add(visitor: Visitor, name: str, value: dict[str, Any]) -> dict[str, str]:
    """Add one server; return its name, and the reason if it was not added."""
    path = f"{_API}/{quote(name, safe='')}"
    try:
        await visitor.api.send("PUT", path, value)
    except ProblemError as problem:
        reasons = "; ".join(f"{each['location']}: {each['reason']}" for each in problem.errors)
        return {"name": name, "detail": reasons or problem.detail, "fix": problem.fix}
    return {"name": name, "detail": "", "fix": ""}


def _summary(value: dict[str, Any]) -> dict[str, Any]:
    kind = next((each for each in _ADDRESSES if value.get(each)), "")
    address = value.get(kind, "")
    shown = address if isinstance(address, str) else " ".join(map(str, address))
    return {"kind": kind, "address": shown, "oauth": bool(value.get("oauth"))}
