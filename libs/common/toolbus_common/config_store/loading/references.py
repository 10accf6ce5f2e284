"""Names that must lead somewhere: teams, customers, servers in patterns, environment variables."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from toolbus_common.access.tool_patterns import SEPARATOR
from toolbus_common.config import OWN_ISSUERS
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.config_store.loading.document import ConfigProblem, Document, Place
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.secrets import REFERENCE, references_in
from toolbus_common.secrets.references import ENVIRONMENT

# What each kind of level names, and the section that is declared in.
_LINKS = {
    "keys": {"team": "teams", "user": "users"},
    "users": {"customer": "customers"},
    "teams": {"customer": "customers"},
    "customers": {},
    "access": {"team": "teams"},
}
_ALMOST = re.compile(r"\$\{[^}]*\}?")
_NO_REFERENCE = (
    "holds a reference that is not of the form ${env:NAME} or ${store:path#field}; the stores are "
    "file, vault, aws, gcp, azure"
)


def faults(document: Document) -> Iterator[ConfigProblem]:
    """References that lead nowhere."""
    data = document.data
    for section, links in _LINKS.items():
        for name, thing in _section(data, section):
            yield from _links_of(document, (section, name), thing, links)
    yield from _links_of(document, ("anonymous",), _nobody(data), _LINKS["access"])
    for section, own in (("servers", (BUILT_IN,)), ("issuers", OWN_ISSUERS)):
        for name in {*own} & {*dict(_section(data, section))}:
            yield document.fault((section, name), "is Toolbus' own name; give it another")
    for name, key in _section(data, "keys"):
        yield from _two_payers(document, name, key)
    yield from _unknown_issuers(document)
    for place, text in _credentials_of(data):
        rest = REFERENCE.sub("", text)
        if _ALMOST.search(rest):
            yield document.fault(place, _NO_REFERENCE)


def warnings(document: Document, environ: Mapping[str, str]) -> Iterator[ConfigProblem]:
    """What is allowed but probably not meant."""
    servers = [name for name, _ in _section(document.data, "servers")]
    for place, pattern in _patterns(document.data):
        said = _about(pattern, servers)
        if said:
            yield document.fault(place, said)
    for place, text in _credentials_of(document.data):
        for each in sorted(references_in([text])):
            if each.store == ENVIRONMENT and each.path not in environ:
                yield document.fault(place, f"the environment has no {each.path}; set it")


def _section(data: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    section = data.get(name) if isinstance(data, dict) else None
    if not isinstance(section, dict):
        return []
    return [(key, value) for key, value in section.items() if isinstance(value, dict)]


def _nobody(data: Any) -> dict[str, Any]:
    """What is declared for callers without a credential."""
    found = data.get("anonymous") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _entry(data: Any, section: str, name: Any) -> dict[str, Any]:
    """One entry of a section; empty when it is not there."""
    entries = data.get(section)
    entry = entries.get(name) if isinstance(entries, dict) and isinstance(name, str) else None
    return entry if isinstance(entry, dict) else {}


def _links_of(
    document: Document, place: Place, thing: dict[str, Any], links: dict[str, str]
) -> Iterator[ConfigProblem]:
    """What a level names that nobody declared."""
    for field, target in links.items():
        yield from _lost(document, (*place, field), thing.get(field), target)
    groups = thing.get("groups")
    for at, group in enumerate(groups if isinstance(groups, list) else ()):
        yield from _lost(document, (*place, "groups", at), group, "groups")


def _unknown_issuers(document: Document) -> Iterator[ConfigProblem]:
    """Rules for people nobody vouches for, and servers where nobody vouches for people."""
    for name, rule in _section(document.data, "access"):
        if rule.get("issuer") not in (None, *OWN_ISSUERS):
            yield from _lost(document, ("access", name, "issuer"), rule["issuer"], "issuers")
    for name, server in _section(document.data, "servers"):
        oauth = server.get("oauth")
        provider = oauth.get("provider") if isinstance(oauth, dict) else None
        yield from _lost(document, ("servers", name, "oauth", "provider"), provider, "issuers")


def _two_payers(document: Document, name: str, key: dict[str, Any]) -> Iterator[ConfigProblem]:
    """A key whose team and user belong to different customers: nobody knows who pays."""
    payers = [
        _entry(document.data, section, key.get(field)).get("customer")
        for field, section in _LINKS["keys"].items()
    ]
    if all(payers) and payers[0] != payers[1]:
        yield document.fault(
            ("keys", name),
            f"has a team of the customer '{payers[0]}' and a user of '{payers[1]}'; one must pay",
        )


def _lost(document: Document, place: Place, wanted: Any, section: str) -> Iterator[ConfigProblem]:
    if not isinstance(wanted, str) or not wanted:
        return
    noun = section.removesuffix("s")
    known = document.data.get(section)
    known = known if isinstance(known, dict) else {}
    if wanted in known:
        return
    close = get_close_matches(wanted, list(known), n=1)
    mend = f"did you mean '{close[0]}'?" if close else f"declare it under {section}"
    yield document.fault(place, f"no {noun} '{wanted}' is declared; {mend}")


def _patterns(data: Any) -> Iterator[tuple[Place, str]]:
    things: list[tuple[Place, dict[str, Any]]] = [(("anonymous",), _nobody(data))]
    for section in (*_LINKS, "groups"):
        things += [((section, name), thing) for name, thing in _section(data, section)]
    for place, thing in things:
        for field in ("tools", "deny", "approve", "auto_execute"):
            patterns = thing.get(field)
            for at, pattern in enumerate(patterns if isinstance(patterns, list) else []):
                if isinstance(pattern, str):
                    yield (*place, field, at), pattern
    for section in ("prices", "labels"):
        priced = data.get(section) if isinstance(data, dict) else None
        for pattern in priced if isinstance(priced, dict) else []:
            yield (section, pattern), str(pattern)


def _about(pattern: str, servers: list[str]) -> str:
    server, separator, _ = pattern.partition(SEPARATOR)
    if not separator:
        if any(sign in pattern for sign in "*?["):
            return ""
        return f"'{pattern}' covers no tool: tools are named server__tool"
    if any(fnmatchcase(name, server) for name in servers):
        return ""
    close = get_close_matches(server, servers, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"'{pattern}' names the server '{server}', which is not declared{hint}"


def _credentials_of(data: Any) -> Iterator[tuple[Place, str]]:
    for section in ("servers", "exports", "sinks", "evidence"):
        for name, entry in _section(data, section):
            for field in CREDENTIALS:
                values = entry.get(field)
                for key, text in values.items() if isinstance(values, dict) else ():
                    if isinstance(text, str):
                        yield (section, name, field, key), text
