"""Selection of entries: from the catalogue that comes with Toolbus, or from an MCP registry."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from toolbus_cli.catalogue import registry_documents, registry_source
from toolbus_cli.errors import CommandError
from toolbus_common.server_catalogue.catalogue import entries, matching
from toolbus_common.server_catalogue.entry import CatalogueEntry


def found(text: str, registry: str = "") -> list[CatalogueEntry]:
    """Return the entries that match a text, best first. Raises `CommandError`."""
    if not registry:
        return matching(entries().values(), text)
    listed: dict[str, CatalogueEntry] = {}
    for server in _servers(registry, search=text):
        usable, _ = registry_documents.entries_of(server, registry)
        if usable and _matches(server, text):
            name = str(server["name"])
            listed[name] = usable[0].model_copy(update={"title": name})
    return list(listed.values())


def chosen(name: str, registry: str = "", version: str = "", transport: str = "") -> CatalogueEntry:
    """Return one entry, at its version.

    Raises:
        CommandError: there is no such entry, or no version that can be pinned.

    """
    if not registry:
        return _with_version(_own(name), version)
    servers = [
        each
        for each in _servers(registry, name=name, version=version)
        if each["name"] == name and version in ("", registry_documents.version_of(each))
    ]
    if not servers:
        wanted = f" at version {version}" if version else ""
        raise CommandError(
            f"The registry has no server '{name}'{wanted}; 'toolbus catalogue search TEXT "
            f"--registry {registry}' lists its servers."
        )
    server = max(servers, key=registry_documents.is_latest)
    usable, problems = registry_documents.entries_of(server, registry)
    fitting = [each for each in usable if transport in ("", each.transport)]
    if not fitting:
        reasons = "; ".join(problems) or f"it has no transport {transport}"
        raise CommandError(f"'{name}' cannot be added: {reasons}.")
    return fitting[0]


def _own(name: str) -> CatalogueEntry:
    known = entries()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 3)
    hint = f"did you mean {', '.join(near)}?" if near else "'toolbus catalogue search' lists all."
    raise CommandError(f"The catalogue has no entry '{name[:64]}'; {hint}")


def _with_version(entry: CatalogueEntry, version: str) -> CatalogueEntry:
    """Return the entry with another version of its package, checked like the entry's own."""
    if not version:
        return entry
    if entry.package is None:
        raise CommandError(f"'{entry.name}' is a URL, which has no version; omit --version.")
    package = entry.package.model_dump() | {"version": version}
    try:
        return CatalogueEntry.model_validate(entry.model_dump() | {"package": package})
    except ValueError as error:
        raise CommandError(
            f"'{version[:64]}' is not one version; write it as in {entry.package.version}."
        ) from error


def _servers(source: str, **query: str) -> Iterable[Mapping[str, Any]]:
    for document in registry_source.documents(source, **query):
        yield from registry_documents.servers_of(document)


def _matches(server: Mapping[str, Any], text: str) -> bool:
    shown = f"{server['name']} {server.get('title', '')} {server.get('description', '')}".lower()
    return all(word in shown for word in text.lower().split())
