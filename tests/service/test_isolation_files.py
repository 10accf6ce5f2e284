"""Files a server's process sees, reads and writes: its own, and the configured ones."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.programs import syscall_filter
from toolbus_common.config import Server
from toolbus_executor.isolation.linux.syscalls import DAC_READ_SEARCH
from toolbus_executor.isolation.plan import Isolation, isolation_of
from toolbus_executor.settings import Settings

HOSTILE = Path(__file__).parents[1] / "harness" / "programs" / "hostile_program.py"
FORBIDDING = str(Path(syscall_filter.__file__))
# Machines that refuse nothing, namespaces (most containers), or mounts (AppArmor).
MACHINES = pytest.mark.parametrize(
    "refused", [(), ("namespaces",), ("mounts",)], ids=["all", "no_namespaces", "no_mounts"]
)
_OF_OPERATOR = (
    ".npmrc", ".gitconfig", ".netrc", ".ssh/id_ed25519", ".aws/credentials", ".docker/config.json",
    ".claude.json", ".claude/settings.json", ".codex/auth.json", ".config/gh/hosts.yml",
    ".config/uv/uv.toml", ".kube/config", ".gnupg/secring.gpg", ".bash_history", ".pypirc",
)  # fmt: skip
_OF_TOOLBUS = (
    "people.key", "client-state.key", "oauth.key", "oauth-vault.key", "nkeys/executor.seed",
    "nkeys/policy.seed", "evidence/key.pem", "run.json", "caches/other/kept",
)  # fmt: skip
_OF_MACHINE = (
    "/etc/shadow", "/etc/ssh", "/etc/sudoers", "/etc/pip.conf", "/var/lib", "/var/log", "/run",
    "/home", "/srv", "/mnt", "/boot", "/sys", "/dev/mem", "/dev/kmsg",
)  # fmt: skip


@dataclass
class Machine:
    """An operator's home, Toolbus' state and a project, with files that are not a server's."""

    root: Path
    planted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for directory, names in (("home", _OF_OPERATOR), ("state", _OF_TOOLBUS)):
            self.planted += [self.plant(f"{directory}/{name}") for name in names]
        self.planted += [self.plant("elsewhere/toolbus.yaml"), self.plant("elsewhere/notes.txt")]
        (self.root / "project").mkdir()
        self.plant("project/readme.txt")

    def plant(self, name: str) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a secret")
        return str(path)

    @property
    def settings(self) -> Settings:
        return Settings(state_dir=self.root / "state")

    def isolation(self, **declared: Any) -> Isolation:
        whole = {"command": ["x"], "cwd": str(self.root / "project"), **declared}
        return isolation_of(Server.model_validate(whole), self.settings, "notes")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return machine


