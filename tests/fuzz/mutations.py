"""Seeded mutations of a request: its bytes, its head, its JSON or its form."""

import json
from dataclasses import dataclass, replace
from random import Random
from typing import Any

# Values that break parsers of text, numbers, addresses and names.
NASTY = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xf4\x90\x80\x80",
    b"%",
    b"%ff",
    b"%00",
    b"%ed%a0%80",
    b"%u0041",
    b"+",
    b"\xe2\x80\xae",
    b"\xe4\xb8\xad\xf0\x9f\x98\x80",
    b"http://[",
    b"http://[::1",
    b"http://a:b",
    b"//",
    b"https://x.example/\xe4\xb8\xad",
    b"javascript:1",
    b"..%2f..",
    b"{}",
    b"[]",
    b"null",
    b'"',
    b"'",
    b"Bearer",
    b"Basic !!!",
    b"Basic /////w==",
    b"Basic Og==",
    b"DPoP x",
    b"a.b.c",
    b"e30.e30.e30",
    b"eyJhbGciOiJub25lIn0.eyJpc3MiOltdfQ.",
    b"=?base64?/w==?=",
    b"=?base64?!?=",
    b"1e400",
    b"-0",
    b"9" * 400,
    b"9" * 5000,
    b"\xd9\xa1\xd9\xa2",
    b"NaN",
    b"x" * 9000,
    b"a;b=c",
    b'a="\\"; $Version=1',
    b"\xa0",
    b"\x0b",
)
JSON_NASTY: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    -(2**64),
    10**400,
    1e308,
    "",
    "\x00",
    "中😀",
    "http://[",
    "x" * 9000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [{}],
    {"a": {"b": []}},
    "\u202e",
    "9" * 5000,
    "-32000",
    "a__b",
    "%ff",
    [1, "a", None],
)
RAW_JSON = (
    b'"\xff"',
    b'{"\xff": 1}',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"9" * 6000,
    b'{"a":1,"a":2}',
    b"[" * 70 + b"]" * 70,
    b"[" * 5000,
    b'{"a":' * 3000,
    b"\xef\xbb\xbf{}",
    b"'a'",
    b"01",
    b"1.",
    b'"\t"',
    b"{,}",
    b"[1,]",
    b"",
    b"\x00",
    b'"\xed\xa0\x80"',
    b"tru",
    b"/**/1",
)
METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"TRACE")


@dataclass(frozen=True)
class Request:
    """One request in parts; `framed` if its Content-Length is that of its body."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    framed: bool = True
    written: bytes = b""  # replaces all parts

    def encode(self) -> bytes:
        """Return the bytes on the wire."""
        if self.written:
            return self.written
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target)]
        lines += [b"%b: %b" % pair for pair in self.headers]
        if self.body or self.method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", b""]) + self.body


def mutated(request: Request, random: Random) -> Request:
    """Apply one to three mutations to a request."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        mutators = [
            _head,
            _target,
            _wire,
            *([_body, _content, _content, _content] * bool(request.body)),
        ]
        request = random.choice(mutators)(request, random)
    return request


def _nasty(random: Random) -> bytes:
    return random.choice(NASTY)


def _noise(text: bytes, random: Random) -> bytes:
    """Flip, insert, delete, repeat or cut bytes."""
    found = bytearray(text)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(found))
        length = random.choice((1, 1, 2, 8, 64))
        match random.randrange(5):
            case 0:
                found[at : at + length] = random.randbytes(length)
            case 1:
                found[at:at] = random.randbytes(length)
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = found[at : at + length] * random.choice((1, 2, 50))
            case _:
                found[at:at] = _nasty(random)
    return bytes(found)


def _line(text: bytes) -> bytes:
    """Return a text for one header line."""
    return text.replace(b"\r", b"").replace(b"\n", b"")


def _wire(request: Request, random: Random) -> Request:
    """Return the whole request as bytes, including its framing."""
    whole = request.encode()
    if random.random() < 0.3:
        return replace(request, written=whole[: random.randint(1, len(whole))], framed=False)
    return replace(request, written=_noise(whole, random) or b"\r\n", framed=False)


