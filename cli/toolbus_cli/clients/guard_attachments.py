"""The levels and entries of a configuration that attach a guard (no I/O)."""

from collections.abc import Iterator, Mapping

from toolbus_common.config import Configuration, Key
from toolbus_common.guards.attachment import ALWAYS


def attachments(
    configuration: Configuration, own_keys: Mapping[str, Key]
) -> dict[str, tuple[str, ...]]:
    """Return what attaches each configured guard, such as `customer:acme` or `tool:docs__find`."""
    found: dict[str, list[str]] = {name: [] for name in configuration.guards}
    for place, guards in _places(configuration, own_keys):
        for name in guards:
            found.setdefault(name, []).append(place)
    return {
        name: (
            (ALWAYS,) if name in configuration.guards and configuration.guards[name].always else ()
        )
        + tuple(places)
        for name, places in found.items()
    }


def _places(
    configuration: Configuration, own_keys: Mapping[str, Key]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    levels: dict[str, Mapping[str, object]] = {
        "customer": configuration.customers,
        "team": configuration.teams,
        "user": configuration.users,
        "key": {**configuration.keys, **own_keys},
        "access": configuration.access,
        "group": configuration.groups,
        "server": configuration.servers,
        "provider": configuration.providers,
        "anonymous": {"": configuration.anonymous},
    }
    for kind, entries in levels.items():
        for name, entry in entries.items():
            yield f"{kind}:{name}".removesuffix(":"), getattr(entry, "guards", ())
    for name, server in configuration.servers.items():
        for tool, view in server.tools.items():
            yield f"tool:{name}__{tool}", view.guards
    for pattern, guards in configuration.model_guards.items():
        yield f"model:{pattern}", guards
