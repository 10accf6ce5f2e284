"""The stdio bridge against a scripted endpoint: headers, sessions, failures."""

import base64
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_cli.bridge import responses as answers
from toolbus_cli.bridge.bridge import Bridge
from toolbus_cli.bridge.headers import modern_headers, wanted_by
from toolbus_cli.bridge.http import Endpoint
from toolbus_cli.bridge.stdio import Output, read_lines
from toolbus_cli.errors import CommandError
from toolbus_common.mcp.param_headers import decoded, encoded

SECONDS = 60.0  # a bound for a broken run
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
TOOL = {
    "name": "weather",
    "inputSchema": {
        "type": "object",
        "properties": {
            "where": {
                "type": "object",
                "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
            },
            "days": {"type": "integer", "x-mcp-header": "Days"},
            "wet": {"type": "boolean", "x-mcp-header": "Wet"},
            "bad": {"type": "string", "x-mcp-header": "no header\r\n"},
        },
    },
}
Handled = tuple[int, dict[str, str], bytes]


@dataclass
class Received:
    """One HTTP request that the endpoint received."""

    verb: str
    headers: dict[str, str]
    body: Any


@dataclass
class Scripted:
    """An endpoint with scripted responses; `requests` holds what it received."""

    answer: Callable[[Received], Handled | None]
    requests: list[Received] = field(default_factory=list)
    url: str = ""

    def of(self, method: str) -> list[Received]:
        return [
            each for each in self.requests if isinstance(each.body, dict)
            and each.body.get("method") == method
        ]  # fmt: skip


