"""The systemd units fit the services: their seeds, keys, settings and time to drain."""

import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.engines.engine import installed
from toolbus_common.config_store.literal_secrets import READERS, WRITERS
from toolbus_common.service.names import SERVICES
from toolbus_common.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy" / "systemd"
KEYS = "/etc/toolbus/bus/"
Lines = list[tuple[str, str]]
HARDENED = (
    "CapabilityBoundingSet", "NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectHome",
    "ProtectSystem", "RestrictAddressFamilies", "SystemCallFilter", "UMask",
)  # fmt: skip


def lines_of(*names: str) -> Lines:
    """Return the settings of a unit and its drop-ins, in order."""
    lines = (line for name in names for line in (UNITS / name).read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#[")
    return [(name, value) for name, _, value in pairs]


def unit_of(service: str) -> Lines:
    lines = lines_of("toolbus@.service", f"toolbus@{service}.service.d/service.conf")
    return [(name, value.replace("%i", service)) for name, value in lines]


def last(lines: Lines, name: str) -> str:
    return dict(lines)[name]


def environment(lines: Lines) -> dict[str, str]:
    words = (word for name, value in lines if name == "Environment" for word in value.split())
    return dict(word.split("=", 1) for word in words)


def credentials(lines: Lines) -> dict[str, str]:
    """Return the file of each credential, below the directory that `nats-config` writes."""
    given = (value.split(":") for name, value in lines if name == "LoadCredential")
    return {name: path.removeprefix(KEYS) for name, path in given}


def known(service: str) -> set[str]:
    fields = importlib.import_module(f"toolbus_{service}.settings").Settings.model_fields
    return {f"TOOLBUS_{name.upper()}" for name in fields}


def assigned(path: Path) -> Iterator[str]:
    """Yield the variables of an environment file, also those in a comment."""
    yield from re.findall(r"^(?:# )?([A-Z_]+)=", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_only_its_own_seed_and_keys(service: str) -> None:
    wanted = {f"nkeys/{service}.seed"}
    wanted |= {"people.key"} if service != "ingress" else {"client-state.key"}
    wanted |= {"policy.key", f"encryption/{WRITERS}"} if service == "policy" else set()
    wanted |= {"oauth.key", "oauth-vault.key"} if service == "oauth" else set()
    wanted |= {f"encryption/{service}.key"} if service in READERS else set()
    assert set(credentials(unit_of(service)).values()) == wanted


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_every_file_that_compose_gives_it(service: str) -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    named = compose["services"][service]["secrets"]
    files = {compose["secrets"][each["source"]]["file"] for each in named}
    given = {f"./nats/generated/{path}" for path in credentials(unit_of(service)).values()}
    assert {path for path in files if "/generated/" in path} <= given


@pytest.mark.parametrize("service", SERVICES)
def test_every_credential_is_used_by_a_known_setting(service: str) -> None:
    lines = unit_of(service)
    values = environment(lines)
    assert set(values) <= known(service)
    files = {value.removeprefix("%d/") for value in values.values() if value.startswith("%d/")}
    if values.get("TOOLBUS_ENCRYPTION_DIR") == "%d":
        name = f"{service}.key" if service in READERS else WRITERS
        assert credentials(lines)[name] == f"encryption/{name}"
        files.add(name)
    assert set(credentials(lines)) == files


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.env")), ids=lambda path: path.name)
def test_a_sample_of_an_environment_file_has_known_settings(path: Path) -> None:
    every = set.union(*map(known, SERVICES))
    found = set(assigned(path))
    assert found <= (every if path.stem == "toolbus" else known(path.stem))
    assert found


def test_every_credential_is_written_by_nats_config(tmp_path: Path) -> None:
    subprocess.run([installed("toolbus"), "nats-config", str(tmp_path)], check=True)
    files = {file for each in SERVICES for file in credentials(unit_of(each)).values()}
    files |= set(credentials(lines_of("toolbus-nats.service")).values())
    assert {each for each in files if not (tmp_path / each).is_file()} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_time_to_drain_and_no_privileges(service: str) -> None:
    lines = unit_of(service)
    drain = Settings.model_fields["drain_seconds"].default
    assert float(last(lines, "TimeoutStopSec")) >= drain + 15
    assert last(lines, "KillMode") == "mixed"  # its child processes serve calls until it is done
    assert set(HARDENED) <= {name for name, _ in lines}
    assert last(lines, "DynamicUser") == "yes"
    assert last(lines, "StateDirectory") == f"toolbus/{service}"


def test_services_listen_on_ports_of_their_own() -> None:
    listeners = [environment(unit_of(service))["TOOLBUS_OPS_LISTEN"] for service in SERVICES]
    assert len(set(listeners)) == len(SERVICES)
    assert all(each.startswith("127.0.0.1:") for each in listeners)


def test_the_target_starts_every_unit() -> None:
    wanted = " ".join(value for name, value in lines_of("toolbus.target") if name == "Wants")
    others = {path.name for path in UNITS.glob("*.service")} - {"toolbus@.service"}
    assert set(wanted.split()) == others | {f"toolbus@{service}.service" for service in SERVICES}


def test_counters_are_persisted_and_never_evicted() -> None:
    words = last(lines_of("toolbus-valkey.service"), "ExecStart")
    assert "--appendonly yes" in words
    assert "--maxmemory-policy noeviction" in words
