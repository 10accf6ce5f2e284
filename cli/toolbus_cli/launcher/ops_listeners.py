"""Addresses of the operations listeners: a distinct one for each process of the launcher."""

from collections.abc import Mapping, Sequence

from toolbus_cli.errors import CommandError
from toolbus_cli.launcher import ports
from toolbus_common.listen_address import HostPort

HIGHEST = 65_535
ANY = HostPort(ports.LOOPBACK, 0)


def listeners(first: HostPort, processes: Sequence[str], remembered: object) -> dict[str, HostPort]:
    """Return the address of each process: consecutive ports, or free ports if the first is 0.

    `remembered` contains the ports of an earlier start, by process. Raises `CommandError` if a port
    is not available.
    """
    if first.port + len(processes) - 1 > HIGHEST:
        raise CommandError(
            f"--ops-listen {first} has too few ports above it for {len(processes)} processes; "
            "choose a lower port."
        )
    before = remembered if isinstance(remembered, dict) else {}
    return {
        name: HostPort(first.host, _port(first, place, before.get(name)))
        for place, name in enumerate(processes)
    }


def _port(first: HostPort, place: int, remembered: object) -> int:
    """Return a port for one process; no other listener of this launcher uses it."""
    if first.port == 0:
        return ports.free(None if ports.is_kept(remembered) else remembered)
    port = first.port + place
    if ports.is_kept(port):
        raise CommandError(
            f"--ops-listen {first} assigns one port per process, and port {port} is already used "
            "by this launcher; choose another port."
        )
    return ports.requested(first.host, port, option="--ops-listen")


def urls(addresses: Mapping[str, HostPort]) -> dict[str, str]:
    """Return the URL of the operations listener of each service."""
    return {
        service: f"http://{_reachable(address)}"
        for process, address in addresses.items()
        for service in process.split("+")
    }


def _reachable(address: HostPort) -> HostPort:
    everywhere = address.host in ("0.0.0.0", "::")  # noqa: S104
    return HostPort(ports.LOOPBACK, address.port) if everywhere else address
