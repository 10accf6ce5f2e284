"""The zygote: a small process of one thread that has the engine warm, and only forks.

Over its control socket it hears a run's number and limits, forks a child for it, answers with a
handle on that child's process and a socket to it, and later tells how the child ended.
When the service goes away the control socket closes, the zygote ends, and its children with it.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys

from toolbus_codemode.sandbox.linux import hardening
from toolbus_codemode.sandbox.linux.hardening import Confinement
from toolbus_codemode.sandbox.process.child import be_child, warm

LARGEST_ORDER = 4096
PROBE_MEMORY, PROBE_CPU = 400 << 20, 2
FORBIDDEN_CALL = 41 if os.uname().machine == "x86_64" else 198  # socket()


def probed(*, without_seccomp: bool) -> dict[str, bool]:
    """What a child is protected by: asked of one that hardens, and then breaks the filter."""
    reading, writing = os.pipe()
    me = os.getpid()
    child = os.fork()
    if not child:
        tell_and_break_out(
            writing,
            Confinement(PROBE_MEMORY, PROBE_CPU, me, 0, (), without_seccomp=without_seccomp),
        )
    os.close(writing)
    told = os.read(reading, LARGEST_ORDER)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    found: dict[str, bool] = json.loads(told or b"{}")
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
    return found | {"seccomp": found.get("seccomp", False) and killed}


def tell_and_break_out(writing: int, held: Confinement) -> None:
    """In the probe: report, then make a call that has to be this process's last."""
    try:
        os.write(writing, json.dumps(hardening.harden(held)).encode())
        hardening.libc.syscall(FORBIDDEN_CALL, 1, 1, 0)
    finally:
        os._exit(0)


class Zygote:
    """Forks on order, and tells of each child's end."""

    def __init__(self, control: socket.socket, *, without_seccomp: bool) -> None:
        self.control = control
        self.without_seccomp = without_seccomp
        self.runs: dict[int, int] = {}
        self.pid = os.getpid()

    def serve(self) -> None:
        """Until the service goes away."""
        awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        ready = selectors.DefaultSelector()
        ready.register(self.control, selectors.EVENT_READ)
        ready.register(awake, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is self.control:
                    self.hear()
                else:
                    os.read(awake, LARGEST_ORDER)
                    self.reap()

    def hear(self) -> None:
        """One order, or the end."""
        order = self.control.recv(LARGEST_ORDER)
        if not order:
            os._exit(0)
        told = json.loads(order)
        self.fork(told["run"], told["memory"], told["cpu"])

    def fork(self, run: int, memory: int, cpu: int) -> None:
        """Fork a child for this run; the service gets a handle that never names another process."""
        held = Confinement(memory, cpu, self.pid, without_seccomp=self.without_seccomp)
        ours, theirs = socket.socketpair()
        try:
            child = os.fork()
        except OSError:  # too many processes, too little memory: the service tells
            self.control.send(json.dumps({"ended": run, "status": None}).encode())
            return
        if not child:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            be_child(theirs.fileno(), held)
        self.runs[child] = run
        handle = os.pidfd_open(child)
        word = json.dumps({"started": run}).encode()
        socket.send_fds(self.control, [word], [handle, ours.fileno()])
        os.close(handle)
        ours.close()
        theirs.close()

    def reap(self) -> None:
        """Tell of the children that have ended."""
        while self.runs:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            ended = {"ended": self.runs.pop(child), "status": os.waitstatus_to_exitcode(status)}
            self.control.send(json.dumps(ended).encode())


def main() -> None:
    """Warm up, prove the protections, serve. The control socket is standard input."""
    without_seccomp = "--without-seccomp" in sys.argv
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the service, not with a key press
    warm()
    gc.collect()
    gc.freeze()
    gc.disable()
    separate = hardening.unshare()
    protections = {"namespaces": separate, **probed(without_seccomp=without_seccomp)}
    control.send(json.dumps({"ready": protections}).encode())
    Zygote(control, without_seccomp=without_seccomp).serve()


if __name__ == "__main__":
    main()
