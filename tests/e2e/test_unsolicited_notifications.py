"""Unsolicited notifications of changed resources: which sessions receive them."""

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
    """Return a resource of a server that one of the keys may not read."""
    return f"odd://{server}/closed"


def opened(server: str) -> str:
    """Return a resource of a server that both keys may read."""
    return f"odd://{server}/opened"


def definitions_of(server: str) -> dict[str, Any]:
    """Return the definitions of a server, and its notifications during each call."""
    uris = [closed(server), opened(server)]
    lists = {
        "tools": [{"name": "touch", "inputSchema": {"type": "object"}}],
        "resources": [{"uri": uri, "name": uri} for uri in uris],
    }
    return {"lists": lists, "announces": {"touch": uris}}


def process(directory: Path, server: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of a server on stdio."""
    source, stored = Path(scripted_server.__file__), directory / f"{server}.json"
    stored.write_text(json.dumps(definitions_of(server)))
    command = [sys.executable, str(source), str(stored)]
    return {"command": command, "files": {"read": [str(source), str(stored)]}, **more}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run a gateway with servers of every transport, and a key for half of all resources."""
    directory = tmp_path_factory.mktemp("unasked")
    with ExitStack() as stack:
        servers = {
            "pipe": process(directory, "pipe", sessions="shared"),
            "own": process(directory, "own"),
            "classic": {
                "url": stack.enter_context(
                    scripted_server.serving(definitions_of("classic"), modern=False)
                )
            },
            "modern": {
                "url": stack.enter_context(scripted_server.serving(definitions_of("modern")))
            },
        }
        keys = {
            "reader": {"secret": READER, "tools": ["*"]},
            "other": {"secret": OTHER, "tools": ["*__touch", "*/opened"]},
        }
        gateway = Launched(directory)
        stack.callback(gateway.stop)
        gateway.configure({"servers": servers, "keys": keys})
        gateway.start()
        for secret in (READER, OTHER):
            gateway.until_listed(gateway.client(secret), *(f"{each}__touch" for each in servers))
        yield gateway


def at(launched: Launched, secret: str, path: str = "") -> Client:
    """Return a client of the shared endpoint, or of that of one server."""
    client = launched.client(secret)
    return Client(f"{client.endpoint}{path}", secret)


def session_of(client: Client) -> Events:
    """Open the stream of a session without subscriptions."""
    return Events(client, Mcp_Session_Id=start_session(client))


def next_updates(stream: Events, maximum: int) -> list[str]:
    """Return the next changed resources of a session's stream."""
    return [stream.until(UPDATED)["params"]["uri"] for _ in range(maximum)]


@pytest.mark.parametrize("endpoint", ["shared", "own"])
@pytest.mark.parametrize("server", SHARED)
@pytest.mark.parametrize("caller", [READER, OTHER], ids=["reader", "other"])
def test_an_unsolicited_change_reaches_the_sessions_that_may_read_the_resource(
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
            assert next_updates(stream, 2) == [closed(server), opened(server)]
        # The closed resource was announced first: a notification about it would come before.
        assert next_updates(less, 1) == [opened(server)]


def test_a_change_announced_in_a_private_session_reaches_its_owner_only(launched: Launched) -> None:
    with (
        session_of(launched.client(READER)) as reader,
        session_of(launched.client(OTHER)) as other,
    ):
        assert not launched.client(READER).call(f"{OWN}__touch").code
        assert next_updates(reader, 2) == [closed(OWN), opened(OWN)]
        # The other session receives only the later change of a shared server.
        assert not launched.client(OTHER).call("pipe__touch").code
        assert next_updates(other, 1) == [opened("pipe")]


def test_a_change_at_one_server_is_not_announced_at_the_endpoint_of_another(
    launched: Launched,
) -> None:
    with session_of(at(launched, READER, "/modern")) as stream:
        for server in ("classic", "modern"):
            assert not launched.client(READER).call(f"{server}__touch").code
        assert next_updates(stream, 2) == [closed("modern"), opened("modern")]