@contextmanager
def endpoint(answer: Callable[[Received], Handled | None]) -> Iterator[Scripted]:
    scripted = Scripted(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.command, headers, json.loads(body) if body else None)
            scripted.requests.append(request)
            answer = scripted.answer(request)
            if answer is None:
                self.close_connection = True
                return
            status, extra, outcome = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(outcome)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(outcome)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the library's names

        def log_message(self, *_args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scripted.url = f"http://127.0.0.1:{server.server_port}/mcp"
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Client:
    """A client on stdio, without the process."""

    def __init__(self, url: str) -> None:
        self._output: Queue[dict[str, Any]] = Queue()
        self.notes: list[str] = []
        self.bridge = Bridge(
            Endpoint(url),
            "tbk_key",
            lambda raw: self._output.put(json.loads(raw)),
            self.notes.append,
        )

    def send(self, message: Any) -> None:
        self.bridge.take(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        return self._output.get(timeout=SECONDS)

    def request(self, request_id: Any, method: str, **params: Any) -> dict[str, Any]:
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return self.receive()

    def end(self) -> None:
        self.bridge.serve([])

    def silent(self) -> bool:
        return self._output.empty()


@contextmanager
def connected(url: str) -> Iterator[Client]:
    client = Client(url)
    try:
        yield client
    finally:
        client.end()


def result(request: Received, value: Any, **headers: str) -> Handled:
    fields = {"jsonrpc": "2.0", "id": request.body.get("id"), "result": value}
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return 200, {"Content-Type": "application/json", **named}, json.dumps(fields).encode()


def refusal(status: int, code: int, message: str) -> Handled:
    error = {"code": code, "message": message}
    fields = {"jsonrpc": "2.0", "id": None, "error": error}
    return status, {"Content-Type": "application/json"}, json.dumps(fields).encode()


def stream(*messages: Any) -> Handled:
    data = b"".join(b"event: message\ndata: %b\n\n" % json.dumps(m).encode() for m in messages)
    return 200, {"Content-Type": "text/event-stream"}, b": \n\n" + data


def handshake(request: Received, token: str) -> Handled:
    return result(request, {"protocolVersion": "2025-11-25"}, Mcp_Session_Id=token)


def test_a_modern_request_is_repeated_in_headers() -> None:
    with (
        endpoint(lambda request: result(request, {"resultType": "complete"})) as scripted,
        connected(scripted.url) as client,
    ):
        client.request(1, "tools/call", name="né", arguments={}, _meta=META)
        headers = scripted.requests[0].headers
    assert headers["authorization"] == "Bearer tbk_key"
    assert headers["mcp-protocol-version"] == "2026-07-28"
    assert headers["mcp-method"] == "tools/call"
    assert headers["mcp-name"] == f"=?base64?{base64.b64encode('né'.encode()).decode()}?="
    assert "mcp-session-id" not in headers


def test_arguments_become_headers_as_the_listed_schema_requires() -> None:
    arguments = {"where": {"region": "us west "}, "days": 3, "wet": True, "bad": "x"}
    message = {"method": "tools/call", "params": {"name": "weather", "arguments": arguments}}
    found = modern_headers(message, wanted_by({"tools": [TOOL, "nonsense", {"name": 3}]}))
    assert decoded(found["Mcp-Param-Region"].encode()) == "us west "
    assert (found["Mcp-Param-Days"], found["Mcp-Param-Wet"]) == ("3", "true")
    assert not any("\r" in name for name in found)


def test_an_argument_that_is_absent_or_null_has_no_header() -> None:
    message = {"method": "tools/call", "params": {"name": "weather", "arguments": {"days": None}}}
    assert not any(
        "Param" in name for name in modern_headers(message, wanted_by({"tools": [TOOL]}))
    )


@given(text=st.text(min_size=1, max_size=40))
def test_the_endpoint_reads_back_every_value_a_header_carries(text: str) -> None:
    carried = encoded(text)
    assert carried.isascii()
    assert carried.isprintable()
    assert decoded(carried.strip().encode()) == text


def test_a_rejection_for_missing_headers_lists_the_tools_and_retries() -> None:
    def answer(request: Received) -> Handled:
        if request.body["method"] == "tools/list":
            return result(request, {"tools": [TOOL]})
        if "mcp-param-days" not in request.headers:
            return refusal(400, -32020, "Mcp-Param-Days is missing")
        return result(request, {"content": []})

    with endpoint(answer) as scripted, connected(scripted.url) as client:
        call = {"name": "weather", "arguments": {"days": 2}, "_meta": META}
        assert client.request(1, "tools/call", **call)["result"] == {"content": []}
        assert client.request(2, "tools/call", **call)["result"] == {"content": []}
        assert len(scripted.of("tools/list")) == 1
        assert len(scripted.of("tools/call")) == 3


def test_a_session_is_sent_streamed_and_deleted() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}

    def answer(request: Received) -> Handled:
        if request.verb == "GET":
            return stream(note) if len(scripted.requests) < 5 else (405, {}, b"")
        if request.verb == "DELETE":
            return 204, {}, b""
        if request.body["method"] == "initialize":
            return handshake(request, "s1")
        return (202, {}, b"") if "id" not in request.body else result(request, {})

    with endpoint(answer) as scripted, connected(scripted.url) as client:
        client.request(1, "initialize", protocolVersion="2025-11-25")
        client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert client.receive() == note
        client.request(2, "ping")
        client.end()
        verbs = [each.verb for each in scripted.requests]
        later = scripted.of("ping")[0].headers
    assert (later["mcp-session-id"], later["mcp-protocol-version"]) == ("s1", "2025-11-25")
    assert verbs[:3] == ["POST", "POST", "GET"]
    assert verbs.count("DELETE") == 1


def test_an_expired_session_is_renewed_with_its_log_level_and_the_request_retried() -> None:
    tokens = ["s1", "s2"]

    def answer(request: Received) -> Handled:
        if request.verb != "POST":
            return 405, {}, b""
        if request.body["method"] == "initialize":
            return handshake(request, tokens.pop(0))
        if request.headers.get("mcp-session-id") == "s1" and request.body["method"] == "tools/list":
            return refusal(404, -32600, "This session has ended")
        return (202, {}, b"") if "id" not in request.body else result(request, {"tools": []})

    with endpoint(answer) as scripted, connected(scripted.url) as client:
        client.request(1, "initialize", protocolVersion="2025-11-25")
        client.request(2, "logging/setLevel", level="debug")
        assert client.request(3, "tools/list")["result"] == {"tools": []}
        assert client.silent()
        assert len(scripted.of("initialize")) == 2
        levels = [each.headers["mcp-session-id"] for each in scripted.of("logging/setLevel")]
        client.end()
    assert levels == ["s1", "s2"]
    assert client.notes == ["the session had expired and was renewed"]


def test_notifications_before_a_response_keep_their_order() -> None:
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}

    def answer(request: Received) -> Handled:
        return stream(progress, {"jsonrpc": "2.0", "id": request.body["id"], "result": {}})

    with endpoint(answer) as scripted, connected(scripted.url) as client:
        assert client.request(1, "tools/call", name="a") == progress
        assert client.receive()["id"] == 1


