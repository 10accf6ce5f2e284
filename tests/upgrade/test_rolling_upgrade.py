"""Services of an earlier commit are replaced by the present ones under load, and back again.

`make upgrade` runs it; it takes minutes. `make upgrade FROM=COMMIT` uses another commit.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.clients.mcp_client import Client
from harness.gateway.cluster import Upstream
from harness.upgrade.installation import KEY, UPGRADE, Installation, declared, machine
from harness.upgrade.single_host import SingleHost
from harness.upgrade.traffic import Traffic, check, traffic
from harness.upgrade.version import Version, earlier, present
from harness.waits import until_blocking

RATE = 20.0  # calls per second
ORDERS = {"in order": [[service] for service in UPGRADE], "at once": [list(UPGRADE)]}
CALLS = 5
COMPLETED = "SELECT count() AS calls FROM events WHERE event = 'call.completed'"


@pytest.fixture(scope="module")
def old() -> Version:
    found = earlier()
    assert found.packages != present().packages, "two versions are compared"
    return found


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_services_are_upgraded_and_downgraded_without_a_failed_call(
    order: list[list[str]], old: Version, tmp_path: Path
) -> None:
    new = present()
    with Installation(tmp_path, old).running() as place:
        for url in place.edges:
            place.until_listed(Client(url, KEY), "echo__count")
        client = machine(place, old)
        with traffic(place, client, RATE) as upgrade:
            place.prepare(new)
            for services in order:
                _replace(place, services, new, upgrade)
        assert upgrade.faults() == []
        _report("upgrade", check(place, [upgrade]), upgrade)
        place.toolbus(new, "status")
        place.apply(new, {"version": 1, **declared(place.upstream.url), "labels": {"a__*": ["b"]}})
        with traffic(place, client, RATE) as downgrade:
            for services in reversed(order):
                _replace(place, services, old, downgrade)
        assert downgrade.faults() == []
        _report("upgrade and downgrade", check(place, [upgrade, downgrade]), downgrade)
        place.toolbus(old, "status")
        for version in (old, new):
            _verify(place, version)


def test_one_host_is_upgraded_and_downgraded_with_its_state(old: Version, tmp_path: Path) -> None:
    (tmp_path / "upstream").mkdir()
    upstream, place = Upstream(tmp_path / "upstream"), SingleHost(tmp_path / "host", old)
    place.configure(declared(upstream.url))
    with upstream.running():
        for number, version in enumerate((old, present(), old), start=1):
            place.version = version
            with place.running():
                place.until_listed(place.client(KEY), "echo__count")
                _call_and_verify(place, number, tmp_path / f"{number}.zip")


def _call_and_verify(place: SingleHost, number: int, bundle: Path) -> None:
    """Make calls, and check that the record and the evidence have those of all versions."""
    for call in range(CALLS):
        answer = place.client(KEY).call("echo__count", {"id": f"{number}.{call}"})
        assert answer.code == ""
    place.eventual_rows(COMPLETED, lambda rows: int(rows[0]["calls"]) == number * CALLS)
    place.operate("status")
    key = place.operate("audit", "key").strip()

    def exported() -> bool:
        try:
            place.operate("audit", "export", str(bundle))
        except RuntimeError:  # there is no checkpoint yet
            return False
        return True

    until_blocking(exported, "there is a checkpoint")
    found = place.version.run("audit", "verify", str(bundle), "--key", key, "--json")
    assert json.loads(found)["valid"]


def _report(step: str, calls: int, load: Traffic) -> None:
    print(f"{step}: {calls} calls executed, recorded and charged, {load.tokens} new tokens")


def _replace(place: Installation, services: Sequence[str], version: Version, load: Traffic) -> None:
    """Replace the replicas of services while calls go on."""
    for _ in place.use(services, version):
        until_blocking(place.is_ready, f"every service is ready with {services} of {version.name}")
        load.go_on()


def _verify(place: Installation, version: Version) -> None:
    """Export the evidence with a version, and verify it offline."""
    bundle = place.state_dir / f"evidence-{version.name}.zip"
    key = place.toolbus(version, "audit", "key").strip()
    place.toolbus(version, "audit", "export", str(bundle))
    found = version.run("audit", "verify", str(bundle), "--key", key, "--json")
    assert json.loads(found)["valid"]
