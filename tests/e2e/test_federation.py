"""Gateways of one company: a hub shows the tools of its sites, and each call is made by its caller.

The hub issues a token for each caller and site. The site decides with its own rules.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest

from harness.engines.engine import installed
from harness.gateway.launched_gateway import Launched
from harness.network.json_server import Request, Response, answering
from harness.waits import until_blocking

ANN, BOT, GUEST = (f"tbk_{name}_e2e-secret-of-the-federation" for name in ("ann", "bot", "guest"))
ZONE = {"timezone": "Europe/Oslo"}
NOON = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Europe/Oslo"}
NOW, CONVERT = "time__get_current_time", "time__convert_time"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class Company:
    """A hub and two sites, each an installation of its own."""

    hub: Launched
    oslo: Launched
    rome: Launched
    configuration: dict[str, Any]  # of the hub


def site(hub: Launched) -> dict[str, Any]:
    return {
        "servers": {"time": {"command": ["mcp-server-time", "--local-timezone", "UTC"]}},
        "issuers": {"hq": {"url": url_of(hub), "algorithms": ["ES256"]}},
        "access": {
            "listing": {"issuer": "hq", "claims": {"sub": url_of(hub)}, "tools": ["time__*"]},
            "engineers": {"issuer": "hq", "claims": {"team": "research"}, "tools": [NOW, CONVERT]},
            "others": {"issuer": "hq", "tools": [CONVERT]},
        },
    }


def url_of(gateway: Launched) -> str:
    return f"http://127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    programs = Path(installed("mcp-server-time")).parent
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    hub, oslo, rome = (
        Launched(tmp_path_factory.mktemp(name), PATH=path) for name in ("hub", "oslo", "rome")
    )
    sites = {
        name: {"url": f"{url_of(each)}/mcp", "oauth": {"grant": "issued"}}
        for name, each in (("oslo", oslo), ("rome", rome))
    }
    everything = {"tools": ["oslo__*", "rome__*"]}
    configuration = {
        "servers": sites,
        "customers": {"acme": {}},
        "teams": {"research": {"customer": "acme"}},
        "users": {"ann": {}},
        "prices": {"oslo__*": 0.01},
        "keys": {
            "ann": {
                "secret": ANN,
                "user": "ann",
                "team": "research",
                "budget": {"usd": 1, "per": "day"},
                **everything,
            },
            "bot": {"secret": BOT, **everything},
            "guest": {"secret": GUEST, "tools": [f"rome__{CONVERT}"]},
        },
    }
    with (
        hub.running({}),
        oslo.running(site(hub)),
        rome.running(site(hub)),
    ):
        hub.configure(configuration)
        hub.until_listed(hub.client(BOT), f"oslo__{NOW}", f"rome__{NOW}")
        yield Company(hub, oslo, rome, configuration)


def test_a_call_is_made_in_the_name_of_its_caller_with_one_trace(company: Company) -> None:
    answer = company.hub.client(ANN).request(
        "tools/call", {"name": f"oslo__{NOW}", "arguments": ZONE}, traceparent=TRACE
    )
    assert "Europe/Oslo" in answer.text
    rows = [
        gateway.eventual_rows(
            "SELECT tool, key, user, charge FROM events "
            f"WHERE event = 'call.completed' AND trace_id = '{TRACE.split('-')[1]}'"
        )[0]
        for gateway in (company.hub, company.oslo)
    ]
    assert [row["tool"] for row in rows] == [NOW, "get_current_time"]
    assert [row["key"].partition(":")[0] for row in rows] == ["ann", "engineers"]
    assert [row["charge"] for row in rows] == [10_000, 0]  # each charges its own price


def test_the_site_decides_after_the_hub_with_its_own_rules(company: Company) -> None:
    bot, guest = company.hub.client(BOT), company.hub.client(GUEST)
    assert bot.call(f"oslo__{NOW}", ZONE).code == "unknown_tool"  # a key without a team
    assert "Europe/Oslo" in bot.call(f"oslo__{CONVERT}", NOON).text
    assert "Europe/Oslo" in guest.call(f"rome__{CONVERT}", NOON).text
    assert not guest.sees(f"oslo__{CONVERT}")


def test_a_site_cannot_use_the_token_that_it_receives(company: Company) -> None:
    received: list[str] = []

    def hostile(request: Request) -> Response:
        received.append(request.headers.get("authorization", ""))
        return Response(404)

    with answering(hostile) as port:
        address = f"http://127.0.0.1:{port}/mcp"
        declared = {**company.configuration, "servers": dict(company.configuration["servers"])}
        declared["servers"]["evil"] = {"url": address, "oauth": {"grant": "issued"}}
        company.hub.configure(declared)
        until_blocking(lambda: any(received), "a token")
        company.hub.configure(company.configuration)
    token = next(each for each in received if each).removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    hub = url_of(company.hub)
    assert (claims["iss"], claims["sub"], claims["aud"]) == (hub, hub, address)
    assert claims["exp"] - claims["iat"] <= 300
    for gateway in (company.hub, company.oslo, company.rome):
        assert gateway.client(token).request("tools/list").status == 401


def test_a_site_that_is_away_fails_alone_and_comes_back(company: Company) -> None:
    bot = company.hub.client(BOT)
    company.oslo.stop()
    assert bot.call(f"oslo__{CONVERT}", NOON).error["data"]["code"] != "unknown_tool"
    assert "Europe/Oslo" in bot.call(f"rome__{CONVERT}", NOON).text
    company.oslo.start()
    until_blocking(lambda: b"Europe/Oslo" in bot.call(f"oslo__{CONVERT}", NOON).body, "oslo")