def run(
    isolation: Isolation, command: Sequence[str], refused: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run an isolated program on a machine that refuses these."""
    around = isolation.around(command)
    if refused:
        around = [sys.executable, FORBIDDING, *refused, "--", *around]
    environment = {"PATH": os.environ["PATH"], "SECRET_OF_EXECUTOR": ""}
    return subprocess.run(
        around,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=isolation.cwd or None,
    )


def printed(isolation: Isolation, script: str, *words: str, refused: Sequence[str] = ()) -> Any:
    """Return the JSON output of a Python program."""
    done = run(isolation, [sys.executable, "-c", script, *words], refused)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def listening(machine: Machine) -> Iterator[list[str]]:
    """Listen on sockets of the machine, by path and by abstract name."""
    abstract = f"\0toolbus-test-{os.getpid()}"
    names = [str(machine.root / "s"), str(machine.root / "home" / "s"), abstract]
    with ExitStack() as opened:
        for name in names:
            listener = opened.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(name)
            listener.listen()
        yield names


@MACHINES
def test_a_hostile_server_reaches_only_its_own_files(
    machine: Machine, refused: tuple[str, ...]
) -> None:
    planted = [*machine.planted, *(each for each in _OF_MACHINE if Path(each).exists())]
    written = [*planted, str(machine.root / "project"), "/", "/etc", "/usr", "/usr/bin"]
    victim = subprocess.Popen(["sleep", "600"], env={"SECRET": "of another"})
    with victim, listening(machine) as sockets:
        try:
            pids = [os.getpid(), os.getppid(), victim.pid, 1]
            request = {"read": planted, "write": written, "sockets": sockets, "pids": pids}
            command = [sys.executable, str(HOSTILE), json.dumps(request)]
            done = run(machine.isolation(), command, refused)
        finally:
            victim.kill()
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    # In namespaces process 1 is the server's own first process; harming it ends the server itself.
    own_first = {} if "namespaces" in refused else {"1": ["limits", "priority"]}
    assert body.pop("pids") in ({}, own_first)
    allowed = {"home": ["own"], "read": [], "write": [], "sockets": [], "devices": [], "gains": []}
    # Without this right the server's own user could not read what is shown of root's directories.
    rights = body["rights"] if refused and os.geteuid() == 0 else []
    assert {int(each, 16) for each in rights} <= {1 << DAC_READ_SEARCH}
    body["home"] = [each for each in body["home"] if each != ".cache"]
    assert body == {**allowed, "groups": [], "rights": rights, "is_root": False}
    for each in machine.planted:
        assert Path(each).read_text() == "a secret"


OPENS = """
import json, pathlib, sys
def can(what):
    try:
        what()
    except OSError:
        return False
    return True
print(json.dumps({each: "rw"[:can((pathlib.Path(each) / "there").read_text)]
                        + "w"[:can(lambda: (pathlib.Path(each) / "new").write_text("x"))]
                  for each in sys.argv[1:]}))
"""


@MACHINES
def test_configured_files_extend_the_view_and_the_working_directory_is_readable(
    machine: Machine, refused: tuple[str, ...]
) -> None:
    root = machine.root
    for name in ("project", "given", "shown", "other"):
        machine.plant(f"{name}/there")
    directories = {name: str(root / name) for name in ("project", "given", "shown", "other")}
    files = {"read": [directories["shown"]], "write": [directories["given"]]}
    result = printed(machine.isolation(files=files), OPENS, *directories.values(), refused=refused)
    assert {Path(each).name: how for each, how in result.items()} == {
        "project": "r", "given": "rw", "shown": "r", "other": "",
    }  # fmt: skip
    written = root / "given" / "new"
    assert written.read_text() == "x"
    assert written.stat().st_uid == os.geteuid() or refused, "the executor owns it, as before"


@MACHINES
def test_a_configured_file_of_the_home_is_in_the_private_home(
    machine: Machine, refused: tuple[str, ...]
) -> None:
    script = """
import json, os
os.chdir(os.path.expanduser("~"))
print(json.dumps([os.listdir("."), open(".npmrc").read()]))
"""
    result = printed(machine.isolation(files={"read": ["~/.npmrc"]}), script, refused=refused)
    assert (set(result[0]) - {".cache"}, result[1]) == ({".npmrc"}, "a secret")


def test_private_files_of_a_process_are_limited_and_removed_with_it(machine: Machine) -> None:
    script = """
import json, os
places = [os.path.expanduser("~/kept"), "/tmp/kept", "/var/tmp/kept", "/dev/shm/kept"]
before, written, error = [each for each in places if os.path.exists(each)], 0, 0
for place in places:
    with open(place, "wb", 0) as file:
        try:
            while written < 64:
                file.write(bytes(1 << 20))
                written += 1
        except OSError as refused:
            error = refused.errno
print(json.dumps([before, error, written]))
"""
    isolation = machine.isolation(limits={"scratch": 8})
    for _ in range(2):
        before, error, written = printed(isolation, script)
        assert (before, error, written <= 8) == ([], errno.ENOSPC, True)


@MACHINES
def test_the_cache_of_a_package_manager_persists_for_its_server_only(
    machine: Machine, refused: tuple[str, ...]
) -> None:
    script = """
import json, os, pathlib
kept = pathlib.Path(os.environ["npm_config_cache"]) / "kept"
was = kept.exists()
kept.parent.mkdir(parents=True, exist_ok=True)
kept.write_text("x")
print(json.dumps(was))
"""
    mine = machine.isolation()
    other = isolation_of(Server(command=("x",)), machine.settings, "other")
    keeps = not refused or os.geteuid() != 0
    items = [printed(each, script, refused=refused) for each in (mine, mine, other)]
    assert items == [False, keeps, False]


def test_a_state_directory_in_the_working_directory_is_hidden(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = machine.root / "project"
    seed = machine.plant("project/.toolbus/nkeys/executor.seed")
    file = machine.plant("project/toolbus.yaml")
    monkeypatch.setenv("TOOLBUS_FILE", file)
    declared = Server(command=("x",), cwd=str(project))
    isolation = isolation_of(declared, Settings(state_dir=project / ".toolbus"), "notes")
    script = """
import json, os, sys
def text(path):
    try:
        return open(path).read()
    except OSError:
        return ""
print(json.dumps([*map(text, sys.argv[1:]), os.listdir(".toolbus"), text("readme.txt")]))
"""
    assert printed(isolation, script, seed, file) == ["", "", [], "a secret"]
    done = run(isolation, ["true"], ("namespaces",))
    assert done.returncode == 1
    assert f"{project / '.toolbus'}, which no server may read" in done.stderr
    advice = "configure narrower paths in 'files' and 'cwd'"
    assert advice in done.stderr


def test_where_the_keys_cannot_be_hidden_a_server_does_not_start(machine: Machine) -> None:
    done = run(machine.isolation(), ["true"], ("namespaces", "landlock"))
    assert done.returncode == 1
    assert "has neither user namespaces nor Landlock" in done.stderr
    assert "permit user namespaces" in done.stderr
    with_namespaces = run(machine.isolation(), ["true"], ("landlock",))
    assert with_namespaces.returncode == 0, "namespaces suffice without Landlock"


@MACHINES
def test_two_processes_of_one_server_share_neither_user_nor_home(
    machine: Machine, refused: tuple[str, ...]
) -> None:
    script = """
import json, os, sys
open(os.path.expanduser("~/mine"), "w").close()
print(json.dumps([os.getuid(), os.listdir(os.path.expanduser("~"))]), flush=True)
sys.stdin.read()
"""
    command = machine.isolation().around([sys.executable, "-c", script])
    if refused:
        command = [sys.executable, FORBIDDING, *refused, "--", *command]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {"PATH": os.environ["PATH"]}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    body = [json.loads(each.stdout.readline()) for each in both if each.stdout]
    for each in both:
        each.communicate()
    assert [set(files) - {".cache"} for _user, files in body] == [{"mine"}, {"mine"}]
    if os.geteuid() == 0:
        assert body[0][0] != body[1][0]


def test_the_number_of_processes_is_limited_without_a_control_group(machine: Machine) -> None:
    script = """
import json, os, signal
pids = []
try:
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except OSError as error:
    number = error.errno
for pid in pids:
    os.kill(pid, signal.SIGKILL)
print(json.dumps([len(pids), number]))
"""
    isolation = machine.isolation(limits={"processes": 20})
    count, number = printed(isolation, script)
    assert (10 < count < 20, number) == (True, 11)
