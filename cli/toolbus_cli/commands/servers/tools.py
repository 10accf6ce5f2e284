"""Command that lists tools as an agent sees them."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from msgspec import convert, to_builtins

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import show_json, show_table
from toolbus_cli.commands.repository import at_work
from toolbus_cli.errors import CommandError
from toolbus_common.access.principal import EffectiveGrants, exposed, principal_of
from toolbus_common.access.tool_names import Names
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration, Server
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import Listing
from toolbus_common.contracts.records.pin_names import PINNED
from toolbus_common.flow.labels import Labels, labels_of_tool
from toolbus_common.nats.topology import CATALOGUE

LONGEST_SHOWN = 70


def tools(
    *,
    as_key: Annotated[str, typer.Option("--as", help="Show only tools this key can see.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Include hidden tools, with the reason.")
    ] = False,
    quarantined: Annotated[
        bool,
        typer.Option(
            "--quarantined", help="Show only quarantined and repaired definitions, with the reason."
        ),
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the tools of every server, or only the tools that a key can see.

    The columns reads and writes are the labels of information flow; a `?` marks a guess.
    """

    async def work(
        repository: ConfigRepository,
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        configuration = (await repository.declared()).configuration
        listings = await _listings(repository, configuration)
        names = Names(listings, configuration.servers)
        if quarantined:
            return _repaired(listings), _held_back(listings)
        bounds = await _bounds(repository, as_key, configuration) if as_key else EffectiveGrants(())
        servers = configuration.servers
        seen = [
            tool
            for listing in listings
            for tool in _seen(listing, bounds, names, servers[listing.server])
        ]
        unseen = _unseen(listings, configuration, names) if everything else []
        return sorted(seen, key=lambda tool: str(tool["name"])), unseen

    found, unseen = at_work(state_dir, work)
    if as_json:
        show_json([*found, *unseen])
        return
    if quarantined:
        why = [(each["name"], f"hidden: {each['hidden']}") for each in unseen]
        rows = [(tool["name"], _text(tool)) for tool in found]
        show_table(("name", "why"), [*rows, *why], "No tool.")
        return
    shown = [(tool["name"], *_flow(tool), _text(tool)) for tool in found]
    shown += [(tool["name"], "", "", f"hidden: {tool['hidden']}") for tool in unseen]
    show_table(("tool", "reads", "writes", "description"), shown, "No tool.")


async def _listings(repository: ConfigRepository, configuration: Configuration) -> list[Listing]:
    bucket = await repository.bus.bucket(CATALOGUE)
    found = []
    for server in sorted(configuration.servers):
        entry = await bucket.get(server)
        if entry is not None and entry.value is not None:
            found.append(Listing.decode(entry.value))
    return found


async def _bounds(
    repository: ConfigRepository, name: str, configuration: Configuration
) -> EffectiveGrants:
    """Return a key's effective grants, computed with its user, team and customer."""
    key = await repository.own_key(name) or configuration.keys.get(name)
    if key is None:
        raise CommandError(f"There is no key '{name}'; 'toolbus keys list' shows all keys.")
    if key.revoked:
        raise CommandError(
            f"The key '{name}' is revoked and sees no tool; 'toolbus keys rotate {name}' "
            "enables it again."
        )
    return principal_of(name, key, configuration, exposed(configuration)).bounds


def _seen(
    listing: Listing, bounds: EffectiveGrants, names: Names, server: Server
) -> Iterator[dict[str, Any]]:
    """Yield the tools of a server as agents see them, with their labels.

    Grants are matched against the tool names that the server uses, not against aliases.
    """
    for tool in listing.tools:
        own = full_name(listing.server, tool.name)
        seen = names.shown("tools", listing.server, tool.name)
        if seen and seen.full and bounds.cover(own):
            described = {"description": seen.description} if seen.description else {}
            labels = to_builtins(labels_of_tool(server, tool.name, tool.as_sent))
            yield {**tool.definition, "name": seen.full, **described, "flow": labels}


def _unseen(
    listings: list[Listing], configuration: Configuration, names: Names
) -> list[dict[str, str]]:
    """Return hidden tools with the reason; the names are the names that the servers use."""
    found = {
        full_name(server, own): reason
        for (kind, server, own), reason in (names.dropped | names.crowded).items()
        if kind == "tools"
    }
    found |= {each["name"]: each["hidden"] for each in _held_back(listings, ("tools",))}
    for listing in listings:
        views = configuration.servers[listing.server].tools
        found |= {
            full_name(listing.server, tool.name): "hidden by the configuration"
            for tool in listing.tools
            if tool.name in views and views[tool.name].hidden
        }
    return [{"name": name, "hidden": found[name]} for name in sorted(found)]


def _held_back(listings: list[Listing], kinds: tuple[str, ...] = PINNED) -> list[dict[str, str]]:
    """Return unreadable and quarantined definitions, with the reason."""
    found: dict[str, str] = {}
    for listing in listings:
        found |= {full_name(listing.server, own): why for own, why in listing.dropped.items()}
        found |= {
            full_name(listing.server, each.name): f"quarantined: {each.why}"
            for each in listing.quarantined
            if each.kind in kinds
        }
    return [{"name": name, "hidden": found[name]} for name in sorted(found)]


def _repaired(listings: list[Listing]) -> list[dict[str, Any]]:
    """Return the definitions that were repaired so that clients can read them."""
    kinds = ("tools", "prompts", "resources", "templates")
    found = {
        full_name(listing.server, each.name): each.repaired
        for listing in listings
        for kind in kinds
        for each in getattr(listing, kind)
        if each.repaired
    }
    return [{"name": name, "repaired": found[name]} for name in sorted(found)]


def _flow(tool: dict[str, Any]) -> tuple[str, str]:
    return convert(tool["flow"], Labels).shown


def _text(tool: dict[str, Any]) -> str:
    if "repaired" in tool:
        return f"repaired: {tool['repaired']}"
    return _first_line(str(tool.get("description") or ""))


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 1] + "…"
