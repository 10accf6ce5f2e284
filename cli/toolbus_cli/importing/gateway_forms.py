"""Servers of LiteLLM, Bifrost and Docker's catalogues, in the form of a client (no I/O)."""

import re
from typing import Any

# References to environment variables in these gateways' files.
_REFERENCE = re.compile(r"^(?:os\.environ/|env\.)([A-Za-z_]\w*)$")
_AUTHORIZATION = {  # LiteLLM's kinds of authorization: the header, and what precedes the value
    "bearer_token": ("Authorization", "Bearer "),
    "basic": ("Authorization", "Basic "),
    "authorization": ("Authorization", ""),
    "api_key": ("X-API-Key", ""),
}


def as_client_form(server: dict[str, Any]) -> dict[str, Any]:
    """Return the server with the names of fields that clients use; others are unchanged."""
    if isinstance(server.get("image"), str) or isinstance(server.get("remote"), dict):
        return _docker(server)
    if "connection_type" in server:
        return _bifrost(server)
    return _litellm(server)


def _litellm(server: dict[str, Any]) -> dict[str, Any]:
    made = dict(server)
    headers = {**_table(made.get("headers")), **_table(made.pop("static_headers", None))}
    value = made.pop("auth_value", made.pop("authentication_token", None))
    kind = _AUTHORIZATION.get(str(made.pop("auth_type", "")))
    if kind and isinstance(value, str):
        headers[kind[0]] = kind[1] + _referenced(value)
    if headers:
        made["headers"] = _all_referenced(headers)
    if isinstance(made.get("env"), dict):
        made["env"] = _all_referenced(made["env"])
    if isinstance(tools := made.pop("allowed_tools", None), list):
        made["includeTools"] = tools
    if isinstance(tools := made.pop("disallowed_tools", None), list):
        made["excludeTools"] = tools
    return made


def _bifrost(server: dict[str, Any]) -> dict[str, Any]:
    process = _table(server.get("stdio_config"))
    made = {
        "type": server["connection_type"], "url": server.get("connection_string"),
        "headers": _all_referenced(_table(server.get("headers"))),
        "command": process.get("command"), "args": process.get("args"),
        "env_vars": process.get("envs"),
    }  # fmt: skip
    tools = server.get("tools_to_execute")
    if isinstance(tools, list) and "*" not in tools:
        made["includeTools"] = tools
    return {name: value for name, value in made.items() if value}


def _docker(server: dict[str, Any]) -> dict[str, Any]:
    secrets = {
        str(each["env"]): f"${{env:{each['env']}}}"
        for each in _tables(server.get("secrets"))
        if isinstance(each.get("env"), str)
    }
    remote = _table(server.get("remote"))
    if remote:
        kind = remote.get("transport_type")
        return {"type": kind, "url": remote.get("url"), "headers": _table(remote.get("headers"))}
    env = {
        str(each.get("name")): each.get("value")
        for each in _tables(server.get("env"))
        if "{{" not in str(each.get("value"))  # a parameter of Docker's own configuration
    }
    arguments = server.get("command")
    return {
        "image": server["image"],
        "args": arguments if isinstance(arguments, list) else [],
        "env": env | secrets,
    }


def _all_referenced(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _referenced(value) if isinstance(value, str) else value
        for name, value in values.items()
    }


def _referenced(value: str) -> str:
    """Return a reference of these gateways in the syntax of Toolbus."""
    found = _REFERENCE.match(value)
    return f"${{env:{found[1]}}}" if found else value


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
