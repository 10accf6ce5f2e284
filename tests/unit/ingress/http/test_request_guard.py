"""The HTTP guard: hosts, origins, doubled headers, sizes, media types."""

from typing import Any

import pytest

from toolbus_ingress.http.request_guard import RejectedRequestError, RequestGuard, check_post

GUARD = RequestGuard(
    frozenset({"localhost", "127.0.0.1", "[::1]"}), frozenset({"http://localhost"})
)
JSON = {b"content-type": b"application/json", b"content-length": b"2"}


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": list(headers)}


def status(*headers: tuple[bytes, bytes]) -> int:
    with pytest.raises(RejectedRequestError) as caught:
        GUARD.headers(scope(*headers))
    return caught.value.response.status


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:8080", b"[::1]:8080", b"LOCALHOST:1"])
def test_own_hosts_are_accepted_with_any_port(host: bytes) -> None:
    GUARD.headers(scope((b"host", host)))


@pytest.mark.parametrize(
    "host", [b"evil.example", b"localhost.evil", b"localhost:x", b"x:localhost", b"", b"::1"]
)
def test_a_foreign_host_is_rejected(host: bytes) -> None:
    assert status((b"host", host)) == 403


def test_a_missing_host_is_rejected() -> None:
    assert status() == 403


def test_two_hosts_are_rejected_even_if_both_are_own() -> None:
    assert status((b"host", b"localhost"), (b"host", b"localhost")) == 400


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"origin",
        b"mcp-method",
        b"mcp-name",
        b"mcp-param-region",
        b"idempotency-key",
    ],
)
def test_a_repeated_security_header_is_rejected(name: bytes) -> None:
    assert status((b"host", b"localhost"), (name, b"a"), (name, b"a")) == 400


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"http://localhost.evil:1"])
def test_a_foreign_origin_is_rejected(origin: bytes) -> None:
    assert status((b"host", b"localhost"), (b"origin", origin)) == 403


def test_own_origins_are_accepted_with_any_port() -> None:
    GUARD.headers(scope((b"host", b"localhost"), (b"origin", b"http://localhost:3000")))


def test_whitespace_around_a_value_is_ignored() -> None:
    found = GUARD.headers(scope((b"host", b"localhost"), (b"mcp-name", b"  echo \t")))
    assert found[b"mcp-name"] == b"echo"


def test_a_large_head_is_rejected() -> None:
    assert status((b"host", b"localhost"), (b"x", b"y" * 40_000)) == 431


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({b"content-type": b"text/plain"}, 415),
        ({b"content-encoding": b"gzip"}, 415),
        ({b"accept": b"text/html"}, 406),
        ({b"content-length": b"5000000"}, 413),
        ({b"content-length": b"-1"}, 413),
    ],
)
def test_a_post_needs_a_media_type(change: dict[bytes, bytes], wanted: int) -> None:
    with pytest.raises(RejectedRequestError) as caught:
        check_post({**JSON, **change}, 4_000_000)
    assert caught.value.response.status == wanted


def test_a_well_formed_post_is_accepted() -> None:
    check_post(JSON | {b"accept": b"application/json, text/event-stream"}, 100)
