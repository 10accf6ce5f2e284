"""Servers that tell of changed resources though nobody subscribed: who hears of it."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.family_gateway import start_session
from harness.gateway.launched_gateway import Launched
from harness.upstreams import scripted_server

READER, OTHER = (f"tbk_{name}_e2e-secret-for-unasked-news" for name in ("reader", "other"))
SHARED, OWN = ("pipe", "classic", "modern"), "own"
UPDATED = "notifications/resources/updated"


def closed(server: str) -> str:
    """A resource of a server that one of the keys may not read."""
    return f"odd://{server}/closed"


def opened(server: str) -> str:
    """A resource of a server that both keys may read."""
    return f"odd://{server}/opened"


def told(server: str) -> dict[str, Any]:
    """What a server lists, and what it says in each call of its tool."""
    uris = [closed(server), opened(server)]
    lists = {
        "tools": [{"name": "touch", "inputSchema": {"type": "object"}}],
        "resources": [{"uri": uri, "name": uri} for uri in uris],
    }
    return {"lists": lists, "announces": {"touch": uris}}


def process(directory: Path, server: str, **more: Any) -> dict[str, Any]:
    """A server on stdio, as it is declared."""
    source, stored = Path(scripted_server.__file__), directory / f"{server}.json"
    stored.write_text(json.dumps(told(server)))
    command = [sys.executable, str(source), str(stored)]
    return {"command": command, "files": {"read": [str(source), str(stored)]}, **more}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A gateway over servers of every transport, and a key that may read half of all resources."""
    directory = tmp_path_factory.mktemp("unasked")
    with ExitStack() as stack:
        servers = {
            "pipe": process(directory, "pipe", sessions="shared"),
            "own": process(directory, "own"),
            "classic": {
                "url": stack.enter_context(scripted_server.serving(told("classic"), modern=False))
            },
            "modern": {"url": stack.enter_context(scripted_server.serving(told("modern")))},
        }
        keys = {
            "reader": {"secret": READER, "tools": ["*"]},
            "other": {"secret": OTHER, "tools": ["*__touch", "*/opened"]},
        }
        made = Launched(directory)
        stack.callback(made.stop)
        made.configure({"servers": servers, "keys": keys})
        made.start()
        for secret in (READER, OTHER):
            made.until_listed(made.client(secret), *(f"{each}__touch" for each in servers))
        yield made


def at(launched: Launched, secret: str, path: str = "") -> Client:
    """A client of the shared endpoint, or of that of one server."""
    client = launched.client(secret)
    return Client(f"{client.endpoint}{path}", secret)


def session_of(client: Client) -> Events:
    """What a session of the handshake family hears that subscribed to nothing."""
    return Events(client, Mcp_Session_Id=start_session(client))


def heard(stream: Events, most: int) -> list[str]:
    """The resources that a session is told of, so many."""
    return [stream.until(UPDATED)["params"]["uri"] for _ in range(most)]


@pytest.mark.parametrize("endpoint", ["shared", "own"])
@pytest.mark.parametrize("server", SHARED)
@pytest.mark.parametrize("caller", [READER, OTHER], ids=["reader", "other"])
def test_a_change_nobody_subscribed_to_reaches_the_sessions_that_may_read_the_resource(
    launched: Launched, server: str, caller: str, endpoint: str
) -> None:
    path = f"/{server}" if endpoint == "own" else ""
    with (
        session_of(at(launched, READER, path)) as one,
        session_of(at(launched, READER, path)) as two,
        session_of(at(launched, OTHER, path)) as less,
    ):
        assert json.loads(launched.client(caller).call(f"{server}__touch").text) == ["touch", {}]
        for stream in (one, two):
            assert heard(stream, 2) == [closed(server), opened(server)]
        # The closed one was announced before: had it been told, it would be the first.
        assert heard(less, 1) == [opened(server)]


def test_a_change_told_in_a_session_of_its_own_reaches_its_owner_alone(launched: Launched) -> None:
    with (
        session_of(launched.client(READER)) as reader,
        session_of(launched.client(OTHER)) as other,
    ):
        assert not launched.client(READER).call(f"{OWN}__touch").code
        assert heard(reader, 2) == [closed(OWN), opened(OWN)]
        # Of what comes later to everybody, the other hears; of the owner's news it did not.
        assert not launched.client(OTHER).call("pipe__touch").code
        assert heard(other, 1) == [opened("pipe")]


def test_a_change_at_one_server_is_not_told_at_the_endpoint_of_another(launched: Launched) -> None:
    with session_of(at(launched, READER, "/modern")) as stream:
        for server in ("classic", "modern"):
            assert not launched.client(READER).call(f"{server}__touch").code
        assert heard(stream, 2) == [closed("modern"), opened("modern")]
