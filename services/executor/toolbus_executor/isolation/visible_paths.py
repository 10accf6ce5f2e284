"""Say which paths a server sees: the system, what its command is made of, and what is declared."""

from __future__ import annotations

import os

from toolbus_executor.isolation.program_paths import SYSTEM, found, is_below, links_of, made_of

TYPE_CHECKING = False  # `typing` would cost more to import than all the rest
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import SimpleNamespace

# Of /etc: names, certificates, libraries, time. No passwords, no keys, no registry's credentials.
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
# Sockets that are files lead out of any network namespace, and to rights that are not a server's:
# those who look up names for others, or run things for them.
DOORS = (
    "/run/nscd", "/run/systemd/resolve", "/run/dbus", "/run/avahi-daemon", "/run/docker.sock",
    "/run/podman", "/run/containerd", "/run/crio", "/run/user",
)  # fmt: skip


class CannotBeHeldError(Exception):
    """What was declared cannot be enforced on this machine; the sentence says what."""


class Places:
    """Paths by what may be done with them; those of the system are apart, for all may read them."""

    def __init__(self, read: Iterable[str], write: Iterable[str], hidden: Iterable[str]) -> None:
        system = (*SYSTEM, *ETC)
        self.system = [each for each in system if os.path.lexists(each)]
        self.read = list(dict.fromkeys(read))
        self.write = list(dict.fromkeys(write))
        self.hidden = list(hidden)

    def shows(self, path: str) -> str:
        """How a path is shown: not at all (empty), to `read`, or to `write`."""
        real = os.path.realpath(path)
        if is_below(real, *map(os.path.realpath, self.hidden)):
            return ""
        if is_below(real, *map(os.path.realpath, self.write)):
            return "write"
        shown = (*self.system, *self.read)
        return "read" if is_below(real, *map(os.path.realpath, shown)) else ""

    def hides(self, path: str) -> bool:
        """Whether a path is among what no server sees."""
        hidden = (*map(os.path.realpath, self.hidden), "/proc", "/dev")
        return is_below(os.path.realpath(path), *hidden)

    def links(self) -> list[tuple[str, str]]:
        """The symbolic links on the way to any of them."""
        every = (*self.system, *self.read, *self.write)
        return list(dict.fromkeys(link for path in every for link in links_of(path)))


def places_of(
    plan: SimpleNamespace, command: Sequence[str], environment: Mapping[str, str]
) -> Places:
    """What a server sees that is started like this. Raises `CannotBeHeldError`."""
    for path in (*plan.read, *plan.write):
        if not os.path.lexists(path):
            raise CannotBeHeldError(f"files names {path}, which does not exist; make it first")
    path = environment.get("PATH", os.defpath)
    given = [environment[name] for name in CERTIFICATES if environment.get(name)]
    found_out = made_of(list(command), plan.home, path)
    cwd = [plan.cwd] if plan.cwd else []
    listed = [*found_out, *filter(os.path.exists, (*plan.base, *given)), *cwd, *plan.read]
    return Places(filter(os.path.isabs, listed), plan.write, plan.hidden)


def home_of(environment: Mapping[str, str]) -> str:
    """Where a server's private home is: at the path of ours, so that `~/` means the same."""
    home = os.path.realpath(environment.get("HOME", ""))
    usable = environment.get("HOME", "").startswith("/") and home != "/"
    return (
        home if usable and not is_below(home, *SYSTEM, "/etc", "/dev", "/proc") else _FALLBACK_HOME
    )


__all__ = [
    "CERTIFICATES",
    "DEVICES",
    "DOORS",
    "CannotBeHeldError",
    "Places",
    "found",
    "home_of",
    "places_of",
]
