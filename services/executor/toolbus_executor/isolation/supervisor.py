"""Supervises a server's program: nothing of it is left when it ends, or when we do.

Where namespaces are permitted there are three processes: this one, in ours; the first of a
namespace of processes, with whose end the kernel ends all others in it; and the program. Elsewhere
there are two, and this one ends whatever the program started, of which it is the heir.
Its first line on standard error tells what is in force.
"""

import marshal
import os
import select
import signal
from types import SimpleNamespace

from toolbus_executor.isolation import cgroup, hatch, kernel, reaping
from toolbus_executor.isolation.confinement import CannotBeHeldError, confine, restore_signals

_SPACES = kernel.NEW_PIDS | kernel.NEW_MOUNTS | kernel.NEW_IPC
_KILLED = 128 + signal.SIGKILL
_TOO_LONG = 128 + signal.SIGXCPU
_NOTHING = {"own processes": False, "own user": False, "own /proc": False}


def supervise(told: str, command: list[str]) -> None:
    """Start the program, outlive it by a moment, and end as it did; never returns."""
    # Neither `json` nor `typing`: each would cost more to import than all the rest.
    plan = SimpleNamespace(**marshal.loads(bytes.fromhex(told)))  # noqa: S302 - our own words
    os.setpgid(0, 0)
    kernel.inherit_orphans()

    def end(code: int) -> None:
        reaping.end_descendants()
        if plan.cgroup:
            cgroup.leave(plan.cgroup)
        reaping.exit_as(code)

    signal.signal(signal.SIGTERM, lambda *_about: end(_KILLED))
    go = os.pipe()  # a word through it begins the program; its end, that we are gone
    child, inside = _begun(plan, command, go)
    grouped = cgroup.enter(plan.cgroup, child, plan.limits) if plan.cgroup else {}
    for descriptor in (0, 1, go[0]):
        os.close(descriptor)
    if plan.hatch >= 0:
        os.close(plan.hatch)
    kernel.die_with_parent(signal.SIGKILL if inside else signal.SIGTERM)
    if os.getppid() != plan.parent:
        end(_KILLED)
    os.write(go[1], marshal.dumps(grouped))
    code = reaping.ends_of(child, 0 if inside else plan.limits["cpu_seconds"])
    _tell_limit(plan, code)
    end(code)


def _tell_limit(plan: SimpleNamespace, code: int) -> None:
    """Say which limit ended it, if one did."""
    if plan.limits["cpu_seconds"] and code == _TOO_LONG:
        os.write(2, b"isolation: ended by cpu_seconds\n")
    elif plan.cgroup and cgroup.ran_out(plan.cgroup):
        os.write(2, b"isolation: ended by memory\n")


def _begun(plan: SimpleNamespace, command: list[str], go: tuple[int, int]) -> tuple[int, bool]:
    """The child that begins when told to, and whether it is in namespaces of its own."""
    wanted = _SPACES | (0 if plan.network == "any" else kernel.NEW_NET)
    for spaces in (wanted | kernel.NEW_USER, wanted) if plan.namespaces else ():
        child = kernel.clone(spaces)
        if child == 0:
            plan.grouped = _wait_for_parent(go)
            _be_first(plan, command, own_user=bool(spaces & kernel.NEW_USER))
        if child > 0 and (not spaces & kernel.NEW_USER or kernel.map_users(child)):
            return child, True
        if child > 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    child = os.fork()
    if child == 0:
        plan.grouped = _wait_for_parent(go)
        _be_alone(plan, command)
    return child, False


def _be_first(plan: SimpleNamespace, command: list[str], *, own_user: bool) -> None:
    """Be the first process of the namespaces, as long as the program runs."""
    held = {
        "own processes": True,
        "own user": own_user,
        "own /proc": kernel.own_mounts(),
        "hidden files": kernel.hide(plan.hidden),
    }
    if plan.network in ("loopback", "hosts") and not kernel.raise_loopback():
        _refuse(f"network is declared as {plan.network}, which this machine cannot give it")
    if plan.network == "hosts":
        hatch.name_as_proxy(hatch.hand_over(plan.hatch))
    program = os.fork()
    if program == 0:
        os.setsid()
        _become(plan, command, held)
    _let_go()
    os._exit(reaping.ends_of(program, plan.limits["cpu_seconds"]))


def _be_alone(plan: SimpleNamespace, command: list[str]) -> None:
    """Be the program, without namespaces."""
    if plan.network != "any":
        _refuse(
            f"network is declared as {plan.network}, and this machine permits no network "
            "namespace; leave network out, or run it where there are user namespaces"
        )
    hidden = not any(map(os.path.exists, plan.hidden))
    _become(plan, command, _NOTHING | {"hidden files": hidden})


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


def _become(plan: SimpleNamespace, command: list[str], held: dict[str, bool]) -> None:
    """Be confined, say how, and become the program."""
    program = _found(command[0])  # before files are out of reach, modules of Python's own too
    try:
        held |= confine(plan, own_user=held["own user"])
        restore_signals()
        words = [f"{'+' if is_so else '-'}{what}" for what, is_so in held.items()]
        os.write(2, f"isolation: {', '.join(words)}\n".encode())
        os.execv(program, command)  # noqa: S606 - there is no shell in it
    except CannotBeHeldError as error:
        _refuse(str(error))
    except OSError as error:  # by its number: words from here on could be the program's
        os.write(2, f"isolation: cannot start: {error.errno}\n".encode())
        os._exit(1)


def _found(program: str) -> str:
    """Where a program is, by the path it is given."""
    for directory in os.environ.get("PATH", os.defpath).split(":") if "/" not in program else ():
        place = os.path.join(directory, program)  # noqa: PTH118 - pathlib is not worth its import
        if os.path.isfile(place) and os.access(place, os.X_OK):  # noqa: PTH113
            return place
    return program


def _let_go() -> None:
    """Hold none of the program's pipes, so that its ends of them are the last."""
    silent = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    os.close(silent)


def _refuse(sentence: str) -> None:
    os.write(2, f"isolation: refused: {sentence}\n".encode())
    os._exit(1)
