"""Services of an earlier commit are replaced by the present ones under load, and back again.

`make upgrade` runs it; it takes minutes. TOOLBUS_UPGRADE_FROM names another commit.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients.mcp_client import Client
from harness.upgrade.installation import DOWNGRADE, KEY, UPGRADE, Installation, machine
from harness.upgrade.traffic import Traffic, check, traffic
from harness.upgrade.version import Version, earlier, present
from harness.waits import until_blocking

RATE = 20.0  # calls per second


@pytest.fixture(scope="module")
def old() -> Version:
    return earlier()


@pytest.fixture
def place(old: Version, tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path, old).running() as found:
        for url in found.edges:
            found.until_listed(Client(url, KEY), "echo__count")
        yield found


def test_services_are_upgraded_and_downgraded_without_a_failed_call(
    place: Installation, old: Version
) -> None:
    new = present()
    client = machine(place, old)
    with traffic(place, client, RATE) as upgrade:
        place.prepare(new)
        for service in UPGRADE:
            _replace(place, service, new, upgrade)
    assert upgrade.faults() == []
    check(place, [upgrade])
    place.toolbus(new, "status")
    with traffic(place, client, RATE) as downgrade:
        for service in DOWNGRADE:
            _replace(place, service, old, downgrade)
    assert downgrade.faults() == []
    calls = check(place, [upgrade, downgrade])
    place.toolbus(old, "status")
    for version in (old, new):
        _verify(place, version)
    tokens = upgrade.tokens + downgrade.tokens
    print(f"{calls} executed, recorded and charged calls, {tokens} tokens, 0 failed")


def _replace(place: Installation, service: str, version: Version, load: Traffic) -> None:
    """Replace the replicas of a service while calls go on."""
    for _ in place.use(service, version):
        until_blocking(place.is_ready, f"every service is ready with {service} of {version.name}")
        load.go_on()


def _verify(place: Installation, version: Version) -> None:
    """Export the evidence with a version, and verify it offline."""
    bundle = place.state_dir / f"evidence-{version.name}.zip"
    key = place.toolbus(version, "audit", "key").strip()
    place.toolbus(version, "audit", "export", str(bundle))
    found = version.run("audit", "verify", str(bundle), "--key", key, "--json")
    assert json.loads(found)["valid"]
