"""Spellings of this machine's address, and names that resolve to it.

The list follows the parsers of resolvers, C libraries and URL libraries. It is independent of the
tested check.
"""

from collections.abc import Iterator
from itertools import product

from toolbus_common.egress import Target
from toolbus_common.egress.resolver import resolved

# The addresses of a name at its first lookup, its second lookup, and so on. The last address stays.
MEANINGS: dict[str, list[list[str]]] = {
    "127.0.0.1.nip.example": [["127.0.0.1"]],
    "localtest.example": [["127.0.0.1"], ["::1"]],
    "six.example": [["::1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "nat64.example": [["64:ff9b::7f00:1"]],
    "compatible.example": [["::127.0.0.1"]],
    "sixtofour.example": [["2002:7f00:1::1"]],
    "any.example": [["0.0.0.0"]],
    "any-six.example": [["::"]],
    "both.example": [["93.184.216.34", "127.0.0.1"]],
    "both-turned.example": [["127.0.0.1", "93.184.216.34"]],
    "mixed-six.example": [["2606:4700::1111", "::1"]],
    "rebound-at-once.example": [["127.0.0.1"], ["93.184.216.34"]],
    # This name is allowed and has no listener. A second lookup would lead to loopback.
    "rebinding.example": [["127.0.0.2"], ["127.0.0.1"]],
    "xn--127-0-0-1.example": [["127.0.0.1"]],
    "internal.example.": [["127.0.0.1"]],
}
REBINDING = "rebinding.example"
LISTED = "127.0.0.2"  # an address without a listener that the operator allows

_OCTETS = {
    "decimal": "{}".format,
    "octal": "0{:o}".format,
    "long octal": "00000{:o}".format,
    "hex": "0x{:x}".format,
    "HEX": "0X{:X}".format,
    "long hex": "0x0000{:x}".format,
}
_DIGITS = (0xFF10, 0x0660, 0x06F0, 0x0966, 0x1D7CE, 0x1D7D8, 0x1D7F6, 0x2080)
_DOTS = "\u3002\uff0e\uff61"
_SIX = (
    "::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::0001", "0::1",
    "::0:1", "::ffff:127.0.0.1", "::FFFF:127.0.0.1", "::ffff:7f00:1", "::ffff:7f00:0001",
    "0:0:0:0:0:ffff:7f00:1", "0:0:0:0:0:ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1",
    "::7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::127.0.0.1",
    "2002:7f00:1::", "2002:7f00:0001::1", "2001:0:7f00:1::", "2001:0:5db8:d822:0:0:80ff:fffe",
    "fe80::5efe:127.0.0.1", "fe80::200:5efe:127.0.0.1", "2606:4700::5efe:127.0.0.1", "::",
    "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "::ffff:0:0", "::0.0.0.0", "::1%lo", "::1%25lo",
    "::1%250", "fe80::1%25lo", "fe80::1", "::ffff:127.1", "::ffff:0x7f.0.0.1", "v1.127.0.0.1",
    "fd00:ec2::254", "fd00::1", "ff02::1",
)  # fmt: skip


def _wide(text: str) -> str:
    return "".join(chr(ord(each) + 0xFEE0) for each in text)


def _circled(text: str) -> str:
    return "".join(chr(ord(each) - ord("a") + 0x24D0) for each in text)


_PLAIN = (
    "127.0.0.1", "127.0.0.0", "127.1.1.1", "127.255.255.254", "0.0.0.0", "0.0.0.1", "10.0.0.1",
    "172.16.0.1", "172.31.255.1", "192.168.0.1", "169.254.169.254", "169.254.170.2", "100.64.0.1",
    "100.100.100.200", "192.0.0.192", "168.63.129.16", "192.0.0.1", "198.18.0.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "localhost", "LOCALHOST", "LocalHost", "localhost.",
    "localhost..", "x.localhost", "x.LOCALHOST.", "127.0.0.1.", "127.0.0.1..", "127..0.0.1",
    ".127.0.0.1", "127.0.0.1.0", "127.0.0.01", "127.0.0.1 ", "127.0.0.1\t", "127.0.0.1%00",
    "127.0.0.1%20", "127.0.0.1\\", "127.0.0.1%23.example", "127.0.0.1%2f.example",
    "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "%6cocalhost", "local\u00adhost", "local\u200bhost",
    "loc\u200dalhost", "\u2113ocalhost", _circled("localhost"), _wide("localhost"),
    "localho\u017ft", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    _wide("127") + ".1", "0x" + _wide("7") + "f.1", "127.0.0.257", "383.0.0.1", "6425673729",
    "4294967296",
    "-2130706433", "+2130706433", "2130706433.", "0x7f000001.", "017700000001.", "0x", "0",
    "00", "0x0", "0.0", "127.0x1", "127.0.0x1", "0x7f.1", "0177.1", "127.1", "127.0.1", "127.01",
    "2130706433", "0x7f000001", "0X7F000001", "017700000001", "00000017700000001",
    "0x000000007f000001", "127.65537", "0x7f.0x1", "0177.0.1", "0x7f.0.1", "127.0.256",
)  # fmt: skip
_TRICKS = (
    "http://good.example@127.0.0.1:{}/", "http://good.example:80@127.0.0.1:{}/",
    "http://127.0.0.1:{}@good.example:1/", "http://good.example\\@127.0.0.1:{}/",
    "http://127.0.0.1:{}\\@good.example/", "http://127.0.0.1:{}#@good.example/",
    "http://127.0.0.1:{}?@good.example/", "http://[::1]@127.0.0.1:{}/", "http://@127.0.0.1:{}/",
    "http://:@127.0.0.1:{}/", "http://user:word@localhost:{}/", "HTTP://127.0.0.1:{}/",
    "hTTp://0x7f.1:{}/", "https://127.0.0.1:{}/", "https://localhost:{}/", "https://[::1]:{}/",
    "https://2130706433:{}/", "https://[::ffff:127.0.0.1]:{}/", "http:127.0.0.1:{}/",
    "http:/127.0.0.1:{}/", "http:///127.0.0.1:{}/", "//127.0.0.1:{}/", "http://\t127.0.0.1:{}/",
    "ht\ntp://127.0.0.1:{}/", "http://127.0.0.1:0{}/", "http://127.0.0.1:{}:80/",
    "http://127.0.0.1:+{}/", "http://[127.0.0.1]:{}/", "http://[localhost]:{}/",
    "ftp://127.0.0.1:{}/", "gopher://127.0.0.1:{}/_x", "file:///dev/null#{}", "ws://127.0.0.1:{}/",
    "dict://127.0.0.1:{}/x", "ldap://127.0.0.1:{}/", "unix:///127.0.0.1:{}", "http://[]:{}/",
    "http://:{}/", "http://.:{}/", "http://%:{}/",
)  # fmt: skip


def hosts() -> Iterator[str]:
    """Return all spellings of the host, without duplicates."""
    seen: dict[str, None] = dict.fromkeys(_PLAIN)
    for first, middle, last in product(_OCTETS.values(), repeat=3):
        seen.setdefault(".".join((first(127), middle(0), middle(0), last(1))))
    for zero in _DIGITS:
        shifted = "".join(chr(zero + int(each)) if each.isdigit() else each for each in "127.0.0.1")
        seen.setdefault(shifted)
    for dot in _DOTS:
        seen.setdefault("127.0.0.1".replace(".", dot))
        seen.setdefault(f"localhost{dot}")
    seen |= dict.fromkeys(f"[{each}]" for each in _SIX)
    seen |= dict.fromkeys(MEANINGS)
    yield from seen


def spellings(port: int) -> list[str]:
    """Return all URLs with which a client must not reach this port of this machine."""
    return [
        *(f"http://{host}:{port}/mcp" for host in hosts()),
        *(trick.format(port) for trick in _TRICKS),
    ]


class Resolver:
    """A resolver with scripted responses for the names above. The system resolves other names."""

    def __init__(self) -> None:
        self._lookups: dict[str, int] = {}

    def meaning(self, host: str) -> list[str] | None:
        """Return the current address of a name."""
        result = MEANINGS.get(host) or MEANINGS.get(f"{host}.")
        if result is None:
            return None
        turn = self._lookups[host] = self._lookups.get(host, -1) + 1
        return result[min(turn, len(result) - 1)]

    async def __call__(self, target: Target) -> list[str]:
        """Resolve a name in the same way as executor."""
        result = self.meaning(target.host)
        return await resolved(target) if result is None else result
