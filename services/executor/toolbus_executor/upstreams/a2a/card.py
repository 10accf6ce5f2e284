"""Agent cards: the description that an agent publishes, in versions 1.0 and 0.3."""

from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import msgspec

from toolbus_common.a2a.protocol import BEFORE, CURRENT, JSON_RPC, Protocol
from toolbus_common.openapi.servers import origin

WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")
LARGEST_CARD = 1 << 20  # bytes
MAX_SKILLS = 200
MAX_INTERFACES = 32


class CardError(Exception):
    """A card cannot be used. The message states the reason and what to change."""


class Skill(msgspec.Struct):
    """A skill of an agent, as its card describes it."""

    id: str
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    examples: list[str] | None = None


class _Interface(msgspec.Struct):
    url: str = ""
    protocolBinding: str = ""  # noqa: N815 - the name in cards of 1.0
    transport: str = ""  # the name in cards of 0.3
    protocolVersion: str | None = None  # noqa: N815
    tenant: str | None = None


class _Capabilities(msgspec.Struct):
    streaming: bool | None = None


class _Written(msgspec.Struct):
    """The members of a card that Toolbus reads."""

    name: str
    description: str | None = None
    url: str | None = None
    preferredTransport: str | None = None  # noqa: N815
    protocolVersion: str | None = None  # noqa: N815
    additionalInterfaces: list[_Interface] | None = None  # noqa: N815
    supportedInterfaces: list[_Interface] | None = None  # noqa: N815
    capabilities: _Capabilities | None = None
    skills: list[Skill] = []


_decode = msgspec.json.Decoder(_Written).decode


@dataclass(frozen=True, slots=True)
class Interface:
    """An address that speaks A2A over JSON-RPC."""

    url: str
    protocol: Protocol
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """The parts of a card that Toolbus uses."""

    name: str
    description: str
    interface: Interface
    streams: bool
    skills: tuple[Skill, ...]
    omitted: int  # skills beyond the limit


def card_in(body: bytes, source: str, base_url: str) -> Card:
    """Return the card that was read at `source`.

    If `base_url` is set, requests to the agent go to this address. Otherwise the card's address
    must have the origin of `source`, because requests contain credentials for that origin.

    Raises:
        CardError: the card is too large, malformed, or names no usable address.

    """
    if len(body) > LARGEST_CARD:
        raise CardError(f"it has {len(body)} bytes, more than {LARGEST_CARD}; shorten it")
    try:
        written = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"it is not an agent card ({str(error)[:200]}); check the URL") from error
    interface = _chosen(_interfaces(written, source), source, base_url)
    streams = written.capabilities is not None and written.capabilities.streaming is True
    kept = tuple(written.skills[:MAX_SKILLS])
    omitted = len(written.skills) - len(kept)
    return Card(written.name, written.description or "", interface, streams, kept, omitted)


def _interfaces(written: _Written, source: str) -> list[tuple[str, Interface]]:
    """Return the transports and addresses in a card, of supported versions, the best first."""
    named = list(written.supportedInterfaces or ())
    if written.url:
        binding = written.preferredTransport or JSON_RPC
        version = written.protocolVersion or BEFORE.version
        named.append(_Interface(written.url, binding, "", version))
        named += [
            _Interface(each.url, each.transport, "", version)
            for each in written.additionalInterfaces or ()
        ]
    found = []
    for each in named[:MAX_INTERFACES]:
        protocol = _protocol(each.protocolVersion)
        address = _absolute(source, each.url)
        if address and protocol is not None:
            found.append((each.protocolBinding, Interface(address, protocol, each.tenant or "")))
    return sorted(found, key=lambda pair: pair[1].protocol is not CURRENT)


def _absolute(source: str, url: str) -> str:
    """Return the absolute URL of an interface; empty if it is invalid."""
    try:
        return urljoin(source, url) if url and urlsplit(url) else ""
    except ValueError:
        return ""


def _protocol(version: str | None) -> Protocol | None:
    major = (version or CURRENT.version).strip().partition(".")[0]
    return {"1": CURRENT, "0": BEFORE}.get(major)


def _chosen(found: list[tuple[str, Interface]], source: str, base_url: str) -> Interface:
    spoken = [each for binding, each in found if binding == JSON_RPC]
    if not spoken:
        others = ", ".join(sorted({binding[:40] for binding, _ in found})) or "nothing"
        raise CardError(
            f"it offers no JSON-RPC interface of A2A 1.0 or 0.3, only {others}; enable JSONRPC "
            "at the agent"
        )
    if base_url:
        return Interface(base_url, spoken[0].protocol, spoken[0].tenant)
    for each in spoken:
        if origin(each.url) == origin(source):
            return each
    raise CardError(
        f"it directs requests to another origin, {spoken[0].url[:200]}; set 'base_url' to that "
        "address if the requests and credentials may be sent there"
    )
