"""Operations endpoints on their own listener, and one request guard for every agent path."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.engines.engine import installed, own_port, own_ports
from harness.gateway.forked_commands import run_forked
from harness.gateway.launched_gateway import Launched
from harness.network.raw_requests import exchange, request_bytes
from toolbus_common.service.names import SERVICES

SCRIPTS = "https://scripts.example"
PATHS = (
    "/healthz", "/metrics", "/readyz", "/", "/nothing", "/mcp", "/mcp/clock", "/sse", "/sse/clock",
    "/sse/messages?session=x", "/v1/mcp/tools", "/v1/mcp/tools/execute", "/api", "/api/v1/keys",
    "/api/v2", "/api/openapi.json", "/api/approvals", "/approvals/x", "/oauth/token",
    "/oauth/register", "/oauth/authorize", "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration", "/.well-known/oauth-protected-resource/mcp",
)  # fmt: skip
METHODS = ("GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH")


@pytest.fixture(scope="module", params=["fused", "separate"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    """Run the demo with one allowed browser origin: a preflight passes the guard too."""
    options = ["--separate"] if request.param == "separate" else []
    directory = tmp_path_factory.mktemp("operated")
    gateway = Launched(directory, *options, TOOLBUS_BROWSER_ORIGINS=SCRIPTS)
    with gateway.running():
        yield gateway


def listener(demo: Launched, service: str = "ingress") -> int:
    """Return the port of the operations listener of a service's process."""
    return urlsplit(demo.ready["ops"][service]).port or 0


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_the_agents_port_answers_a_foreign_host_or_origin(
    demo: Launched, path: str
) -> None:
    for method in METHODS:
        fields = {"Access_Control_Request_Method": "POST"} if method == "OPTIONS" else {}
        for foreign in (
            {"Host": "evil.example"},
            {"Host": ""},
            {"Host": "127.0.0.1.evil.example"},
            {"Origin": "https://evil.example"},
            {"Host": "evil.example", "Origin": SCRIPTS},
        ):
            answer = exchange(demo.port, request_bytes(path, method, **fields, **foreign))
            assert answer.status == 403, (method, path, foreign, answer)
        twice = request_bytes(path, method).replace(
            b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\n" * 2
        )
        assert exchange(demo.port, twice).status == 400, (method, path)


def test_the_agents_port_answers_healthz_and_no_other_operations_path(demo: Launched) -> None:
    alive = exchange(demo.port, request_bytes("/healthz"))
    assert (alive.status, alive.body, alive.content_type) == (200, b"", "")
    for path in ("/metrics", "/readyz", "/metrics/", "/healthz/", "//metrics", "/%6detrics"):
        gone = exchange(demo.port, request_bytes(path))
        assert gone.status == 404, path
        assert b"toolbus_" not in gone.body


def test_each_process_has_one_operations_listener_on_its_own_port(demo: Launched) -> None:
    assert set(demo.ready["ops"]) == set(SERVICES)
    processes = {name for name in demo.ready["pids"] if set(name.split("+")) <= set(SERVICES)}
    assert len(set(demo.ready["ops"].values())) == len(processes)
    for name in processes:
        services = name.split("+")
        (port,) = {listener(demo, service) for service in services}
        ready = exchange(port, request_bytes("/readyz"))
        assert (ready.status, set(json.loads(ready.body))) == (200, set(services))
        metrics = exchange(port, request_bytes("/metrics?all"))
        assert metrics.status == 200
        for service in services:
            assert f'toolbus_service_ready{{service="{service}"}} 1.0'.encode() in metrics.body
    logs = demo.logs()
    for url in set(demo.ready["ops"].values()):
        assert url in logs


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:9", "10.1.2.3"])
def test_an_operations_listener_answers_an_address(demo: Launched, host: str) -> None:
    alive = exchange(listener(demo), request_bytes("/healthz", Host=host))
    assert (alive.status, alive.body) == (200, b"")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "localhost.evil"],
)
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/other"])
def test_an_operations_listener_rejects_a_rebound_name(
    demo: Launched, path: str, host: str
) -> None:
    refused = exchange(listener(demo), request_bytes(path, Host=host))
    assert (refused.status, b"toolbus_" in refused.body) == (403, False)


def test_an_operations_listener_rejects_anything_but_a_plain_get(demo: Launched) -> None:
    port, get = listener(demo), request_bytes("/metrics")
    assert exchange(port, request_bytes("/metrics", "POST")).status == 405
    assert exchange(port, get.replace(b"Host: 127.0.0.1\r\n", b"")).status == 403
    assert exchange(port, get.replace(b"Host: ", b"Host: 127.0.0.1\r\nHost: ")).status == 403
    assert exchange(port, get.replace(b" HTTP/1.1", b"")).status == 400
    assert exchange(port, request_bytes("/metrics", Long="x" * 9000)).status in (0, 431)
    assert exchange(port, b"\x00\xff\r\n\r\n").status == 400
    assert exchange(port, request_bytes("/metrics", "HEAD")).body == b""


def test_named_ports_are_consecutive_and_a_configured_host_name_is_answered(
    tmp_path: Path,
) -> None:
    first = own_ports(3)
    gateway = Launched(
        tmp_path, "--ops-listen", f"127.0.0.1:{first}", TOOLBUS_OPS_HOSTS="policy, Ingress"
    )
    try:
        gateway.start()
        used = [listener(gateway, service) for service in ("ingress", "audit", "oauth")]
        assert used == [first, first + 1, first + 2]
        for host, status in (("policy:8081", 200), ("ingress", 200), ("executor:8081", 403)):
            assert exchange(listener(gateway), request_bytes("/readyz", Host=host)).status == status
    finally:
        gateway.stop()


def test_the_port_of_the_endpoint_is_no_operations_port(tmp_path: Path) -> None:
    port = own_port()
    gateway = Launched(tmp_path, "--ops-listen", f"127.0.0.1:{port}")
    gateway.port = port
    with pytest.raises(RuntimeError, match=f"{port} is already used by this launcher"):
        gateway.start()


@pytest.mark.parametrize("address", ["9090", "127.0.0.1", "::1:90", "127.0.0.1:99999", ":9", "h:x"])
def test_an_invalid_address_is_rejected_at_once(address: str, tmp_path: Path) -> None:
    for words in (("run", "policy"), ("up",)):
        result = run_forked([*words, "--ops-listen", address], tmp_path, dict(os.environ))
        assert result.returncode == 2
        assert "is not HOST:PORT" in " ".join(result.stderr.split())


def test_a_service_whose_operations_port_is_in_use_reports_it_and_exits(
    demo: Launched, tmp_path: Path
) -> None:
    used = f"127.0.0.1:{listener(demo)}"
    result = subprocess.run(
        [installed("toolbus"), "run", "policy", "--ops-listen", used],
        capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path,
        env={**demo.environment, "TOOLBUS_NATS_URL": demo.nats_url},
    )  # fmt: skip
    assert result.returncode == 1
    assert "set another address with --ops-listen" in result.stderr
    assert "Traceback" not in result.stderr
