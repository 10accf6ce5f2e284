"""The keys of clients at a context's gateway, by its administration API."""

import json
from typing import Any
from urllib.parse import quote

from toolbus_cli.remote.client import pages, request
from toolbus_cli.remote.contexts import Context
from toolbus_common.config import KeyTerms


def listed(context: Context) -> list[dict[str, Any]]:
    """Return all keys as the API describes them, by name. Raises `CommandError`."""
    return sorted(pages(context, "/keys"), key=lambda each: str(each["name"]))


def create(context: Context, name: str, terms: KeyTerms) -> str:
    """Create a key and return its secret. Raises `CommandError`."""
    entry = {"name": name, **terms.model_dump(mode="json", exclude_defaults=True)}
    body, form = json.dumps(entry).encode(), "application/json"
    created = request(context, "POST", "/keys", body, Content_Type=form)
    return str(created["secret"])


def revoke(context: Context, name: str) -> None:
    """Revoke a key. Raises `CommandError`."""
    request(context, "POST", f"/keys/{quote(name, safe='')}/revoke")


def rotate(context: Context, name: str) -> str:
    """Replace the secret of a key and return the new one. Raises `CommandError`."""
    rotated = request(context, "POST", f"/keys/{quote(name, safe='')}/rotate")
    return str(rotated["secret"])
