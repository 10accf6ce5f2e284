"""The isolation of a declared process, and settings that are rejected."""

import marshal
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import toolbus_common
from toolbus_common.config import Server
from toolbus_common.config.servers.isolation import Files
from toolbus_executor.isolation.linux import cgroup
from toolbus_executor.isolation.plan import Isolation, isolation_of
from toolbus_executor.isolation.visible_paths import VisiblePaths
from toolbus_executor.settings import Settings

COMMAND = {"command": ["cat"]}
HOSTS: dict[str, Any] = {"network": {"hosts": ["a.example", "*.b.example:443"]}}
IMAGE = "registry.example/notes@sha256:" + "0a" * 32


def held(settings: Settings | None = None, **declared: Any) -> Isolation:
    """Return the isolation of a server declared so."""
    return isolation_of(Server(**{**COMMAND, **declared}), settings or Settings())


def test_by_default_a_server_has_the_network_but_no_files() -> None:
    isolation = held()
    assert (isolation.files, isolation.network, isolation.namespaces) == (Files(), "any", True)
    assert (isolation.cwd, isolation.base, isolation.confined) == ("", (), True)
    assert (isolation.limits.memory, isolation.limits.files) == (4096, 4096)


def test_only_a_container_engines_command_is_not_confined() -> None:
    assert not held(command=[], container={"image": IMAGE}).confined
    assert held(command=[], python=["shop:quote"]).confined


def seen(isolation: Isolation, *command: str) -> VisiblePaths:
    return isolation.places(command, {"PATH": "/usr/bin:/bin"})


def test_a_tilde_means_the_executors_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("docs", ".npm"):
        (tmp_path / name).mkdir()
    isolation = held(files={"read": ["~/docs"], "write": ["~/.npm"]})
    places = seen(isolation, "cat")
    assert isolation.home == str(tmp_path)
    assert (places.read, places.write) == ([f"{tmp_path}/docs"], [f"{tmp_path}/.npm"])


