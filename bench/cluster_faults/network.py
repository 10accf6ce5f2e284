"""A network namespace for each NATS server, and the links to them that can fail."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.engines.engine import die_with_parent
from harness.waits import until_blocking

INSIDE = "CHAOS_NAMESPACES"  # set in the process that has entered its namespaces
# A link with a bucket of two megabits a second, which queues up to 200 ms, and loses packets.
SLOW = ("tbf", "rate", "2mbit", "burst", "16kb", "latency", "200ms")
LOSS = 0.02


@dataclass(frozen=True)
class Link:
    """The link of one server. Its rules are those of the machine between all of them."""

    number: int
    namespace: str

    @property
    def host(self) -> str:
        """The server's address."""
        return f"10.77.{self.number}.2"

    @property
    def entry(self) -> list[str]:
        """The command that runs another one in the namespace."""
        return ["nsenter", f"--net={self.namespace}"]

    def cut_from_servers(self, *, one_way: bool = False) -> None:
        """Drop what the server sends to the others, and unless `one_way`, what they send to it."""
        self._drop("FORWARD", "-s")
        if not one_way:
            self._drop("FORWARD", "-d")

    def cut_from_services(self) -> None:
        """Drop what passes between the server and its clients."""
        self._drop("INPUT", "-s")
        self._drop("OUTPUT", "-d")

    def slow_down(self) -> None:
        """Limit the rate in both directions, and lose packets to and from the server."""
        _run("tc", "qdisc", "add", "dev", self._device, "root", *SLOW)
        _run(*self.entry, "tc", "qdisc", "add", "dev", "eth0", "root", *SLOW)
        lost = ("-m", "statistic", "--mode", "random", "--probability", str(LOSS))
        for chain, side in (
            ("FORWARD", "-s"),
            ("FORWARD", "-d"),
            ("INPUT", "-s"),
            ("OUTPUT", "-d"),
        ):
            self._drop(chain, side, *lost)

    def slow_traffic(self) -> list[str]:
        """Return what the slow link has sent and dropped in each direction."""
        found = []
        for entry, device in (([], self._device), (self.entry, "eth0")):
            words = [*entry, "tc", "-s", "qdisc", "show", "dev", device]
            shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            found += [each.strip() for each in shown.splitlines() if "Sent" in each]
        return found

    def repair(self) -> None:
        """Make the link whole again."""
        for chain in ("FORWARD", "INPUT", "OUTPUT"):
            _run("iptables", "-w", "-F", chain)
        for found in ([], self.entry):
            device = "eth0" if found else self._device
            subprocess.run(
                [*found, "tc", "qdisc", "del", "dev", device, "root"],
                stderr=subprocess.DEVNULL,
                check=False,  # fails if the link was not slow
            )

    def make(self) -> None:
        """Connect the namespace with this one."""
        _run("ip", "link", "add", self._device, "type", "veth", "peer", "name", "eth0",
             "netns", self.namespace.split("/")[2])  # fmt: skip
        _run("ip", "addr", "add", f"10.77.{self.number}.1/24", "dev", self._device)
        _run("ip", "link", "set", self._device, "up")
        for words in (
            ("addr", "add", f"{self.host}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", f"10.77.{self.number}.1"),
        ):
            _run(*self.entry, "ip", *words)

    @property
    def _device(self) -> str:
        return f"nats{self.number}"

    def _drop(self, chain: str, side: str, *how: str) -> None:
        _run("iptables", "-w", "-A", chain, side, self.host, *how, "-j", "DROP")


def enter() -> None:
    """Start this program again in a network and a mount namespace of its own.

    They end with it, so nothing on the machine changes. Users other than root need user namespaces.
    """
    if INSIDE not in os.environ:
        as_root = ["--map-root-user"] if os.geteuid() else []
        words = ["unshare", "--net", "--mount", *as_root, sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, INSIDE: "1"})
    _run("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@contextmanager
def links(count: int) -> Iterator[list[Link]]:
    """Make `count` namespaces with a link each, until the context ends."""
    with ExitStack() as stack:
        made = []
        for number in range(1, count + 1):
            holder = subprocess.Popen(
                ["unshare", "--net", "sleep", "infinity"],
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
            stack.callback(holder.kill)
            space = Path(f"/proc/{holder.pid}/ns/net")
            until_blocking(partial(_is_apart, space), "a namespace")
            made.append(Link(number, str(space)))
            made[-1].make()
        yield made


class Disks:
    """File systems that only this program and its children see."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, directory: Path, megabytes: int) -> None:
        """Mount a file system of this size."""
        directory.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory))
        self._mounted.append(directory)

    def unmount(self) -> None:
        """Unmount all."""
        while self._mounted:
            _run("umount", "--lazy", str(self._mounted.pop()))


@contextmanager
def full(*directories: Path) -> Iterator[None]:
    """Fill the file systems of these directories until the context ends."""
    fillers = [each / "filler" for each in directories]
    try:
        for each in fillers:
            _fill(each)
        yield
    finally:
        for each in fillers:
            each.unlink()


def _fill(path: Path) -> None:
    """Write until there is no space."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _is_apart(space: Path) -> bool:
    return space.readlink() != Path("/proc/self/ns/net").readlink()


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
