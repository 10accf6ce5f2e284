"""Choice of the address and the protocol version of an agent card."""

import json
from typing import Any

import pytest

from toolbus_common.a2a.protocol import BEFORE, CURRENT, Protocol
from toolbus_executor.upstreams.a2a.card import CardError, card_in

SOURCE = "https://agent.example/a"


def interface(url: str, version: str, binding: str = "JSONRPC") -> dict[str, str]:
    return {"url": url, "protocolBinding": binding, "protocolVersion": version}


def chosen(base_url: str = "", **members: Any) -> tuple[str, Protocol]:
    found = card_in(json.dumps({"name": "n", **members}).encode(), SOURCE, base_url).interface
    return found.url, found.protocol


OWN = "https://agent.example/rpc"


@pytest.mark.parametrize(
    ("members", "protocol"),
    [
        ({"supportedInterfaces": [interface(OWN, "1.0")]}, CURRENT),
        ({"supportedInterfaces": [interface("/rpc", "1.0.2")]}, CURRENT),
        ({"supportedInterfaces": [interface(OWN, "0.3"), interface(OWN, "1.0")]}, CURRENT),
        ({"supportedInterfaces": [interface(OWN, "2.0"), interface(OWN, "0.3")]}, BEFORE),
        ({"supportedInterfaces": [interface("https://x.example", "1.0"), interface(OWN, "0.3")]},
         BEFORE),
        ({"url": OWN, "protocolVersion": "0.3.0"}, BEFORE),
        ({"url": OWN}, BEFORE),
        ({"url": "https://agent.example/g", "preferredTransport": "GRPC",
          "additionalInterfaces": [{"url": OWN, "transport": "JSONRPC"}]}, BEFORE),
        ({"url": "HTTPS://AGENT.example:443/rpc"}, BEFORE),
    ],
)  # fmt: skip
def test_the_best_address_of_the_own_origin_is_chosen(
    members: dict[str, Any], protocol: Protocol
) -> None:
    url, found = chosen(**members)
    assert url.lower().replace(":443", "") == OWN
    assert found is protocol


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"supportedInterfaces": [interface(OWN, "1.0", "GRPC")]}, "only GRPC"),
        ({"supportedInterfaces": [interface(OWN, "2.0")]}, "only nothing"),
        ({"url": "http://agent.example/rpc"}, "another origin, http://agent.example/rpc"),
        ({"url": "https://agent.example.evil/"}, "another origin"),
        ({"url": "https://agent.example@evil.example/"}, "another origin"),
        ({"url": "//evil.example/"}, "another origin"),
        ({"url": "https://[agent.example/"}, "only nothing"),
    ],
)
def test_a_card_without_such_an_address_cannot_be_used(members: dict[str, Any], why: str) -> None:
    with pytest.raises(CardError, match=why):
        chosen(**members)


def test_base_url_replaces_the_address_of_the_card() -> None:
    assert chosen("https://b.example/", url="https://c.example/") == ("https://b.example/", BEFORE)
