"""Zygote: a small single-threaded process with a warm engine that forks a child per run.

Over its control socket it receives a run's number and limits, forks a child, returns a pidfd and a
socket of the child, and later reports how the child ended. When the service ends, the control
socket closes, and the zygote and its children end too.
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
    """Return the protections of a child that hardens itself and then violates seccomp."""
    reading, writing = os.pipe()
    me = os.getpid()
    child = os.fork()
    if not child:
        tell_and_break_out(
            writing,
            Confinement(PROBE_MEMORY, PROBE_CPU, me, 0, (), without_seccomp=without_seccomp),
        )
    os.close(writing)
    report = os.read(reading, LARGEST_ORDER)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    found: dict[str, bool] = json.loads(report or b"{}")
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
    return found | {"seccomp": found.get("seccomp", False) and killed}


def tell_and_break_out(writing: int, held: Confinement) -> None:
    """Report the protections, then make a system call that must kill this process."""
    try:
        os.write(writing, json.dumps(hardening.harden(held)).encode())
        hardening.libc.syscall(FORBIDDEN_CALL, 1, 1, 0)
    finally:
        os._exit(0)


class Zygote:
    """Server that forks children on request and reports their end."""

    def __init__(self, control: socket.socket, *, without_seccomp: bool) -> None:
        self.control = control
        self.without_seccomp = without_seccomp
        self.runs: dict[int, int] = {}
        self.pid = os.getpid()

    def serve(self) -> None:
        """Serve until the service ends."""
        awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        ready = selectors.DefaultSelector()
        ready.register(self.control, selectors.EVENT_READ)
        ready.register(awake, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is self.control:
                    self.receive()
                else:
                    os.read(awake, LARGEST_ORDER)
                    self.report_ended()

    def receive(self) -> None:
        """Handle one order, or end with the service."""
        order = self.control.recv(LARGEST_ORDER)
        if not order:
            os._exit(0)
        request = json.loads(order)
        self.fork(request["run"], request["memory"], request["cpu"])

    def fork(self, run: int, memory: int, cpu: int) -> None:
        """Fork a child for this run, and send a pidfd and a socket of the child."""
        held = Confinement(memory, cpu, self.pid, without_seccomp=self.without_seccomp)
        ours, theirs = socket.socketpair()
        try:
            child = os.fork()
        except OSError:  # too many processes or too little memory; the service reports it
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

    def report_ended(self) -> None:
        """Report the children that have ended."""
        while self.runs:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            ended = {"ended": self.runs.pop(child), "status": os.waitstatus_to_exitcode(status)}
            self.control.send(json.dumps(ended).encode())


def main() -> None:
    """Warm up, check the protections, then serve the control socket at standard input."""
    without_seccomp = "--without-seccomp" in sys.argv
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the service, not on Ctrl-C
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