def test_a_response_to_a_server_request_is_posted_in_the_session() -> None:
    def answer(request: Received) -> Handled:
        begins = request.body.get("method") == "initialize"
        return handshake(request, "s1") if begins else (202, {}, b"")

    with endpoint(answer) as scripted, connected(scripted.url) as client:
        client.request(1, "initialize")
        client.send({"jsonrpc": "2.0", "id": 9, "result": {"action": "accept"}})
        assert scripted.requests[-1].body["result"] == {"action": "accept"}
        assert scripted.requests[-1].headers["mcp-session-id"] == "s1"
        assert client.silent()


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (refusal(401, -31001, "This key opens nothing."), -31001, "--key-file"),
        (refusal(503, -31011, "The bus is down."), -31011, "toolbus status"),
        (refusal(404, -32600, "No such server."), -32600, "No such server."),
        ((502, {"Content-Type": "text/html"}, b"<h1>Bad</h1>"), -31010, "returned 502 without"),
        ((200, {}, b""), -31010, "--url"),
        (stream(), -31030, "may have been executed"),
        (None, -31030, "may have been executed"),
    ],
)
@pytest.mark.parametrize("request_id", [1, "1"])
def test_an_http_failure_becomes_the_requests_error(
    answer: Handled | None, code: int, message: str, request_id: Any
) -> None:
    with endpoint(lambda _request: answer) as scripted, connected(scripted.url) as client:
        reply = client.request(request_id, "tools/call", name="a", _meta=META)
    assert reply["id"] == request_id
    assert type(reply["id"]) is type(request_id)
    assert reply["error"]["code"] == code
    assert message in reply["error"]["message"]


def test_a_used_id_is_rejected_and_a_cancelled_modern_request_gets_no_response() -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def answer(request: Received) -> Handled:
        if request.body["method"] == "tools/call":
            arrived.set()
            go_on.wait(SECONDS)
        return result(request, {})

    with endpoint(answer) as scripted, connected(scripted.url) as client:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"_meta": META}}
        client.send(call)
        assert arrived.wait(SECONDS)
        assert client.request(1, "tools/list", _meta=META)["error"]["code"] == -32600
        assert client.request("1", "tools/list", _meta=META)["result"] == {}
        about = {"requestId": 1}
        client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": about})
        client.end()
        go_on.set()
        assert client.silent()
        assert [each.body["method"] for each in scripted.requests] == ["tools/call", "tools/list"]


def test_a_response_passes_byte_for_byte() -> None:
    raw = b'{"jsonrpc":"2.0","id":1,"result":{"n":1.50,"x":"\\u00e9","z":1e400}}'
    assert answers.for_request(raw, 1, 200, "http://h/mcp") is raw


def test_a_message_is_written_as_one_line() -> None:
    with open_pipe() as (read, write):
        Output(write).say(b'{"a":\r\n1}')
        assert read.readline() == b'{"a":  1}\n'


def test_a_closed_reader_is_not_an_error() -> None:
    with open_pipe() as (read, write):
        read.close()
        output = Output(write)
        output.say(b"{}")
        assert output.gone


def test_an_overlong_line_is_skipped() -> None:
    lines = read_lines(io.BytesIO(b"x" * 25 + b"\n\nnext\nlast"), longest=10)
    assert list(lines) == [None, b"next", b"last"]


def test_an_overlong_line_is_reported_to_the_client() -> None:
    client = Client("http://127.0.0.1:9/mcp")
    client.bridge.serve([None])
    assert "exceeds" in client.receive()["error"]["message"]


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://h/mcp", "http://"])
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(CommandError, match="--url"):
        Endpoint(url)


def test_the_path_defaults_to_mcp_and_a_server_is_appended() -> None:
    assert Endpoint("http://h:1").path == "/mcp"
    assert Endpoint("https://h/gw/mcp/", "docs").path == "/gw/mcp/docs"


@contextmanager
def open_pipe() -> Iterator[tuple[io.BufferedReader, int]]:
    read, write = os.pipe()
    reader = os.fdopen(read, "rb")
    try:
        yield reader, write
    finally:
        reader.close()
        os.close(write)