def _head(request: Request, random: Random) -> Request:
    headers = list(request.headers)
    at = random.randrange(len(headers))
    name, value = headers[at]
    match random.randrange(6):
        case 0:
            headers[at] = (name, _line(_nasty(random)))
        case 1:
            headers[at] = (name, _line(_noise(value, random)))
        case 2:
            del headers[at]
        case 3:
            headers.insert(at, (name, _line(_nasty(random))))
        case 4:
            headers.append((random.choice(OFTEN), _line(_nasty(random))))
        case _:
            return replace(request, method=random.choice(METHODS))
    return replace(request, headers=tuple(headers) or ((b"Host", b"127.0.0.1"),))


OFTEN = (
    b"Cookie",
    b"Authorization",
    b"DPoP",
    b"Origin",
    b"If-Match",
    b"Mcp-Session-Id",
    b"Last-Event-ID",
    b"Accept",
    b"Mcp-Method",
    b"Mcp-Name",
    b"Mcp-Param-X",
    b"MCP-Protocol-Version",
    b"Idempotency-Key",
    b"traceparent",
    b"baggage",
    b"tracestate",
    b"x-toolbus-servers",
    b"x-toolbus-tools",
    b"x-toolbus-program",
    b"Content-Type",
    b"Sec-Fetch-Site",
    b"X-ClickHouse-User",
    b"X-ClickHouse-Key",
    b"X-ClickHouse-Format",
    b"X-ClickHouse-Database",
    b"Content-Encoding",
    b"Access-Control-Request-Method",
    b"Access-Control-Request-Headers",
    b"Transfer-Encoding",
    b"Expect",
    b"Upgrade",
)


def _target(request: Request, random: Random) -> Request:
    path, mark, query = request.target.partition(b"?")
    escaped = b"".join(b"%%%02x" % byte for byte in _nasty(random)[:200])
    match random.randrange(5):
        case 0:
            parts = path.split(b"/")
            parts[random.randrange(len(parts))] = escaped
            path = b"/".join(parts) or b"/"
        case 1:
            path += random.choice((b"/", b"/x", b"//", b"/..", b"/%2e%2e", b"%00"))
        case 2:
            pairs = query.split(b"&")
            pairs[random.randrange(len(pairs))] = escaped + b"=" + escaped
            query, mark = b"&".join(pairs), b"?"
        case 3:
            name, _, _ = random.choice(query.split(b"&")).partition(b"=")
            query, mark = query + b"&%b=%b" % (name or b"limit", escaped), b"?"
        case _:
            query, mark = b"&".join(b"a%d=%d" % (each, each) for each in range(600)), b"?"
    return replace(request, target=path + mark + query)


def _body(request: Request, random: Random) -> Request:
    return replace(request, body=_noise(request.body, random))


def _content(request: Request, random: Random) -> Request:
    """Mutate the decoded body if it can be parsed, otherwise its bytes."""
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        return _form(request, random) if b"=" in request.body else _body(request, random)
    if random.random() < 0.5:
        changed = json.dumps(_changed(value, random, random.choice(JSON_NASTY))).encode()
        return replace(request, body=changed)
    marked = json.dumps(_changed(value, random, "@@")).encode()
    return replace(request, body=marked.replace(b'"@@"', random.choice(RAW_JSON)))


def _changed(value: Any, random: Random, nasty: Any) -> Any:
    """Return the value with one part at any depth replaced, added or removed."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(list(value))
        if random.random() < 0.1:
            return {other: each for other, each in value.items() if other != name}
        return {**value, name: _changed(value[name], random, nasty)}
    if isinstance(value, list) and value and random.random() < 0.85:
        at = random.randrange(len(value))
        return [*value[:at], _changed(value[at], random, nasty), *value[at + 1 :]]
    if isinstance(value, dict) and random.random() < 0.3:
        return {**value, random.choice(("_meta", "", "x", "\u4e2d")): nasty}
    return nasty


def _form(request: Request, random: Random) -> Request:
    pairs = [pair.partition(b"=")[::2] for pair in request.body.split(b"&")]
    at = random.randrange(len(pairs))
    raw = _nasty(random)
    value = raw if random.random() < 0.5 else b"".join(b"%%%02x" % byte for byte in raw[:3000])
    match random.randrange(4):
        case 0:
            pairs[at] = (pairs[at][0], value)
        case 1:
            pairs.insert(at, (pairs[at][0], value))
        case 2:
            pairs[at] = (value, pairs[at][1])
        case _:
            del pairs[at]
    return replace(request, body=b"&".join(b"%b=%b" % (name, value) for name, value in pairs))
