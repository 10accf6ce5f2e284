"""Each alert for Prometheus fires for its failure only, as `promtool` evaluates it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.packages.debian import PROMTOOL

ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
RULES: dict[str, Any] = {
    each["alert"]: each
    for group in yaml.safe_load(ALERTS.read_text())["groups"]
    for each in group["rules"]
}
# The series of a failure, and those of an installation without it: one value a minute.
SERIES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ToolbusTargetDown": ({'up{job="toolbus"}': "0x60"}, {'up{job="toolbus"}': "1x60"}),
    "ToolbusServiceNotReady": (
        {'toolbus_service_ready{service="audit"}': "0x60"},
        {'toolbus_service_ready{service="audit"}': "1x60"},
    ),
    "ToolbusEventsNotStored": (
        {"toolbus_events_unacknowledged": "3x60"},
        {"toolbus_events_unacknowledged": "3 0 " * 31},
    ),
    "ToolbusEventStreamFilling": (
        {"toolbus_event_stream_fill_ratio": "0.51x60"},
        {"toolbus_event_stream_fill_ratio": "0.5x60"},
    ),
    "ToolbusEventStreamFull": (
        {"toolbus_event_stream_fill_ratio": "0.95x60"},
        {"toolbus_event_stream_fill_ratio": "0.9x60"},
    ),
    "ToolbusEventStreamCopyLags": (
        {"toolbus_event_stream_replicas_lagging": "1x60"},
        {"toolbus_event_stream_replicas_lagging": "1 0 " * 31},
    ),
    "ToolbusAuditBehind": (
        {"toolbus_audit_backlog": "20000x60"},
        {"toolbus_audit_backlog": "20000 0 " * 31},
    ),
    "ToolbusDeadLetters": (
        {'toolbus_sink_dead_letters_total{sink="siem"}': "_x50 1x10"},
        {'toolbus_sink_dead_letters_total{sink="siem"}': "5x60"},
    ),
    "ToolbusSiemEventsLost": (
        {'toolbus_sink_lost_total{sink="siem"}': "_x50 1x10"},
        {'toolbus_sink_lost_total{sink="siem"}': "5x60"},
    ),
    "ToolbusLogNotSigned": (
        {"toolbus_signed_until_seconds": "60x60"},
        {"toolbus_signed_until_seconds": "0+60x60"},
    ),
    "ToolbusWitnessBehind": (
        {'toolbus_witness_backlog{witness="w"}': "1x60"},
        {'toolbus_witness_backlog{witness="w"}': "1 0 " * 31},
    ),
    "ToolbusExportFailing": (
        {'toolbus_export_failures_total{export="files"}': "0+1x60"},
        {'toolbus_export_failures_total{export="files"}': "7x60"},
    ),
    "ToolbusBudgetStoreDown": (
        {'toolbus_decisions_total{decision="ledger_down"}': "0+10x60"},
        {'toolbus_decisions_total{decision="budget_exceeded"}': "0+10x60"},
    ),
    "ToolbusBreakerOpen": (
        {'toolbus_upstream_breaker_open{server="docs"}': "1x60"},
        {'toolbus_upstream_breaker_open{server="docs"}': "1 0 " * 31},
    ),
    "ToolbusGuardFailed": (
        {'toolbus_guard_failures_total{guard="pii"}': "_x57 1x3"},
        {'toolbus_guard_failures_total{guard="pii"}': "1x60"},
    ),
    "ToolbusCredentialsRejected": (
        {'toolbus_rejected_access_total{reason="unknown_key"}': "0+120x60"},
        {'toolbus_rejected_access_total{reason="no_credential"}': "0+120x60"},
    ),
    "ToolbusConnectionsNearLimit": (
        {"toolbus_http_connections": "90x60", "toolbus_http_connections_limit": "100x60"},
        {"toolbus_http_connections": "80x60", "toolbus_http_connections_limit": "100x60"},
    ),
    "ToolbusCertificateExpires": (
        {"toolbus_certificate_expiry_timestamp_seconds": "600000x60"},
        {"toolbus_certificate_expiry_timestamp_seconds": "700000x60"},
    ),
    "ToolbusCertificateNotReloaded": (
        {"toolbus_certificate_not_reloaded": "1x60"},
        {"toolbus_certificate_not_reloaded": "1 0 " * 31},
    ),
    "ToolbusErrorBudgetBurns": (
        {
            'toolbus_calls_total{outcome="ok"}': "0+1000x60",
            'toolbus_calls_total{outcome="bus_down"}': "0+20x60",
        },
        {
            'toolbus_calls_total{outcome="ok"}': "0+1000x60",
            'toolbus_calls_total{outcome="bus_down"}': "0+5x60",
            'toolbus_calls_total{outcome="budget_exceeded"}': "0+500x60",
            'toolbus_calls_total{outcome="upstream_timeout"}': "0+500x60",
        },
    ),
}


def test_every_alert_has_series() -> None:
    assert set(SERIES) == set(RULES)


@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_fires_for_its_failure_only(alert: str, tmp_path: Path) -> None:
    failing, sound = SERIES[alert]
    tests = [case(alert, failing, fires=True), case(alert, sound, fires=False)]
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": tests}))
    done = subprocess.run(
        [PROMTOOL.path(), "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def case(alert: str, series: dict[str, str], *, fires: bool) -> dict[str, Any]:
    """Return a test of promtool: after an hour, the alert fires once, or not at all."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": each} for name, each in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": "1h",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
    }
