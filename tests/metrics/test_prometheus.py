"""Prometheus scrapes every service, and every expression of the dashboard has an answer."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.engines.prometheus_server import Prometheus, Series, faults
from harness.gateway.cluster import Cluster, Upstream
from harness.receivers.otlp_collector import Collector
from harness.waits import until_blocking
from toolbus_common.config import Configuration, Guard, Server
from toolbus_common.service.names import SERVICES

ROOT = Path(__file__).resolve().parents[2]
KEY, CODER = "tbk_bot_a-secret-of-the-metrics", "tbk_coder_a-secret-of-the-metrics"
# One that runs, and one that fails open, because its service is not permitted.
GUARDS = {
    "secrets": Guard(kind="secrets", on=("results",), always=True),
    "lost": Guard(kind="http", url="http://127.0.0.1:9/", on=("results",), always=True),
}
PROGRAM = "result = echo.say(text='from a program')"


@dataclass
class Watched:
    """A gateway of separate processes, and the Prometheus that scrapes it."""

    cluster: Cluster
    prometheus: Prometheus

    def use(self) -> None:
        """Make one call of each kind: answered, failed, denied, from a program, and no call."""
        bot, coder = self.cluster.client(KEY), self.cluster.client(CODER)
        assert bot.call("echo__say", {"text": "hello"}).text == "hello"
        assert bot.call("pair__say", {"text": "hello"}).text == "hello"
        assert bot.call("echo__complain").json["result"]["isError"]
        assert bot.call("echo__fault").error
        assert bot.call("echo__push_branch").code
        assert coder.call("executeToolCode", {"code": PROGRAM}).text == "from a program"
        stranger = Client(bot.endpoint, bot.key)
        assert stranger.post({}, Origin="https://elsewhere.example").status == 403

    def request(self, expression: str) -> list[Series]:
        """Return an expression's series once there are any; the gateway is used meanwhile."""

        def evaluated() -> list[Series]:
            self.use()
            return self.prometheus.request(expression)

        found: list[Series] = until_blocking(evaluated, expression)
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    echo, one, other = (Upstream(directory / name) for name in ("echo", "one", "other"))
    with ExitStack() as final:
        collector = final.enter_context(Collector())
        for each in (echo, one, other):
            each.start()
            final.callback(each.kill)
        cluster = Cluster(directory / "cluster", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        final.callback(cluster.stop)
        pair = Server.model_validate({"replicas": [one.url, other.url]})
        tools = ("echo__say", "echo__complain", "echo__fault", "pair__*")
        cluster.start(
            Configuration(
                servers={"echo": Server(url=echo.url), "pair": pair},
                guards=GUARDS,
                keys={
                    "bot": key(KEY, tools=tools),
                    "coder": key(CODER, tools=tools, code_mode=True),
                },
            ),
            additional=("codemode", "oauth"),
        )
        cluster.until_listed(cluster.client(KEY), "echo__say", "pair__say")
        coder = cluster.client(CODER)
        until_blocking(lambda: coder.sees("executeToolCode"), "code mode")
        prometheus = Prometheus(directory / "prometheus", jobs(), addresses(cluster))
        final.callback(prometheus.kill)
        prometheus.start()
        yield Watched(cluster, prometheus)


def jobs() -> list[Any]:
    """Return the scrape jobs of the collector's configuration, in Prometheus's own format."""
    body = yaml.safe_load((ROOT / "deploy" / "otel" / "collector.yaml").read_text())
    found: list[Any] = body["receivers"]["prometheus"]["config"]["scrape_configs"]
    return found


def addresses(cluster: Cluster) -> dict[str, str]:
    """Return the addresses of the services by their names in a compose installation."""
    return {f"{service}:8081": address for service, address in cluster.ops.items()}


def questions() -> list[str]:
    """Return every expression of the dashboard."""
    board = json.loads((ROOT / "deploy" / "grafana" / "operations-metrics.json").read_text())
    return [each["expr"] for panel in board["panels"] for each in panel["targets"]]


def test_every_service_is_scraped_and_ready(watched: Watched) -> None:
    (up,) = watched.request(f"sum(up) == {len(SERVICES)}")
    assert up.value == len(SERVICES)
    ready = watched.request(
        f"toolbus_service_ready == 1 and on() (sum(toolbus_service_ready) == {len(SERVICES)})"
    )
    assert {each.labels["service"] for each in ready} == set(SERVICES)
    assert all(each.labels["toolbus_service"] == each.labels["service"] for each in ready)


@pytest.mark.parametrize("question", questions())
def test_an_expression_of_the_dashboard_has_a_result(question: str, watched: Watched) -> None:
    assert watched.request(question)


def test_the_metrics_count_what_was_done(watched: Watched) -> None:
    def until(expression: str, label: str, *wanted: str) -> None:
        def there() -> bool:
            found = watched.request(expression)
            return {*wanted} <= {each.labels[label] for each in found if each.value > 0}

        until_blocking(there, f"{wanted} in {expression}")

    until("toolbus_calls_total", "outcome", "ok", "upstream_refused", "unknown_tool")
    until("toolbus_upstream_calls_total", "outcome", "ok", "tool_error", "upstream_refused")
    until("toolbus_decisions_total", "decision", "allowed")
    until("toolbus_upstream_seconds_count", "server", "echo", "pair")
    assert watched.request("toolbus_event_stream_replicas == 1")
    (share,) = watched.request("toolbus_event_stream_fill_ratio > 0")
    assert share.value < 1
    (called,) = watched.request('sum(toolbus_upstream_calls_total{server="pair"})')
    (answered,) = watched.request('sum(toolbus_upstream_seconds_count{server="pair"})')
    assert 0 < called.value <= answered.value


def test_the_metrics_of_every_service_are_well_formed(watched: Watched) -> None:
    watched.use()
    client = watched.cluster.client(KEY)
    for address in addresses(watched.cluster).values():
        assert faults(client.get(f"http://{address}/metrics").body) == ""
