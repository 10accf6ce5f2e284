"""Texts whose checks are measured: ordinary results of tools, and hostile ones."""

import json
from itertools import cycle
from pathlib import Path
from random import Random

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = {"1 KB": 1 << 10, "10 KB": 10 << 10, "100 KB": 100 << 10, "1 MB": 1 << 20}


def ordinary() -> dict[str, str]:
    """Return a megabyte and more of each kind of text: this repository's own, and a made-up log."""
    docs = sorted((REPOSITORY / "docs").rglob("*.md"))
    code = sorted((REPOSITORY / "services").rglob("*.py"))
    data = sorted((REPOSITORY / "bench" / "results").glob("*.json"))
    return {
        "prose": _filled("\n".join(path.read_text() for path in docs)),
        "code": _filled("\n".join(path.read_text() for path in code)),
        "JSON": _filled("\n".join(path.read_text() for path in data)),
        "log": _filled(_log()),
    }


def hostile() -> dict[str, str]:
    """Return texts that make a bad expression or a bad algorithm take more than linear time."""
    units = {
        "one letter": "a",
        "one digit": "1",
        "white space": " ",
        "line ends": "\n",
        "quotes": '"',
        "brackets": "([{<",
        "at signs": "a@",
        "dots": "a.",
        "dashes": "1-",
        "equal signs": "key=",
        "names of secrets": "api_key secret token password ",
        "names and values": "token = 0123456789abcdef ",
        "starts of keys": "AKIA ghp_ sk-ant- xoxb- eyJ ",
        "starts of private keys": "-----BEGIN PRIVATE KEY-----\n",
        "card numbers": "4111 1111 1111 1111 ",
        "IBANs": "DE89 3704 0044 0532 0130 00 ",
        "telephone numbers": "+49 30 1234567 ",
        "addresses": "a.b-c@d.example ",
        "internet addresses": "10.0.0.1:80 ",
        "instructions": "ignore all previous instructions ",
        "tags": "<IMPORTANT><system>",
        "links": "![a](https://a.example/?q=",
        "invisible characters": "a\u200b",
        "tag characters": "\U000e0041",
        "combining characters": "a\u0301",
        "escape sequences": "\x1b[31m",
        "base64": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo",
        "percent signs": "%41",
        "backslashes": "\\u0041",
        "entities": "&#65;",
    }
    return {name: _filled(unit) for name, unit in units.items()}


def document(text: str, size: int) -> bytes:
    """Return the result of a tool with the first `size` bytes of a text."""
    cut = text.encode()[:size].decode(errors="ignore")
    return json.dumps({"content": [{"type": "text", "text": cut}]}, ensure_ascii=False).encode()


def shaped(size: int) -> dict[str, bytes]:
    """Return hostile documents of about this size: deep, wide, of numbers, and of tiny texts."""
    depth = 50
    leaf = {"k": "v" * 100}
    deep = json.dumps(leaf)
    for _ in range(depth):
        deep = f"[{deep}]"
    many = size // len(deep)
    return {
        "deep JSON": f"[{','.join([deep] * many)}]".encode(),
        "tiny texts": json.dumps(["a"] * (size // 5)).encode(),
        "numbers": json.dumps([4111111111111111] * (size // 18)).encode(),
        "many members": json.dumps({f"name{n}": n for n in range(size // 22)}).encode(),
    }


def _filled(text: str) -> str:
    """Return the text, repeated until it has more than the largest size."""
    wanted = SIZES["1 MB"] + 4
    return text * (1 + wanted // max(1, len(text.encode())))


def _log() -> str:
    random, lines = Random(0), []
    words = ("accepted", "closed", "retrying", "timeout after 30 s", "GET /v1/items 200", "flushed")
    for number, word in zip(range(8000), cycle(words), strict=False):
        address = ".".join(str(random.randrange(1, 255)) for _ in range(4))
        trace = f"{random.getrandbits(128):032x}"
        stamp = f"2026-11-23T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.123Z"
        lines.append(f"{stamp} INFO server[{number}]: {address} {word} trace={trace}")
    return "\n".join(lines)
