"""Requests to the egress proxy of a sandbox: parsed strictly, one authorized host each."""

import pytest

from toolbus_common.egress import Allowed, EgressError, target_of
from toolbus_common.egress.connect_request import NoRequestError, parse_request


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def test_a_tunnel_request_names_host_and_port() -> None:
    request = parse_request(head("CONNECT docs.example:8443 HTTP/1.1", "Host: other.example"))
    assert request.is_tunnel
    assert request.target.authority == "docs.example:8443"


def test_a_request_is_forwarded_to_the_authorized_host() -> None:
    request = parse_request(
        head(
            "POST http://docs.example:81/a?b HTTP/1.1", "Host: other.example", "Content-Length: 2",
            "Proxy-Authorization: Basic x", "Connection: keep-alive", "X-Own: \xe9",
        )
    )  # fmt: skip
    assert request.target.authority == "docs.example:81"
    assert request.onward() == (
        b"POST /a?b HTTP/1.1\r\nHost: docs.example:81\r\nContent-Length: 2\r\nX-Own: \xe9\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert request.onward(b"http://docs.example:81", b"P: x\r\n").startswith(
        b"POST http://docs.example:81/a?b HTTP/1.1\r\n"
    )


def test_an_empty_path_means_the_root() -> None:
    assert parse_request(head("GET http://docs.example HTTP/1.1")).path == "/"
    assert parse_request(head("GET http://docs.example?a HTTP/1.0")).path == "/?a"


@pytest.mark.parametrize(
    "start",
    [
        "GET / HTTP/1.1", "CONNECT docs.example HTTP/1.1", "CONNECT a@docs.example:1 HTTP/1.1",
        "CONNECT docs.example:1/x HTTP/1.1", "CONNECT http://docs.example/ HTTP/1.1",
        "GET https://docs.example/ HTTP/1.1",
        "GET http://a@docs.example/ HTTP/1.1", "GET http://docs.example/ HTTP/2",
        "GET http://docs.example\\@x/ HTTP/1.1", "GET  http://docs.example/ HTTP/1.1", "",
        "CONNECT docs.example:1\tx HTTP/1.1", "GET http://docs.example/\x00 HTTP/1.1",
    ],
)  # fmt: skip
def test_a_malformed_request_is_rejected(start: str) -> None:
    with pytest.raises(NoRequestError):
        parse_request(head(start))


@pytest.mark.parametrize(
    "line", [" folded", "No colon", "Sp ace: x", ": x", "A\x00: x", "A: \x00", "A: x\ny"]
)
def test_an_ambiguous_header_is_rejected(line: str) -> None:
    with pytest.raises(NoRequestError):
        parse_request(head("GET http://docs.example/ HTTP/1.1", line))


@pytest.mark.parametrize("place", ["0x7f.1:80", "2130706433:80", "docs.example:0", "[::1%25lo]:1"])
def test_an_unusual_host_spelling_is_rejected(place: str) -> None:
    with pytest.raises(EgressError):
        parse_request(head(f"CONNECT {place} HTTP/1.1"))


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("https://docs.example", True),
        ("https://docs.example:8443", True),
        ("https://x.docs.example", False),
        ("https://a.b.wide.example", True),
        ("https://wide.example", False),
        ("https://wide.example.evil.example", False),
        ("https://only.example:8443", True),
        ("https://only.example", False),
        ("http://10.1.2.3", True),
        ("http://10.2.2.3", False),
        ("http://[::ffff:10.1.2.3]", True),
        ("http://169.254.169.254", False),
    ],
)
def test_a_target_is_matched_as_written(url: str, *, listed: bool) -> None:
    hosts = Allowed.of("docs.example *.wide.example only.example:8443 10.1.0.0/16 169.254.0.0/16")
    assert hosts.names(target_of(url)) is listed
