"""Security schemes: the credentials that operations require, and their positions in a request."""

from dataclasses import dataclass
from typing import Any, Literal

from toolbus_common.mcp.param_headers import TOKEN
from toolbus_common.openapi.document import Document, DocumentError

Place = Literal["header", "query", "cookie", "bearer", "basic"]
Alternatives = tuple[tuple[str, ...], ...]  # an alternative contains the names of all its schemes


@dataclass(frozen=True, slots=True)
class Scheme:
    """The position of a credential. `name` is the name of the header, parameter or cookie."""

    place: Place
    name: str = "Authorization"


def schemes_of(document: Document) -> dict[str, Scheme]:
    """Return the supported security schemes of a document, by name."""
    components = document.root.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, dict) else None
    found = {}
    for name, node in schemes.items() if isinstance(schemes, dict) else ():
        try:
            scheme = _scheme(document.resolved(node))
        except DocumentError:
            continue
        if scheme is not None:
            found[name] = scheme
    return found


def _scheme(node: dict[str, Any]) -> Scheme | None:
    kind, name = node.get("type"), node.get("name")
    if kind == "apiKey" and isinstance(name, str) and name:
        place = node.get("in")
        if place == "header":
            return Scheme("header", name) if TOKEN.fullmatch(name) else None
        return Scheme(place, name) if place in ("query", "cookie") else None
    if kind == "http":
        http_scheme = str(node.get("scheme", "")).lower()
        return Scheme("basic") if http_scheme == "basic" else Scheme("bearer")
    return Scheme("bearer") if kind in ("oauth2", "openIdConnect") else None


def alternatives(security: Any) -> Alternatives:
    """Return the alternatives of an operation's `security`.

    An empty alternative means that no credential is required.
    """
    if not isinstance(security, list):
        return ()
    return tuple(tuple(map(str, each)) for each in security if isinstance(each, dict))
