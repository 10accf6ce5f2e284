"""Validation of references: teams, customers, servers in patterns, environment variables."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from toolbus_common.access.tool_patterns import SEPARATOR
from toolbus_common.config import OWN_ISSUERS
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.config_store.loading.document import ConfigPath, ConfigProblem, Document
from toolbus_common.contracts.model_calls import SEPARATOR as MODEL_SEPARATOR
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.secrets import REFERENCE, references_in
from toolbus_common.secrets.references import ENVIRONMENT

# The fields of each section that refer to entries, and the section of those entries.
_LINKS = {
    "keys": {"team": "teams", "user": "users"},
    "users": {"customer": "customers"},
    "teams": {"customer": "customers"},
    "customers": {},
    "access": {"team": "teams"},
}
_ALMOST = re.compile(r"\$\{[^}]*\}?")
_NO_REFERENCE = (
    "has a reference that is not of the form ${env:NAME} or ${store:path#field}; the stores are "
    "file, vault, aws, gcp, azure"
)


def problems(document: Document) -> Iterator[ConfigProblem]:
    """Yield a problem for each reference to an entry that does not exist.

    Reserved names, contradictory payers and malformed secret references are problems too.
    """
    data = document.data
    for section, links in _LINKS.items():
        for name, level in _section(data, section):
            yield from _links_of(document, (section, name), level, links)
    yield from _links_of(document, ("anonymous",), _anonymous(data), _LINKS["access"])
    for section, own in (("servers", (BUILT_IN,)), ("issuers", OWN_ISSUERS)):
        for name in {*own} & {*dict(_section(data, section))}:
            yield document.problem((section, name), "is reserved for Toolbus; choose another name")
    for name in dict(_section(data, "providers")).keys() & dict(_section(data, "servers")).keys():
        message = "is also the name of a server; choose another name"
        yield document.problem(("providers", name), message)
    for path, provider in (*_targets(data), *_embeddings(data)):
        yield from _missing(document, path, provider, "providers")
    for name, key in _section(data, "keys"):
        yield from _two_payers(document, name, key)
    yield from _unknown_issuers(document)
    for path, text in _credentials_of(data):
        rest = REFERENCE.sub("", text)
        if _ALMOST.search(rest):
            yield document.problem(path, _NO_REFERENCE)


def warnings(document: Document, environ: Mapping[str, str]) -> Iterator[ConfigProblem]:
    """Yield warnings about references that are valid but are probably mistakes."""
    servers = [name for name, _ in _section(document.data, "servers")]
    for path, pattern in _patterns(document.data):
        message = _pattern_warning(pattern, servers)
        if message:
            yield document.problem(path, message)
    data = document.data
    providers = [name for name, _ in _section(data, "providers")]
    aliases = data.get("models") if isinstance(data, dict) else None
    for path, pattern in _model_patterns(data):
        if message := _model_pattern_warning(pattern, providers, aliases):
            yield document.problem(path, message)
    for path, text in _credentials_of(document.data):
        for each in sorted(references_in([text])):
            if each.store == ENVIRONMENT and each.path not in environ:
                yield document.problem(path, f"the environment has no {each.path}; set it")


def _section(data: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    section = data.get(name) if isinstance(data, dict) else None
    if not isinstance(section, dict):
        return []
    return [(key, value) for key, value in section.items() if isinstance(value, dict)]


def _anonymous(data: Any) -> dict[str, Any]:
    """Return the section `anonymous`; empty if it does not exist."""
    found = data.get("anonymous") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _targets(data: Any) -> Iterator[tuple[ConfigPath, Any]]:
    """Yield the location and the name of the provider of each target of a model alias."""
    aliases = data.get("models") if isinstance(data, dict) else None
    for alias, targets in aliases.items() if isinstance(aliases, dict) else ():
        for at, target in enumerate(targets if isinstance(targets, list) else ()):
            if isinstance(target, dict):
                yield ("models", alias, at, "provider"), target.get("provider")


def _embeddings(data: Any) -> Iterator[tuple[ConfigPath, Any]]:
    """Yield the location and the name of the provider of each embedding model of a cache."""
    for name, provider in _section(data, "providers"):
        cache = provider.get("cache")
        semantic = cache.get("semantic") if isinstance(cache, dict) else None
        model = semantic.get("embeddings") if isinstance(semantic, dict) else None
        if isinstance(model, str) and model:
            path = ("providers", name, "cache", "semantic", "embeddings")
            yield path, model.partition(MODEL_SEPARATOR)[0]


def _entry(data: Any, section: str, name: Any) -> dict[str, Any]:
    """Return one entry of a section; empty if it does not exist."""
    entries = data.get(section)
    entry = entries.get(name) if isinstance(entries, dict) and isinstance(name, str) else None
    return entry if isinstance(entry, dict) else {}


def _links_of(
    document: Document, path: ConfigPath, level: dict[str, Any], links: dict[str, str]
) -> Iterator[ConfigProblem]:
    """Yield a problem for each entry that a level refers to and that does not exist."""
    for field, target in links.items():
        yield from _missing(document, (*path, field), level.get(field), target)
    groups = level.get("groups")
    for at, group in enumerate(groups if isinstance(groups, list) else ()):
        yield from _missing(document, (*path, "groups", at), group, "groups")


def _unknown_issuers(document: Document) -> Iterator[ConfigProblem]:
    """Yield a problem for each unknown issuer in access rules and OAuth settings."""
    for name, rule in _section(document.data, "access"):
        if rule.get("issuer") not in (None, *OWN_ISSUERS):
            yield from _missing(document, ("access", name, "issuer"), rule["issuer"], "issuers")
    for name, server in _section(document.data, "servers"):
        oauth = server.get("oauth")
        provider = oauth.get("provider") if isinstance(oauth, dict) else None
        yield from _missing(document, ("servers", name, "oauth", "provider"), provider, "issuers")


def _two_payers(document: Document, name: str, key: dict[str, Any]) -> Iterator[ConfigProblem]:
    """Yield a problem if the team and the user of a key belong to different customers."""
    payers = [
        _entry(document.data, section, key.get(field)).get("customer")
        for field, section in _LINKS["keys"].items()
    ]
    if all(payers) and payers[0] != payers[1]:
        yield document.problem(
            ("keys", name),
            f"has a team of the customer '{payers[0]}' and a user of '{payers[1]}', but only one "
            "customer can pay; move one of them",
        )


def _missing(
    document: Document, path: ConfigPath, wanted: Any, section: str
) -> Iterator[ConfigProblem]:
    if not isinstance(wanted, str) or not wanted:
        return
    noun = section.removesuffix("s")
    known = document.data.get(section)
    known = known if isinstance(known, dict) else {}
    if wanted in known:
        return
    close = get_close_matches(wanted, list(known), n=1)
    fix = f"did you mean '{close[0]}'?" if close else f"add it under {section}"
    yield document.problem(path, f"no {noun} '{wanted}' is configured; {fix}")


def _patterns(data: Any) -> Iterator[tuple[ConfigPath, str]]:
    yield from _level_patterns(data, ("tools", "deny", "approve", "auto_execute"))
    for section in ("prices", "labels"):
        priced = data.get(section) if isinstance(data, dict) else None
        for pattern in priced if isinstance(priced, dict) else []:
            yield (section, pattern), str(pattern)


def _model_patterns(data: Any) -> Iterator[tuple[ConfigPath, str]]:
    yield from _level_patterns(data, ("models",))
    for pattern, _ in _section(data, "model_prices"):
        yield ("model_prices", pattern), str(pattern)
    for name, server in _section(data, "servers"):
        sampling = server.get("sampling")
        model = sampling.get("model") if isinstance(sampling, dict) else None
        if isinstance(model, str):
            yield ("servers", name, "sampling", "model"), model


def _level_patterns(data: Any, fields: tuple[str, ...]) -> Iterator[tuple[ConfigPath, str]]:
    """Yield the location and the text of each pattern in these fields of the levels."""
    levels: list[tuple[ConfigPath, dict[str, Any]]] = [(("anonymous",), _anonymous(data))]
    for section in (*_LINKS, "groups"):
        levels += [((section, name), level) for name, level in _section(data, section)]
    for path, level in levels:
        for field in fields:
            patterns = level.get(field)
            for at, pattern in enumerate(patterns if isinstance(patterns, list) else []):
                if isinstance(pattern, str):
                    yield (*path, field, at), pattern


def _model_pattern_warning(pattern: str, providers: list[str], aliases: Any) -> str:
    provider, separator, _ = pattern.partition(MODEL_SEPARATOR)
    if any(sign in provider for sign in "*?[") or (separator and provider in providers):
        return ""
    names = [*providers, *aliases] if isinstance(aliases, dict) else providers
    if not separator and pattern in names and pattern not in providers:
        return ""
    close = get_close_matches(provider, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"'{pattern}' matches no model: a model is named by its alias or provider/model{hint}"


def _pattern_warning(pattern: str, servers: list[str]) -> str:
    server, separator, _ = pattern.partition(SEPARATOR)
    if not separator:
        if any(sign in pattern for sign in "*?["):
            return ""
        return f"'{pattern}' matches no tool: tools are named server__tool"
    if any(fnmatchcase(name, server) for name in servers):
        return ""
    close = get_close_matches(server, servers, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"'{pattern}' names the server '{server}', which is not configured{hint}"


def _credentials_of(data: Any) -> Iterator[tuple[ConfigPath, str]]:
    for section in ("servers", "providers", "guards", "exports", "sinks", "evidence"):
        for name, entry in _section(data, section):
            for field in CREDENTIALS:
                values = entry.get(field)
                for key, text in values.items() if isinstance(values, dict) else ():
                    if isinstance(text, str):
                        yield (section, name, field, key), text
