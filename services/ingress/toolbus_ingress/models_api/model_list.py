"""The list of models that a caller may use, in the form of each API."""

from typing import Any

import msgspec

from toolbus_common.model_api import routing
from toolbus_ingress.http.jsonrpc import OK, Response
from toolbus_ingress.models_api.errors import Dialect

Names = list[tuple[str, str]]

_HEADERS = ((b"cache-control", b"no-store"),)
_NO_DATE = "1970-01-01T00:00:00Z"  # providers' dates are not known here


def list_response(names: Names, dialect: Dialect) -> Response:
    """Return all models. `names` are pairs of a name and its owner."""
    data = [_entry(name, owner, dialect) for name, owner in names]
    if dialect is Dialect.OPENAI:
        return _response({"object": "list", "data": data})
    ends = (names[0][0], names[-1][0]) if names else (None, None)
    return _response({"data": data, "has_more": False, "first_id": ends[0], "last_id": ends[1]})


def entry_response(name: str, names: Names, dialect: Dialect) -> Response:
    """Return one model.

    Raises:
        UnknownModelError: `names` has no model of this name.

    """
    for found, owner in names:
        if found == name:
            return _response(_entry(name, owner, dialect))
    raise routing.unknown_model(name)


def _entry(name: str, owner: str, dialect: Dialect) -> dict[str, Any]:
    if dialect is Dialect.ANTHROPIC:
        return {"type": "model", "id": name, "display_name": name, "created_at": _NO_DATE}
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _response(body: dict[str, Any]) -> Response:
    return Response(OK, msgspec.json.encode(body), _HEADERS)
