"""Paths that a server's process sees: system paths, the files of its command, configured paths."""

from __future__ import annotations

import os

from toolbus_executor.isolation.program_paths import (
    SYSTEM,
    files_of,
    find_program,
    is_below,
    links_of,
)

TYPE_CHECKING = False  # importing `typing` would take longer than all other imports
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import SimpleNamespace

# Visible parts of /etc: names, certificates, libraries, time. They contain no passwords, keys or
# registry credentials.
ETC = tuple(
    f"/etc/{name}"
    for name in (
        "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies",
        "debian_version", "fonts", "gai.conf", "group", "host.conf", "hosts", "ld.so.cache",
        "ld.so.conf", "ld.so.conf.d", "locale.conf", "localtime", "mime.types", "nsswitch.conf",
        "os-release", "passwd", "pki/ca-trust", "pki/tls/cert.pem", "pki/tls/certs",
        "pki/tls/openssl.cnf", "protocols", "resolv.conf", "services", "ssl/cert.pem",
        "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
    )
)  # fmt: skip
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
CERTIFICATES = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "PIP_CERT",
)  # fmt: skip
_FALLBACK_HOME = "/home/server"
# Unix sockets work across network namespaces. These sockets connect to services that resolve names
# or run commands with rights that a server must not have.
HOST_SOCKETS = (
    "/run/nscd", "/run/systemd/resolve", "/run/dbus", "/run/avahi-daemon", "/run/docker.sock",
    "/run/podman", "/run/containerd", "/run/crio", "/run/user",
)  # fmt: skip


class IsolationError(Exception):
    """The configured isolation cannot be enforced on this machine. The text is the reason."""


class VisiblePaths:
    """The visible paths, by access.

    `system` is separate, because every user may read these paths.
    """

    def __init__(self, read: Iterable[str], write: Iterable[str], hidden: Iterable[str]) -> None:
        system = (*SYSTEM, *ETC)
        self.system = [each for each in system if os.path.lexists(each)]
        self.read = list(dict.fromkeys(read))
        self.write = list(dict.fromkeys(write))
        self.hidden = list(hidden)

    def shows(self, path: str) -> str:
        """Return the access to a path: `read`, `write`, or empty if the path is not visible."""
        real = os.path.realpath(path)
        if is_below(real, *map(os.path.realpath, self.hidden)):
            return ""
        if is_below(real, *map(os.path.realpath, self.write)):
            return "write"
        shown = (*self.system, *self.read)
        return "read" if is_below(real, *map(os.path.realpath, shown)) else ""

    def hides(self, path: str) -> bool:
        """Return whether a path is hidden from every server."""
        hidden = (*map(os.path.realpath, self.hidden), "/proc", "/dev")
        return is_below(os.path.realpath(path), *hidden)

    def links(self) -> list[tuple[str, str]]:
        """Return all symbolic links on the visible paths."""
        every = (*self.system, *self.read, *self.write)
        return list(dict.fromkeys(link for path in every for link in links_of(path)))


def visible_paths_of(
    plan: SimpleNamespace, command: Sequence[str], environment: Mapping[str, str]
) -> VisiblePaths:
    """Return the visible paths of a server's process. Raises `IsolationError`."""
    for path in (*plan.read, *plan.write):
        if not os.path.lexists(path):
            raise IsolationError(f"files contains {path}, which does not exist; create it first")
    path = environment.get("PATH", os.defpath)
    given = [environment[name] for name in CERTIFICATES if environment.get(name)]
    of_command = files_of(list(command), plan.home, path)
    cwd = [plan.cwd] if plan.cwd else []
    listed = [*of_command, *filter(os.path.exists, (*plan.base, *given)), *cwd, *plan.read]
    return VisiblePaths(filter(os.path.isabs, listed), plan.write, plan.hidden)


def home_of(environment: Mapping[str, str]) -> str:
    """Return the path at which the process sees its private home.

    It is the path of the executor's home, if possible, so that `~/` has the same meaning for both.
    """
    home = os.path.realpath(environment.get("HOME", ""))
    usable = environment.get("HOME", "").startswith("/") and home != "/"
    return (
        home if usable and not is_below(home, *SYSTEM, "/etc", "/dev", "/proc") else _FALLBACK_HOME
    )


__all__ = [
    "CERTIFICATES",
    "DEVICES",
    "HOST_SOCKETS",
    "IsolationError",
    "VisiblePaths",
    "find_program",
    "home_of",
    "visible_paths_of",
]
