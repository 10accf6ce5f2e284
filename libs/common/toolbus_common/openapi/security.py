"""Security schemes: where a credential goes, and which of them an operation wants."""

from dataclasses import dataclass
from typing import Any, Literal

from toolbus_common.mcp.param_headers import TOKEN
from toolbus_common.openapi.document import Document, DocumentError

Place = Literal["header", "query", "cookie", "bearer", "basic"]
Alternatives = tuple[tuple[str, ...], ...]  # each names schemes that are wanted together


@dataclass(frozen=True, slots=True)
class Scheme:
    """Where a credential of this scheme goes; `name` is of the header, parameter or cookie."""

    place: Place
    name: str = "Authorization"


def schemes_of(document: Document) -> dict[str, Scheme]:
    """The schemes a document declares; those nobody here can serve are left out."""
    components = document.root.get("components")
    told = components.get("securitySchemes") if isinstance(components, dict) else None
    found = {}
    for name, node in told.items() if isinstance(told, dict) else ():
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
        said = str(node.get("scheme", "")).lower()
        return Scheme("basic") if said == "basic" else Scheme("bearer")
    return Scheme("bearer") if kind in ("oauth2", "openIdConnect") else None


def alternatives(told: Any) -> Alternatives:
    """What an operation's `security` wants; an empty one says that it may be called without."""
    if not isinstance(told, list):
        return ()
    return tuple(tuple(map(str, each)) for each in told if isinstance(each, dict))
