"""Keys of agents: list, create, rotate, revoke, and the configuration of their clients."""

import json
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_common.agent_clients.configurations import (
    CLIENTS,
    as_text,
    claude_command,
    configuration,
)
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

PAGE = 50
PERIODS = ("day", "week", "month", "hour")
_API = "/api/v1/keys"
router = APIRouter(prefix="/keys")


@router.get("")
async def list_keys(visitor: SignedIn, after: str = "", search: str = "") -> Response:
    """Return one page of the keys."""
    found = await visitor.api.get(_API, limit=PAGE, after=after, search=search)
    return visitor.page(
        "keys.html", rows=found["items"], next=found.get("next"), search=search, after=after
    )


@router.get("/add")
async def show_form(visitor: SignedIn) -> Response:
    """Return the form of a new key."""
    return visitor.page("keys_add.html", periods=PERIODS, form={})


@router.post("/add")
async def create_key(visitor: SignedIn) -> Response:
    """Create a key, and show its secret once with configurations for clients."""
    form = visitor.form
    try:
        answer = await visitor.api.send("POST", _API, terms_of(form))
    except (ProblemError, ValueError) as error:
        return visitor.page("keys_add.html", 422, periods=PERIODS, form=form, **_shown(error))
    return _secret(visitor, answer.data)


@router.get("/{name}")
async def show_key(visitor: SignedIn, name: str) -> Response:
    """Return one key with its terms."""
    entry = await visitor.api.get(f"{_API}/{quote(name, safe='')}")
    return visitor.page("key.html", entry=entry)


@router.get("/{name}/explain")
async def show_explanation(visitor: SignedIn, name: str, call: str = "") -> Response:
    """Return the explanation of a key's call without arguments; without `call`, the form."""
    return await _explained(visitor, name, call, "{}")


@router.post("/{name}/explain")
async def explain_with_arguments(visitor: SignedIn, name: str) -> Response:
    """Return the explanation of a key's call."""
    form = visitor.form
    return await _explained(visitor, name, form.get("call", ""), form.get("arguments", "{}"))


@router.post("/{name}/terms")
async def replace_terms(visitor: SignedIn, name: str) -> Response:
    """Replace the terms of a key."""
    path, text = f"{_API}/{quote(name, safe='')}", visitor.form.get("text", "")
    try:
        await visitor.api.send("PUT", path, json.loads(text))
    except (ProblemError, ValueError) as error:
        entry = await visitor.api.get(path)
        return visitor.page("key.html", 422, entry=entry, text=text, **_shown(error))
    return redirect(address("keys", name))


@router.post("/{name}/rotate")
async def rotate_key(visitor: SignedIn, name: str) -> Response:
    """Replace the secret of a key, and show the new one once."""
    answer = await visitor.api.send("POST", f"{_API}/{quote(name, safe='')}/rotate")
    return _secret(visitor, answer.data)


@router.post("/{name}/revoke")
async def revoke_key(visitor: SignedIn, name: str) -> Response:
    """Revoke a key."""
    await visitor.api.send("POST", f"{_API}/{quote(name, safe='')}/revoke")
    return redirect(address("keys", name))


def terms_of(form: dict[str, str]) -> dict[str, Any]:
    """Return the body that creates a key, from the fields of the form. Raises `ValueError`."""
    terms: dict[str, Any] = {"name": form.get("name", "").strip()}
    for field in ("tools", "models"):
        patterns = form.get(field, "").replace(",", " ").split()
        if patterns:
            terms[field] = patterns
    for field in ("team", "user", "expires"):
        if form.get(field, "").strip():
            terms[field] = form[field].strip()
    if form.get("usd", "").strip():
        try:
            amount = float(form["usd"])
        except ValueError as error:
            raise ValueError("The budget must be a number of dollars, such as 20.") from error
        terms["budget"] = {"usd": amount, "per": form.get("per", "month")}
    return terms


def client_configurations(endpoint: str, secret: str) -> dict[str, str]:
    """Return the configuration of common clients, by the name of the client."""
    files = {
        f"{client.title} ({client.file})": as_text(client, configuration(client, endpoint, secret))
        for client in (CLIENTS[name] for name in ("cursor", "vscode", "codex", "gemini"))
    }
    return {
        "Claude Code": claude_command(endpoint, secret),
        **files,
        "OpenAI SDK": f'OpenAI(base_url="{endpoint.removesuffix("/mcp")}/v1", api_key="{secret}")',
    }


async def _explained(visitor: Visitor, key: str, call: str, arguments: str) -> Response:
    """Return the form with the explanation of a call, or why there is none."""
    found, shown, status = None, dict[str, Any](), 200
    try:
        body = {"name": call.strip(), "arguments": json.loads(arguments.strip() or "{}")}
        if call.strip():
            path = f"{_API}/{quote(key, safe='')}/explain"
            found = (await visitor.api.send("POST", path, body)).data
    except ProblemError as problem:
        shown, status = {"problem": problem}, problem.status
    except ValueError as error:
        shown, status = {"error": f"The arguments are not valid JSON: {error}. Correct them."}, 422
    return visitor.page(
        "explain.html", status, key=key, call=call, arguments=arguments, found=found, **shown
    )


def _secret(visitor: Visitor, created: dict[str, str]) -> Response:
    endpoint = f"{str(visitor.request.base_url).rstrip('/')}/mcp"
    shown = client_configurations(endpoint, created["secret"])
    return visitor.page("key_secret.html", created=created, clients=shown)


def _shown(error: ProblemError | ValueError) -> dict[str, Any]:
    return {"problem": error} if isinstance(error, ProblemError) else {"error": str(error)}
