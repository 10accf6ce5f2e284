"""Servers: the list, one server, and adding servers from a client's JSON."""

import asyncio
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
MOST_STATES = 1000
CHARACTERS = 4  # of a definition for one token of a model, on average
EXAMPLE = '{\n  "mcpServers": {\n    "docs": {"url": "https://docs.example.com/mcp"}\n  }\n}'
SUGGESTED = 12
ADDED_KINDS = {
    "url": "MCP server (URL)", "openapi": "OpenAPI document (URL)", "graphql": "GraphQL (URL)",
    "command": "program (command)",
}  # fmt: skip
_API, _CATALOGUE = "/api/v1/servers", "/api/v1/catalogue"
_IDENTITY = ("kind", "name", "digest")
_ADDRESSES = ("url", "openapi", "graphql", "grpc", "a2a", "command", "image", "python")
router = APIRouter(prefix="/servers")


@router.get("")
async def list_servers(visitor: SignedIn, after: str = "", search: str = "") -> Response:
    """Return one page of the servers."""
    found, states = await asyncio.gather(
        visitor.api.get(_API, limit=PAGE, after=after, search=search),
        server_states(visitor, search),
    )
    rows = [
        {"name": each["name"], "state": states.get(each["name"], {}), **_summary(each["value"])}
        for each in found["items"]
    ]
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
    return await _form(visitor, text=text, missing=missing, search=search)


@router.post("/add")
async def add_servers(visitor: SignedIn) -> Response:
    """Add each server of a pasted JSON, and show what happened to each."""
    form = visitor.form
    text = form.get("text", "")
    try:
        proposed = addressed_server(form) or proposed_servers(text)
    except ValueError as error:
        return await _form(visitor, 422, text=text, error=str(error))
    held = {"definitions": "each"} if form.get("held") == "yes" else {}
    added = [await _add(visitor, name, {**held, **value}) for name, value in proposed.items()]
    if len(added) == 1 and not added[0]["detail"]:
        return redirect(address("servers", added[0]["name"]))
    return await _form(visitor, text=text, added=added)


@router.get("/{name}")
async def show_server(visitor: SignedIn, name: str) -> Response:
    """Return one server with its configuration and its quarantined definitions."""
    return await _server(visitor, name)


@router.post("/{name}/definitions")
async def decide(visitor: SignedIn, name: str) -> Response:
    """Approve or reject one definition, or approve several, exactly as they were shown."""
    form = visitor.form
    action = "reject" if form.get("action") == "reject" else "approve"
    path = f"{_API}/{quote(name, safe='')}/definitions/{action}"
    shown = shown_definitions(form.get("shown", "")) if action == "approve" else []
    try:
        for body in shown or [{field: form.get(field, "") for field in _IDENTITY}]:
            await visitor.api.send("POST", path, body)
    except ProblemError as problem:
        return await _server(visitor, name, problem)
    return redirect(address("servers", name))


async def _server(visitor: Visitor, name: str, problem: ProblemError | None = None) -> Response:
    path = f"{_API}/{quote(name, safe='')}"
    entry, held, states = await asyncio.gather(
        visitor.api.get(path),
        visitor.api.get(f"{path}/definitions", limit=PAGE),
        server_states(visitor, name),
    )
    calm = [
        {field: each[field] for field in _IDENTITY}
        for each in held["items"]
        if not each["signals"] and not each["hidden"]
    ]
    return visitor.page(
        "server.html", 200 if problem is None else problem.status, entry=entry, held=held,
        summary=_summary(entry["value"]), state=states.get(name, {}), problem=problem,
        calm=len(calm), shown=json.dumps(calm),
        tokens=sum(len(json.dumps(each["definition"])) for each in held["items"]) // CHARACTERS,
    )  # fmt: skip


def shown_definitions(text: str) -> list[dict[str, str]]:
    """Return the definitions named in a field of the page's form; none if it is malformed."""
    try:
        found = json.loads(text)
        return [{field: str(each[field]) for field in _IDENTITY} for each in found[:PAGE]]
    except (ValueError, TypeError, KeyError, IndexError):
        return []


async def server_states(visitor: Visitor, search: str = "") -> dict[str, dict[str, Any]]:
    """Return the states of servers and providers by name; none if no executor is running."""
    try:
        found = await visitor.api.get("/api/v1/status/servers", limit=MOST_STATES, search=search)
    except ProblemError:
        return {}
    return {each["name"]: each for each in found["items"]}


def addressed_server(form: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the server in the fields of the form; empty without a name. Raises `ValueError`."""
    name, place = form.get("name", "").strip(), form.get("address", "").strip()
    kind = form.get("kind", "url")
    if not name:
        return {}
    if not place or kind not in ADDED_KINDS:
        raise ValueError("Enter the address of the server, and choose its kind.")
    return {name: {kind: shlex.split(place) if kind == "command" else place}}


async def _form(visitor: Visitor, status: int = 200, *, search: str = "", **shown: Any) -> Response:
    """Return the form that adds servers, with what was entered before."""
    offered = await visitor.api.get(_CATALOGUE, limit=SUGGESTED, search=search)
    values = {"added": [], "missing": [], "text": "", **shown}
    return visitor.page(
        "servers_add.html", status, **{**values, "text": values["text"] or EXAMPLE},
        kinds=ADDED_KINDS, entered=visitor.form, offered=offered["items"], search=search,
    )  # fmt: skip


def proposed_servers(text: str) -> dict[str, dict[str, Any]]:
    """Return the servers of a client's JSON, or of a JSON object of servers.

    Raises:
        ValueError: the text is not such JSON; the message says what is missing.

    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"This is not valid JSON: {error}. Correct it.") from error
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
