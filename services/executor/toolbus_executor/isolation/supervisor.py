"""Supervises a server's program: nothing of it is left when it ends, or when we do.

Where namespaces are permitted there are three processes: this one, in ours; the first of a
namespace of processes, with whose end the kernel ends all others in it; and the program, which
sees a root of its own (`view`). Elsewhere there are two, Landlock holds the program to its files,
and this one ends whatever the program started, of which it is the heir.
Its first line on standard error tells what is in force.
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
from toolbus_executor.isolation.visible_paths import CannotBeHeldError, Places, found, places_of

TYPE_CHECKING = False  # `typing` would cost more to import than all the rest
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
_MAPPED, _BUILT = b"m", b"b"  # words between a supervisor and the first of namespaces


def supervise(told: str, command: list[str]) -> None:
    """Start the program, outlive it by a moment, and end as it did; never returns."""
    # Neither `json` nor `typing`: each would cost more to import than all the rest.
    plan = SimpleNamespace(**marshal.loads(bytes.fromhex(told)))  # noqa: S302 - our own words
    os.setsid()  # and no terminal of ours
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
    places = _prepared(plan, command)
    go = os.pipe()  # a word through it begins the program; its end, that we are gone
    child, inside = _begun(plan, command, places, go)
    grouped = cgroup.enter(plan.cgroup, child, plan.limits) if plan.cgroup else {}
    for descriptor in (0, 1, go[0]):
        os.close(descriptor)
    if plan.hatch >= 0:
        os.close(plan.hatch)
    kernel.die_with_parent(signal.SIGKILL if inside else signal.SIGTERM)
    if os.getppid() != plan.parent:
        end(_KILLED)
    os.write(go[1], marshal.dumps(grouped))
    code = reaper.ends_of(child, 0 if inside else plan.limits["cpu_seconds"])
    _tell_limit(plan, code)
    end(code)


def _prepared(plan: SimpleNamespace, command: list[str]) -> Places:
    """Find the program, whom it is to be, and what it sees."""
    plan.program = found(command[0], os.environ.get("PATH", os.defpath))
    plan.user = user_ids.own() if plan.confined else 0
    try:
        return places_of(plan, command, os.environ)
    except CannotBeHeldError as error:
        _refuse(str(error))


def _tell_limit(plan: SimpleNamespace, code: int) -> None:
    """Say which limit ended it, if one did."""
    if plan.limits["cpu_seconds"] and code == _TOO_LONG:
        os.write(2, b"isolation: ended by cpu_seconds\n")
    elif plan.cgroup and cgroup.ran_out(plan.cgroup):
        os.write(2, b"isolation: ended by memory\n")


def _begun(
    plan: SimpleNamespace, command: list[str], places: Places, go: tuple[int, int]
) -> tuple[int, bool]:
    """The child that begins when told to, and whether it is in namespaces of its own."""
    wanted = _SPACES | (0 if plan.network == "any" else kernel.NEW_NET)
    # Who is root needs no user namespace to be somebody else.
    ways = (wanted, wanted | kernel.NEW_USER) if plan.user else (wanted | kernel.NEW_USER,)
    for spaces in ways if plan.namespaces and plan.confined else ():
        child = _in_namespaces(spaces, plan, command, places, go)
        if child > 0:
            return child, True
    if plan.confined:
        _make_scratch(plan, places)
    child = os.fork()
    if child == 0:
        plan.grouped = _wait_for_parent(go)
        _be_alone(plan, command, places)
    return child, False


def _in_namespaces(
    spaces: int, plan: SimpleNamespace, command: list[str], places: Places, go: tuple[int, int]
) -> int:
    """Clone the first process of new namespaces, with what it sees built; 0 where that fails."""
    user = 0 if spaces & kernel.NEW_USER else plan.user
    mapping = user_ids.mapping(user)
    answer = os.pipe()
    child = kernel.clone(spaces)
    if child == 0:
        kernel.die_with_parent(signal.SIGKILL)
        os.close(answer[0])
        if os.read(go[0], 1) != _MAPPED:
            os._exit(1)
        _be_first(plan, command, places, (user, mapping), go, answer[1])
    os.close(answer[1])
    if mapping >= 0:
        os.close(mapping)
    done = child > 0 and (not spaces & kernel.NEW_USER or kernel.map_users(child))
    if done:
        os.write(go[1], _MAPPED)
        done = os.read(answer[0], 1) == _BUILT
    os.close(answer[0])
    if child > 0 and not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return child if done else 0


def _be_first(
    plan: SimpleNamespace,
    command: list[str],
    places: Places,
    users_of: tuple[int, int],
    go: tuple[int, int],
    answer: int,
) -> None:
    """Be the first process of the namespaces, as long as the program runs."""
    user, mapping = users_of
    if plan.network in ("loopback", "hosts") and not kernel.raise_loopback():
        _refuse(f"network is declared as {plan.network}, which this machine cannot give it")
    try:
        # The machine's /proc says little of others to who is confined by Landlock, see `confine`.
        proc = landlock.version(kernel.libc) >= landlock.SCOPES_FROM
        own_proc = view.build(plan, places, user, mapping, proc=proc)
    except OSError:
        os._exit(1)  # another way is tried
    os.write(answer, _BUILT)
    os.close(answer)
    alive = os.dup(go[0])  # as long as our supervisor is
    plan.grouped = _wait_for_parent(go)
    if plan.network == "hosts":
        socket_handover.name_as_proxy(socket_handover.hand_over(plan.hatch))
    private_directory.give_home(plan.home, f"{plan.home}/{view.CACHE}", "")
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
        kernel.die_with_parent(signal.SIGKILL)  # forgotten with the change
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)
    kernel.forget_capabilities()
    kernel.be_opaque()
    _let_go()
    os._exit(reaper.ends_of(program, plan.limits["cpu_seconds"]))


def _make_scratch(plan: SimpleNamespace, places: Places) -> None:
    """Prepare what is private where nothing can be mounted, and decide who the server is."""
    if plan.token[0]:
        places.read.append(plan.token[0])
    if plan.user:
        plan.cache = ""  # ours, and not that user's to enter
        try:
            plan.right = user_ids.right_for(plan.user, [plan.program, *places.read], places.write)
        except OSError:  # root without the right to be somebody else
            plan.user = 0
    try:
        plan.scratch = private_directory.make(plan.user)
        declared = [*plan.read, *plan.write]
        private_directory.link_declared(plan.home, f"{plan.scratch}/home", declared)
        private_directory.link_token(f"{plan.scratch}/home", plan.token)
    except OSError as error:
        _refuse(f"its private home cannot be made: {error.strerror}: {error.filename}")


def _be_alone(plan: SimpleNamespace, command: list[str], places: Places) -> None:
    """Be the program, without namespaces."""
    if plan.network != "any":
        _refuse(
            f"network is declared as {plan.network}, and this machine permits no network "
            "namespace; leave network out, or run it where there are user namespaces"
        )
    if not plan.confined:
        kernel.keep_privileges()
        _execute(plan, command, {"no new privileges": True})
    home = f"{plan.scratch}/home"
    private_directory.give_home(home, plan.cache or f"{home}/{view.CACHE}", f"{plan.scratch}/tmp")
    if not plan.cwd:
        plan.home = home
    try:
        lock(places, [plan.scratch, *filter(None, (plan.cache,))])
    except CannotBeHeldError as error:
        _refuse(str(error))
    _become(plan, command, _NOTHING | {"own user": bool(plan.user)}, plan.user, alone=True)


def _wait_for_parent(go: tuple[int, int]) -> dict[str, bool]:
    """Wait until all is prepared, and for what limits us together; end with the parent."""
    os.close(go[1])
    kernel.die_with_parent(signal.SIGKILL)
    told = os.read(go[0], select.PIPE_BUF)
    if not told or select.select([go[0]], [], [], 0)[0]:
        os._exit(1)
    os.close(go[0])
    grouped: dict[str, bool] = marshal.loads(told)  # noqa: S302 - our own words
    return grouped


def _become(
    plan: SimpleNamespace,
    command: list[str],
    held: dict[str, bool],
    user: int,
    *,
    alone: bool = False,
) -> None:
    """Be confined, say how, and become the program."""
    try:
        held |= confine(plan, held, user)
        if alone:
            kernel.die_with_parent(signal.SIGKILL)  # forgotten with a change of user
            filtered = filter_calls()
            held |= {"sockets that are files": filtered, "abstract sockets": filtered}
        _execute(plan, command, held)
    except CannotBeHeldError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"it cannot be held to a user of its own: {error.strerror}")


def _execute(plan: SimpleNamespace, command: list[str], held: dict[str, bool]) -> None:
    """Become the program where it is to work."""
    restore_signals()
    place = plan.cwd or (plan.home if plan.confined else "")
    try:
        os.chdir(place or ".")
    except OSError as error:
        _refuse(f"cannot work in {place}: {error.strerror}")
    words = [f"{'+' if is_so else '-'}{what}" for what, is_so in held.items()]
    os.write(2, f"isolation: {', '.join(words)}\n".encode())
    try:
        os.execv(plan.program, command)  # noqa: S606 - there is no shell in it
    except OSError as error:  # by its number: words from here on could be the program's
        os.write(2, f"isolation: cannot start: {error.errno}\n".encode())
        os._exit(1)


def _let_go() -> None:
    """Hold none of the program's pipes, so that its ends of them are the last."""
    silent = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    os.close(silent)


def _refuse(sentence: str) -> NoReturn:
    os.write(2, f"isolation: refused: {sentence}\n".encode())
    os._exit(1)
