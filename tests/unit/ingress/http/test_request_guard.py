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
def test_our_hosts_pass_with_any_port(host: bytes) -> None:
    GUARD.headers(scope((b"host", host)))


@pytest.mark.parametrize(
    "host", [b"evil.example", b"localhost.evil", b"localhost:x", b"x:localhost", b"", b"::1"]
)
def test_a_foreign_host_is_refused(host: bytes) -> None:
    assert status((b"host", host)) == 403


def test_no_host_is_refused() -> None:
    assert status() == 403


def test_two_hosts_are_refused_even_if_both_are_ours() -> None:
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
def test_a_doubled_header_that_decides_something_is_refused(name: bytes) -> None:
    assert status((b"host", b"localhost"), (name, b"a"), (name, b"a")) == 400


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"http://localhost.evil:1"])
def test_a_foreign_origin_is_refused(origin: bytes) -> None:
    assert status((b"host", b"localhost"), (b"origin", origin)) == 403


def test_our_origin_passes_with_any_port() -> None:
    GUARD.headers(scope((b"host", b"localhost"), (b"origin", b"http://localhost:3000")))


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    found = GUARD.headers(scope((b"host", b"localhost"), (b"mcp-name", b"  echo \t")))
    assert found[b"mcp-name"] == b"echo"


def test_a_large_head_is_refused() -> None:
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
def test_a_post_must_say_what_it_is(change: dict[bytes, bytes], wanted: int) -> None:
    with pytest.raises(RejectedRequestError) as caught:
        check_post({**JSON, **change}, 4_000_000)
    assert caught.value.response.status == wanted


def test_a_well_formed_post_passes() -> None:
    check_post(JSON | {b"accept": b"application/json, text/event-stream"}, 100)
