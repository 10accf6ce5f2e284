"""The configuration of a context's gateway, by its administration API."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_cli.remote.client import pages, request
from toolbus_cli.remote.contexts import Context
from toolbus_common.config_store.diff import Change
from toolbus_common.config_store.repository import Applied

PATH = "/configuration"


def found(context: Context, kind: str) -> dict[str, Any]:
    """Return the entries of a kind by name, or all kinds. Raises `CommandError`."""
    configuration: dict[str, Any] = request(context, "GET", PATH)["configuration"]
    if kind == "all":
        return configuration
    entries: dict[str, Any] = dict(configuration.get(kind, {}))
    if kind == "keys":
        own = (each for each in pages(context, "/keys") if each["origin"] == "command")
        entries |= {each["name"]: each["value"] | _state(each) for each in own}
    elif kind == "admins":
        own = (each for each in pages(context, "/admins") if each["origin"] == "command")
        entries |= {
            each["name"]: {"role": each["role"], "expires": each["expires"]} | _state(each)
            for each in own
        }
    return entries


def applied(context: Context, file: Path, decided: Callable[[Sequence[str]], bool]) -> Applied:
    """Apply a file if `decided` returns true for the differences, exactly as they were shown.

    Raises:
        CommandError: the file cannot be read or is rejected, or the configuration has changed since
            the differences were shown.

    """
    try:
        body = file.read_bytes()
    except OSError as error:
        raise CommandError(
            f"{file} cannot be read ({error.strerror}); choose another file with -f."
        ) from error
    planned = _put(context, body, "?dry_run=true")
    if not decided([each["text"] for each in planned["changes"]]):
        return Applied(_changes(planned), 0)
    done = _put(context, body, "", If_Match=f'"{planned["revision"]}"')
    return Applied(_changes(done), done["revision"], done["secrets"])


def _put(context: Context, body: bytes, query: str, **headers: str) -> Any:
    path, form = PATH + query, "application/yaml"
    return request(context, "PUT", path, body, Content_Type=form, **headers)


def _changes(response: dict[str, Any]) -> tuple[Change, ...]:
    changes = response["changes"]
    return tuple(Change(each["sign"], each["kind"], each["name"], {}) for each in changes)


def _state(entry: dict[str, Any]) -> dict[str, Any]:
    return {"revoked": True} if entry["state"] == "revoked" else {}
