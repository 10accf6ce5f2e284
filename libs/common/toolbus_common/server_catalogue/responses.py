"""Entries of the catalogue as the administration API returns them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from toolbus_common.server_catalogue.entry import CatalogueEntry
from toolbus_common.server_catalogue.server_builder import missing_settings, server_of


class CatalogueSetting(BaseModel):
    """A value that the operator provides: a variable of the program, or `{name}` in `server`.

    The value of a secret is always a reference.
    """

    name: str
    description: str
    secret: bool
    required: bool
    default: str


class CatalogueItem(BaseModel):
    """One entry of the catalogue.

    `server` is the body of `PUT /api/v1/servers/{name}`, with a reference to an environment
    variable for each required secret. In it, `{name}` stands for each setting of `missing`, which
    has no default. `program` is true if the server runs as a process of executor; API callers can
    add such a server only where the operator allows it. `registration` says how Toolbus becomes a
    client of the server's authorization server. `grants` are suggested patterns of the server's
    tools for a first key. `source_url` is the document of the entry, and `source_date` its date.
    """

    name: str
    title: str
    publisher: str
    description: str
    topics: list[str]
    transport: Literal["http", "sse", "stdio"]
    program: bool
    version: str
    authorization: Literal["none", "key", "oauth"]
    registration: Literal["dynamic", "manual", "unknown"]
    scopes: list[str]
    settings: list[CatalogueSetting]
    missing: list[str]
    reads: list[str] | None
    writes: str | None
    grants: list[str]
    note: str
    source_url: str
    source_date: str
    server: dict[str, Any] = Field(json_schema_extra={"additionalProperties": True})


class CataloguePage(BaseModel):
    """One page of entries. `next` is the position of the next page."""

    items: list[CatalogueItem]
    next: str | None = None


def entry_response(entry: CatalogueEntry) -> CatalogueItem:
    """Return an entry with the server that it configures."""
    missing = [each.name for each in missing_settings(entry, {})]
    server = server_of(entry, {name: f"{{{name}}}" for name in missing})
    shown = entry.model_dump(mode="json")
    same = {name: shown[name] for name in CatalogueItem.model_fields if name in shown}
    return CatalogueItem(
        **same
        | {
            "authorization": entry.authorization.kind,
            "registration": entry.authorization.registration,
            "scopes": list(entry.authorization.scopes),
            "program": not entry.url,
            "version": entry.package.version if entry.package else "",
            "missing": missing,
            "source_url": entry.source.url,
            "source_date": str(entry.source.date),
            "server": server,
        }
    )
