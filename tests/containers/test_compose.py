"""The installation of deploy/compose.yaml: built, started, used, scaled and stopped."""

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from harness.clients.mcp_client import Answer, Client
from harness.compose import images
from harness.compose.installation import PROMETHEUS_PORT, Installation
from harness.waits import until_blocking
from toolbus_common.service.names import SERVICES

NOW: dict[str, Any] = {"name": "clock__now", "arguments": {}}


@pytest.fixture(scope="module")
def key(installation: Installation) -> str:
    """Apply the first configuration, and return the secret of its key."""
    installation.operator("apply", "-f", "/config/toolbus.yaml")
    created = json.loads(installation.operator("keys", "rotate", "demo", "--json"))
    secret: str = created["secret"]
    return secret


def call(client: Client, tool: str = "clock__now") -> Answer:
    return client.call(tool, {})


def test_the_sizes_of_the_images_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = images.sizes()
    with capsys.disabled():
        for image, (unpacked, compressed) in sizes.items():
            print(f"\n{image}: {unpacked / 1e6:.0f} MB, compressed {compressed / 1e6:.0f} MB")
    assert sizes[images.SLIM][0] < sizes[images.FULL][0] / 2


@pytest.mark.parametrize(
    ("words", "named"),
    [(("run", "audit"), "TOOLBUS_CLICKHOUSE_URL"), (("up",), "TOOLBUS_NATS_URL")],
)
def test_the_slim_image_names_the_server_it_needs(words: tuple[str, ...], named: str) -> None:
    output = images.docker(
        "run",
        "--rm",
        "--entrypoint",
        "sh",
        images.SLIM,
        "-c",
        f"toolbus {' '.join(words)} 2>&1 || true",
    )
    assert named in output
    assert "Traceback" not in output


def test_a_call_is_answered_and_recorded(installation: Installation, key: str) -> None:
    assert call(installation.client(key)).status == 200

    def recorded() -> bool:
        sql = "SELECT sum(calls) AS calls FROM usage WHERE key = 'demo'"
        rows = json.loads(installation.operator("audit", "query", sql, "--json"))
        return int(rows[0]["calls"]) > 0

    until_blocking(recorded, "the call in ClickHouse", 60)


def test_a_tool_that_the_key_may_not_use_and_an_unknown_key_are_denied(
    installation: Installation, key: str
) -> None:
    assert call(installation.client(key), "other__tool").code == "unknown_tool"
    assert call(installation.client("tbk_demo_wrong")).status == 401


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_without_privileges_on_a_read_only_file_system(
    installation: Installation, service: str
) -> None:
    for container in installation.inspected(service):
        host = container["HostConfig"]
        assert not container["Config"]["User"].startswith(("0:", "root"))
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert container["State"]["Health"]["Status"] == "healthy"


def test_prometheus_reaches_every_service(installation: Installation) -> None:
    def found() -> set[str]:
        words = urlencode({"query": "up == 1"})
        with urlopen(f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?{words}") as answer:
            series = json.load(answer)["data"]["result"]
        return {each["metric"]["toolbus_service"] for each in series}

    assert installation.containers("prometheus")
    until_blocking(lambda: found() == set(SERVICES), "metrics of all services", 90)


def test_calls_continue_while_one_of_three_executors_is_killed(
    installation: Installation, key: str
) -> None:
    installation.start("--scale", "executor=3", "--no-recreate")
    containers = installation.containers("executor")
    assert len(containers) == 3
    client = installation.client(key)
    images.docker("kill", containers[0])
    until_blocking(lambda: call(client).code == "", "another executor serves the tool", 30)
    assert [call(client).code for _ in range(30)] == [""] * 30
    until_blocking(lambda: _executors(installation) == 2, "the loss is noticed", 60)
    installation.start("--scale", "executor=1")


def test_two_replicas_of_ingress_serve_one_session(installation: Installation, key: str) -> None:
    installation.start("--scale", "ingress=2", "--no-recreate")
    assert len(installation.containers("ingress")) == 2
    assert call(installation.client(key)).status == 200


def test_the_operators_container_finds_nothing_wrong(installation: Installation) -> None:
    checks = json.loads(installation.operator("doctor", "--json"))
    assert [each for each in checks if not each["ok"]] == []


def test_a_restart_of_everything_keeps_keys_and_records(
    installation: Installation, key: str
) -> None:
    installation.compose("restart", "--timeout", "40")
    installation.start("--scale", "ingress=1")
    assert call(installation.client(key)).status == 200
    sql = "SELECT sum(calls) AS calls FROM usage WHERE key = 'demo'"
    rows = json.loads(installation.operator("audit", "query", sql, "--json"))
    assert int(rows[0]["calls"]) > 0


def test_a_stopped_service_ends_by_itself(installation: Installation) -> None:
    installation.compose("stop", "--timeout", "40", *SERVICES)
    ended = installation.compose("ps", "--all", "--format", "json", *SERVICES)
    assert {json.loads(line)["ExitCode"] for line in ended.splitlines()} == {0}


def _executors(installation: Installation) -> int:
    status = json.loads(installation.operator("status", "--json"))
    return sum(each["service"] == "executor" for each in status["services"])