@pytest.mark.parametrize("home", ["", "/", "relative", "/usr/lib/there", "/dev/there"])
def test_an_unusable_home_is_replaced(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert held().home == "/home/server"


def test_a_programs_interpreter_and_libraries_are_readable() -> None:
    interpreter = Path(sys.executable).resolve().parents[1] / "lib"
    for isolation, command in (
        (held(), [sys.executable]),
        (held(command=[], python=["shop:quote"]), [sys.executable, "-m", "x"]),
    ):
        places = seen(isolation, *command)
        for path in (sys.prefix, str(interpreter), toolbus_common.__file__):
            assert places.shows(path) == "read"


def test_a_commands_script_is_readable_but_not_the_files_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script, neighbour, package = (tmp_path / each for each in ("a.py", "b.py", "package/dist"))
    package.mkdir(parents=True)
    for each in (script, neighbour, package / "index.js", package.parent / "package.json"):
        each.touch()
    shows = seen(held(), "python3", "-u", str(script), str(neighbour)).shows
    assert [shows(str(each)) for each in (script, neighbour, tmp_path)] == ["read", "", ""]
    assert seen(held(), "cat", str(script)).shows(str(script)) == ""
    assert seen(held(), "python3", "-c", str(script)).shows(str(script)) == ""
    shows = seen(held(), "node", str(package / "index.js")).shows
    assert [shows(str(each)) for each in (package.parent, script)] == ["read", ""]
    (tmp_path / "package.json").touch()
    assert seen(held(), "node", str(script)).shows(str(neighbour)) == "", (
        "a home with a package.json is not a package"
    )


def test_a_users_program_is_readable_but_not_the_files_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("bin/own", ".local/bin/tool", ".local/share/keyrings/k", ".local/lib/x/y", ".s"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
    own = seen(held(), str(tmp_path / "bin/own"))
    assert [own.shows(str(tmp_path / each)) for each in ("bin/own", ".s")] == ["read", ""]
    tool = seen(held(), str(tmp_path / ".local/bin/tool"))
    shown = [tool.shows(f"{tmp_path}/.local/{each}") for each in ("lib/x/y", "share/keyrings/k")]
    assert shown == ["read", ""]


def test_the_secrets_of_toolbus_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("own.seed", "people.key", "vault.key", "people.next.key")]
    for each in files:
        each.touch()
    settings = Settings(
        state_dir=tmp_path / "state", nkey_seed_file=str(files[0]), people_key=files[1]
    )
    monkeypatch.setenv("TOOLBUS_OAUTH_VAULT_FILE", str(files[2]))
    assert {str(tmp_path / "state"), *map(str, files)} <= set(held(settings).hidden)
    assert str(settings.encryption) not in held(settings).hidden  # it is below the state directory
    apart = settings.model_copy(update={"encryption_dir": tmp_path / "credentials"})
    assert str(tmp_path / "credentials") in held(apart).hidden
    places = seen(held(settings, files={"read": [str(tmp_path)]}), "cat")
    assert [places.shows(str(each)) for each in files] == [""] * 4
    assert places.shows(str(tmp_path / "else")) == "read"


def test_the_machines_sockets_are_hidden_unless_one_is_declared() -> None:
    assert {"/run/nscd", "/run/docker.sock"} <= set(held().hidden)
    opened = held(files={"read": ["/run/docker.sock"]}).hidden
    assert "/run/docker.sock" not in opened
    assert "/run/nscd" in opened


def test_a_list_of_hosts_gives_the_server_its_own_network() -> None:
    assert held(**HOSTS).network == "hosts"
    listed = Server.model_validate({**COMMAND, **HOSTS})
    assert Server.model_validate_json(listed.model_dump_json()) == listed


def test_an_out_of_memory_kill_is_read_from_the_control_group(tmp_path: Path) -> None:
    group = Path(cgroup.group_path(str(tmp_path)))
    assert not cgroup.ran_out(str(tmp_path))
    group.mkdir()
    events = group / "memory.events"
    for each, ran_out in (("oom 3\noom_kill 0\n", False), ("oom_kill 2\n", True), ("?", False)):
        events.write_text(each)
        assert cgroup.ran_out(str(tmp_path)) is ran_out


def test_the_launcher_receives_the_whole_plan() -> None:
    isolation = held(network="none", limits={"memory": 64}, files={"write": ["/srv/"]})
    *_, result, program, word = isolation.around(["cat", "-u"])
    plan = marshal.loads(bytes.fromhex(result))
    assert (plan["network"], plan["limits"]["memory"], plan["write"]) == ("none", 64, ("/srv",))
    assert (program, word) == ("cat", "-u")


def test_a_control_group_has_the_limits_and_is_hidden() -> None:
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
        (
            {**COMMAND, "network": {"hosts": ["127.1"]}},
            "is not an address range, an address or a name",
        ),
        (
            {**COMMAND, "network": {"hosts": ["https://a.example"]}},
            "is not an address range, an address or a name",
        ),
        ({**COMMAND, "network": {"hosts": ["a.example b.example"]}}, "must be one host"),
        ({**COMMAND, **HOSTS, "namespaces": False}, "'network' needs 'namespaces'"),
        ({"container": {"image": IMAGE}, **HOSTS}, "any, loopback or none; a list of hosts"),
        ({**COMMAND, "limits": {"cpu_seconds": 0}}, "cpu_seconds"),
        (
            {"grpc": "grpc://a.example:1", "ca": "/ca.pem"},
            "applies only to servers that are called over TLS",
        ),
        ({"grpc": "grpcs://a.example:1", "proxy": "none"}, "'proxy' applies only to"),
        (
            {"url": "https://a.example", "probe_path": "/well"},
            "'probe_path' applies only to servers with 'openapi'",
        ),
        ({"openapi": "/a.json", "probe_path": "well"}, "must begin with /"),
        ({"openapi": "/a.json", "probe_path": "/a b"}, "must begin with /"),
        ({**COMMAND, "network": "none", "namespaces": False}, "'network' needs 'namespaces'"),
        ({**COMMAND, "limits": {"memory": 1}}, "memory"),
        (
            {"url": "https://a.example", "files": {}},
            "'files' applies only to servers with 'command', 'python' or 'container'",
        ),
        ({"openapi": "https://a.example/api.json", "idle": 5}, "'idle' applies only to "),
        ({"url": "https://a.example", "network": "none"}, "'network' applies only to"),
    ],
)
def test_invalid_isolation_settings_are_rejected(declared: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        Server(**declared)
