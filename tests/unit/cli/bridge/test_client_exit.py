"""The stdio bridge when its client exits during a request."""

import json
import socket
from collections.abc import Iterator
from threading import Event

import pytest

from harness.high_descriptors import duplicated_high
from harness.network.json_server import Request, Response, answering
from toolbus_cli.bridge import bridge
from toolbus_cli.bridge.bridge import Bridge
from toolbus_cli.bridge.http import Endpoint, _readable

SECONDS = 60.0  # a bound for a broken run


def test_pending_requests_may_finish_after_the_client_exits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge, "GRACE_SECONDS", SECONDS)
    arrived, left = Event(), Event()
    messages: list[bytes] = []
    notes: list[str] = []

    def answer(request: Request) -> Response:
        arrived.set()
        assert left.wait(SECONDS)
        body = {"jsonrpc": "2.0", "id": request.json["id"], "result": {}}
        return Response(200, body, {"content-type": "application/json"})

    def lines() -> Iterator[bytes]:
        yield b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call"}'
        assert arrived.wait(SECONDS)
        left.set()

    with answering(answer) as port:
        Bridge(
            Endpoint(f"http://127.0.0.1:{port}/mcp"), "tbk_key", messages.append, notes.append
        ).serve(lines())
    assert [json.loads(each)["id"] for each in messages] == [1]


def test_a_kept_connection_with_a_high_descriptor_is_checked_for_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, duplicated_high(ours.fileno()) as number:
        kept = socket.socket(fileno=number)
        assert not _readable(kept)
        theirs.close()
        assert _readable(kept)
        kept.detach()
