"""What a declared process is held to, and which declarations hold it to nothing sensible."""

import marshal
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from toolbus_common.declared import Server
from toolbus_executor.isolation import cgroup
from toolbus_executor.isolation.plan import Isolation, isolation_of
from toolbus_executor.settings import Settings

COMMAND = {"command": ["cat"]}
HOSTS: dict[str, Any] = {"network": {"hosts": ["a.example", "*.b.example:443"]}}
IMAGE = "registry.example/notes@sha256:" + "0a" * 32


def held(settings: Settings | None = None, **declared: Any) -> Isolation:
    """What such a server is held to."""
    return isolation_of(Server(**{**COMMAND, **declared}), settings or Settings())


def test_without_a_word_a_server_has_its_users_files_and_network() -> None:
    isolation = held()
    assert (isolation.files, isolation.network, isolation.namespaces) == (None, "any", True)
    assert (isolation.limits.memory, isolation.limits.files) == (4096, 4096)


def test_files_without_more_are_all_to_be_read_and_its_directory_to_be_written() -> None:
    files = held(files={}, cwd="/srv/tools").files
    assert files is not None
    assert (files.read, files.write) == (("/",), ("/srv/tools",))
    nowhere = held(files={}).files
    assert nowhere is not None
    assert nowhere.write == (), "the executor's own directory is not the server's"


def test_a_home_is_the_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/ex")
    files = held(files={"read": ["~/docs"], "write": ["~/.npm"]}).files
    assert files is not None
    assert (files.read, files.write) == (("/srv/ex/docs",), ("/srv/ex/.npm",))


def test_what_a_program_is_made_of_can_be_read() -> None:
    assert str(Path(sys.executable).resolve().parent) in held(command=[sys.executable]).base
    assert sys.prefix in held(command=[], python=["shop:quote"]).base


def test_the_secrets_of_toolbus_are_hidden(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", nkey_seed_file=str(tmp_path / "own.seed"))
    state, seed = str(tmp_path / "state"), str(tmp_path / "own.seed")
    assert held(settings).hidden == (state, seed)
    assert held(settings, cwd=f"{state}/tools").hidden == (f"{state}/nkeys", seed)
    assert held(settings, command=["sh", f"{state}/it.sh"]).hidden == (f"{state}/nkeys", seed)


def test_where_hosts_are_listed_the_network_is_its_own_and_the_machines_sockets_are_hidden() -> (
    None
):
    isolation = held(**HOSTS)
    assert isolation.network == "hosts"
    assert {"/run/nscd", "/run/docker.sock"} <= set(isolation.hidden)
    assert "/run/nscd" not in held().hidden
    listed = Server.model_validate({**COMMAND, **HOSTS})
    assert Server.model_validate_json(listed.model_dump_json()) == listed


def test_memory_that_ran_out_is_read_of_the_group(tmp_path: Path) -> None:
    group = Path(cgroup.place(str(tmp_path)))
    assert not cgroup.ran_out(str(tmp_path))
    group.mkdir()
    events = group / "memory.events"
    for told, ran_out in (("oom 3\noom_kill 0\n", False), ("oom_kill 2\n", True), ("?", False)):
        events.write_text(told)
        assert cgroup.ran_out(str(tmp_path)) is ran_out


def test_what_is_told_to_the_launcher_is_what_is_held() -> None:
    *_, told, program, word = held(network="none", limits={"memory": 64}).around(["cat", "-u"])
    plan = marshal.loads(bytes.fromhex(told))
    assert (plan["network"], plan["limits"]["memory"], plan["files"]) == ("none", 64, None)
    assert (program, word) == ("cat", "-u")


def test_a_control_group_is_told_its_limits_and_is_out_of_sight() -> None:
    isolation = held(Settings(cgroup="/sys/fs/cgroup/tb"), limits={"cpu": 0.5, "memory": 64})
    plan = marshal.loads(bytes.fromhex(isolation.around(["cat"])[-2]))
    assert plan["hidden"][-1] == plan["cgroup"] == "/sys/fs/cgroup/tb"
    assert cgroup.values(plan["limits"]) == {
        "memory.max": str(64 << 20),
        "memory.oom.group": "1",
        "pids.max": "512",
        "cpu.max": "50000 100000",
    }
    assert "cpu.max" not in cgroup.values({**plan["limits"], "cpu": None})


@pytest.mark.parametrize(
    ("declared", "place"),
    [
        ({**COMMAND, "files": {"read": ["docs"]}}, "must begin with /"),
        ({**COMMAND, "network": "some"}, r"must be any, loopback, none, or a list: \{hosts:"),
        ({**COMMAND, "network": {"host": ["a.example"]}}, "must be any, loopback, none"),
        ({**COMMAND, "network": {"hosts": []}}, "at least 1 item"),
        ({**COMMAND, "network": {"hosts": ["127.1"]}}, "is no range, address or name"),
        ({**COMMAND, "network": {"hosts": ["https://a.example"]}}, "is no range, address or name"),
        ({**COMMAND, "network": {"hosts": ["a.example b.example"]}}, "must be one host"),
        ({**COMMAND, **HOSTS, "namespaces": False}, "network needs namespaces"),
        ({"container": {"image": IMAGE}, **HOSTS}, "any, loopback or none, not a list of hosts"),
        ({**COMMAND, "limits": {"cpu_seconds": 0}}, "cpu_seconds"),
        ({"grpc": "grpc://a.example:1", "ca": "/ca.pem"}, "belongs to what is called over TLS"),
        ({"grpc": "grpcs://a.example:1", "proxy": "none"}, "proxy belongs to"),
        ({"url": "https://a.example", "probe_path": "/well"}, "probe_path belongs to openapi"),
        ({"openapi": "/a.json", "probe_path": "well"}, "must begin with /"),
        ({"openapi": "/a.json", "probe_path": "/a b"}, "must begin with /"),
        ({**COMMAND, "network": "none", "namespaces": False}, "network needs namespaces"),
        ({**COMMAND, "limits": {"memory": 1}}, "memory"),
        (
            {"url": "https://a.example", "files": {}},
            "files belongs to command, python and container",
        ),
        ({"url": "https://a.example", "idle": 5}, "idle belongs to command, python and container"),
        ({"url": "https://a.example", "network": "none"}, "network belongs to"),
    ],
)
def test_bounds_that_make_no_sense_are_faults(declared: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        Server(**declared)
