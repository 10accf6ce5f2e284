"""Supervisor of a server's program: no descendant outlives the program or the executor.

With namespaces there are three processes: this process, which is outside the namespaces; the first
process of a PID namespace; and the program, which has a separate root (`root_view`). When the first
process of the namespace ends, the kernel ends all other processes in it.

Without namespaces there are two processes. Landlock restricts the files that the program can use,
and this process is the subreaper that ends all descendants.

The first line on standard error lists the isolation in force.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
from types import SimpleNamespace

from toolbus_common.process import landlock
from toolbus_executor.isolation.linux import cgroup, private_directory, reaper, user_ids
from toolbus_executor.isolation.linux import root_view as view
from toolbus_executor.isolation.linux import syscalls as kernel
from toolbus_executor.isolation.linux.confinement import (
    confine,
    filter_calls,
    lock,
    restore_signals,
)
from toolbus_executor.isolation.network import socket_handover
from toolbus_executor.isolation.visible_paths import (
    IsolationError,
    VisiblePaths,
    find_program,
    visible_paths_of,
)

TYPE_CHECKING = False  # importing `typing` would take longer than all other imports
if TYPE_CHECKING:
    from typing import NoReturn

_SPACES = kernel.NEW_PIDS | kernel.NEW_MOUNTS | kernel.NEW_IPC
_KILLED = 128 + signal.SIGKILL
_TOO_LONG = 128 + signal.SIGXCPU
_NOTHING = {
    "own files": False,
    "own processes": False,
    "own user": False,
    "own /proc": False,
    "size of home and /tmp": False,
}
# Messages between the supervisor and the first process of the namespaces.
_MAPPED, _BUILT = (b"m", b"b")


def supervise(data: str, command: list[str]) -> None:
    """Start the program, wait until it ends, and exit with its exit code. Does not return."""
    # Neither `json` nor `typing` is used: importing either would take longer than all other
    # imports.
    plan = SimpleNamespace(**marshal.loads(bytes.fromhex(data)))  # noqa: S302 - written by the executor
    os.setsid()  # detach from the executor's terminal
    kernel.inherit_orphans()
    plan.scratch, plan.right = "", -1

    def end(code: int) -> None:
        reaper.end_descendants()
        if plan.cgroup:
            cgroup.leave(plan.cgroup)
        if plan.scratch:
            private_directory.remove(plan.scratch)
        reaper.exit_as(code)

    signal.signal(signal.SIGTERM, lambda *_about: end(_KILLED))
    visible_paths = _prepare(plan, command)
    go = os.pipe()  # a message starts the program; end of file means that the supervisor has ended
    child, inside = _fork_program(plan, command, visible_paths, go)
    grouped = cgroup.enter(plan.cgroup, child, plan.limits) if plan.cgroup else {}
    for descriptor in (0, 1, go[0]):
        os.close(descriptor)
    if plan.handover >= 0:
        os.close(plan.handover)
    kernel.die_with_parent(signal.SIGKILL if inside else signal.SIGTERM)
    if os.getppid() != plan.parent:
        end(_KILLED)
    os.write(go[1], marshal.dumps(grouped))
    code = reaper.wait_for(child, 0 if inside else plan.limits["cpu_seconds"])
    _report_limit(plan, code)
    end(code)


def _prepare(plan: SimpleNamespace, command: list[str]) -> VisiblePaths:
    """Find the program, select its user, and return its visible paths."""
    plan.program = find_program(command[0], os.environ.get("PATH", os.defpath))
    plan.user = user_ids.own() if plan.confined else 0
    try:
        return visible_paths_of(plan, command, os.environ)
    except IsolationError as error:
        _reject(str(error))


def _report_limit(plan: SimpleNamespace, code: int) -> None:
    """Report the limit that ended the program, if one did."""
    if plan.limits["cpu_seconds"] and code == _TOO_LONG:
        os.write(2, b"isolation: ended by cpu_seconds\n")
    elif plan.cgroup and cgroup.ran_out(plan.cgroup):
        os.write(2, b"isolation: ended by memory\n")


def _fork_program(
    plan: SimpleNamespace, command: list[str], visible_paths: VisiblePaths, go: tuple[int, int]
) -> tuple[int, bool]:
    """Fork the process that waits for the start of the program.

    Return its pid, and whether it has namespaces.
    """
    wanted = _SPACES | (0 if plan.network == "any" else kernel.NEW_NET)
    # Root can change its user without a user namespace.
    attempts = (wanted, wanted | kernel.NEW_USER) if plan.user else (wanted | kernel.NEW_USER,)
    for spaces in attempts if plan.namespaces and plan.confined else ():
        child = _clone_into_namespaces(spaces, plan, command, visible_paths, go)
        if child > 0:
            return child, True
    if plan.confined:
        _make_scratch(plan, visible_paths)
    child = os.fork()
    if child == 0:
        plan.grouped = _wait_for_parent(go)
        _run_without_namespaces(plan, command, visible_paths)
    return child, False


def _clone_into_namespaces(
    spaces: int,
    plan: SimpleNamespace,
    command: list[str],
    visible_paths: VisiblePaths,
    go: tuple[int, int],
) -> int:
    """Clone the first process of new namespaces, and wait until its root view is built.

    Return its pid, or 0 if a step failed.
    """
    user = 0 if spaces & kernel.NEW_USER else plan.user
    mapping = user_ids.mapping(user)
    built = os.pipe()
    child = kernel.clone(spaces)
    if child == 0:
        kernel.die_with_parent(signal.SIGKILL)
        os.close(built[0])
        if os.read(go[0], 1) != _MAPPED:
            os._exit(1)
        _run_as_first(plan, command, visible_paths, (user, mapping), go, built[1])
    os.close(built[1])
    if mapping >= 0:
        os.close(mapping)
    done = child > 0 and (not spaces & kernel.NEW_USER or kernel.map_users(child))
    if done:
        os.write(go[1], _MAPPED)
        done = os.read(built[0], 1) == _BUILT
    os.close(built[0])
    if child > 0 and not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return child if done else 0


def _run_as_first(
    plan: SimpleNamespace,
    command: list[str],
    visible_paths: VisiblePaths,
    users_of: tuple[int, int],
    go: tuple[int, int],
    built: int,
) -> None:
    """Run as the first process of the namespaces until the program ends. Does not return."""
    user, mapping = users_of
    if plan.network in ("loopback", "hosts") and not kernel.raise_loopback():
        _reject(f"network is {plan.network}, which this machine does not support")
    try:
        # The machine's /proc reveals little to a process that Landlock confines; see `confine`.
        proc = landlock.version(kernel.libc) >= landlock.SCOPES_FROM
        own_proc = view.build(plan, visible_paths, user, mapping, proc=proc)
    except OSError:
        os._exit(1)  # the parent continues without namespaces
    os.write(built, _BUILT)
    os.close(built)
    alive = os.dup(go[0])  # its other end is open until the supervisor ends
    plan.grouped = _wait_for_parent(go)
    if plan.network == "hosts":
        socket_handover.name_as_proxy(socket_handover.hand_over(plan.handover))
    private_directory.set_home(plan.home, f"{plan.home}/{view.CACHE}", "")
    held = {
        "own files": True,
        "own processes": True,
        "own user": bool(user) or os.geteuid() == plan.uid != 0,
        "own /proc": own_proc,
        "size of home and /tmp": True,
    }
    program = os.fork()
    if program == 0:
        os.setsid()
        _become(plan, command, held, user)
    if user:
        user_ids.become(user)
        kernel.die_with_parent(signal.SIGKILL)  # the change of the user resets it
        if kernel.is_readable(alive):
            os._exit(1)
    kernel.forget_capabilities()
    kernel.be_opaque()
    _release_pipes()
    os._exit(reaper.wait_for(program, plan.limits["cpu_seconds"]))


def _make_scratch(plan: SimpleNamespace, visible_paths: VisiblePaths) -> None:
    """Create the private directories for a system without mounts, and select the user."""
    if plan.token[0]:
        visible_paths.read.append(plan.token[0])
    if plan.user:
        plan.cache = ""  # not accessible to that user
        try:
            plan.right = user_ids.right_for(
                plan.user, [plan.program, *visible_paths.read], visible_paths.write
            )
        except OSError:  # root lacks the capability to change its user
            plan.user = 0
    try:
        plan.scratch = private_directory.make(plan.user)
        declared = [*plan.read, *plan.write]
        private_directory.link_configured(plan.home, f"{plan.scratch}/home", declared)
        private_directory.link_token(f"{plan.scratch}/home", plan.token)
    except OSError as error:
        _reject(f"its private home cannot be created: {error.strerror}: {error.filename}")


def _run_without_namespaces(
    plan: SimpleNamespace, command: list[str], visible_paths: VisiblePaths
) -> None:
    """Run the program in this process, without namespaces. Does not return."""
    if plan.network != "any":
        _reject(
            f"network is {plan.network}, but this machine permits no network namespaces; remove "
            "network, or permit user namespaces"
        )
    if not plan.confined:
        kernel.keep_privileges()
        _execute(plan, command, {"no new privileges": True})
    home = f"{plan.scratch}/home"
    private_directory.set_home(home, plan.cache or f"{home}/{view.CACHE}", f"{plan.scratch}/tmp")
    if not plan.cwd:
        plan.home = home
    try:
        lock(visible_paths, [plan.scratch, *filter(None, (plan.cache,))])
    except IsolationError as error:
        _reject(str(error))
    _become(plan, command, _NOTHING | {"own user": bool(plan.user)}, plan.user, alone=True)


def _wait_for_parent(go: tuple[int, int]) -> dict[str, bool]:
    """Wait until the parent has prepared everything.

    Return which limits of the control group are in force.
    """
    os.close(go[1])
    kernel.die_with_parent(signal.SIGKILL)
    data = os.read(go[0], select.PIPE_BUF)
    if not data or kernel.is_readable(go[0]):
        os._exit(1)
    os.close(go[0])
    grouped: dict[str, bool] = marshal.loads(data)  # noqa: S302 - written by the executor
    return grouped


def _become(
    plan: SimpleNamespace,
    command: list[str],
    held: dict[str, bool],
    user: int,
    *,
    alone: bool = False,
) -> None:
    """Confine this process, report the isolation, and execute the program.

    `alone` is set if this process has no namespaces.
    """
    try:
        held |= confine(plan, held, user)
        if alone:
            kernel.die_with_parent(signal.SIGKILL)  # reset by a change of user
            filtered = filter_calls()
            held |= {"sockets that are files": filtered, "abstract sockets": filtered}
        _execute(plan, command, held)
    except IsolationError as error:
        _reject(str(error))
    except OSError as error:
        _reject(f"it cannot switch to its separate user: {error.strerror}")


def _execute(plan: SimpleNamespace, command: list[str], held: dict[str, bool]) -> None:
    """Change to the working directory, report the isolation in force, and execute the program."""
    restore_signals()
    directory = plan.cwd or (plan.home if plan.confined else "")
    try:
        os.chdir(directory or ".")
    except OSError as error:
        _reject(f"cannot change to {directory}: {error.strerror}")
    words = [f"{'+' if is_so else '-'}{what}" for what, is_so in held.items()]
    os.write(2, f"isolation: {', '.join(words)}\n".encode())
    try:
        os.execv(plan.program, command)  # noqa: S606 - no shell
    except OSError as error:  # a number, because any later text could come from the program
        os.write(2, f"isolation: cannot start: {error.errno}\n".encode())
        os._exit(1)


def _release_pipes() -> None:
    """Close this process's copies of the program's pipes.

    A pipe then closes when the program closes it.
    """
    silent = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    os.close(silent)


def _reject(reason: str) -> NoReturn:
    os.write(2, f"isolation: refused: {reason}\n".encode())
    os._exit(1)
