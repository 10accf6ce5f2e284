"""The HTTP guard: hosts, origins, repeated headers, sizes, media types."""

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


LOCAL = (b"host", b"localhost")
SINGLE = (
    b"authorization", b"origin", b"mcp-method", b"mcp-name", b"mcp-param-region",
    b"idempotency-key", b"x-api-key", b"x-toolbus-models",
)  # fmt: skip
REJECTED = {
    "no host": (403, ()),
    "two hosts": (400, (LOCAL, LOCAL)),
    "large head": (431, (LOCAL, (b"x", b"y" * 40_000))),
    **{
        f"host {host.decode()}": (403, ((b"host", host),))
        for host in (
            b"evil.example",
            b"localhost.evil",
            b"localhost:x",
            b"x:localhost",
            b"",
            b"::1",
        )
    },
    **{
        f"origin {origin.decode()}": (403, (LOCAL, (b"origin", origin)))
        for origin in (b"http://evil.example", b"null", b"http://localhost.evil:1")
    },
    **{f"repeated {name.decode()}": (400, (LOCAL, (name, b"a"), (name, b"a"))) for name in SINGLE},
}


@pytest.mark.parametrize(("code", "headers"), REJECTED.values(), ids=REJECTED)
def test_an_ambiguous_foreign_or_oversized_head_is_rejected(
    code: int, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert status(*headers) == code


def test_own_origins_are_accepted_with_any_port() -> None:
    GUARD.headers(scope((b"host", b"localhost"), (b"origin", b"http://localhost:3000")))


def test_whitespace_around_a_value_is_ignored() -> None:
    found = GUARD.headers(scope((b"host", b"localhost"), (b"mcp-name", b"  echo \t")))
    assert found[b"mcp-name"] == b"echo"


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
def test_an_unacceptable_post_is_rejected(change: dict[bytes, bytes], wanted: int) -> None:
    with pytest.raises(RejectedRequestError) as caught:
        check_post({**JSON, **change}, 4_000_000)
    assert caught.value.response.status == wanted


def test_a_client_that_reads_only_events_is_accepted_where_they_are_served() -> None:
    headers = JSON | {b"accept": b"text/event-stream"}
    check_post(headers, 100, events=True)
    for events, accept in ((False, b"text/event-stream"), (True, b"text/html")):
        with pytest.raises(RejectedRequestError) as caught:
            check_post(headers | {b"accept": accept}, 100, events=events)
        assert caught.value.response.status == 406


def test_a_well_formed_post_is_accepted() -> None:
    check_post(JSON | {b"accept": b"application/json, text/event-stream"}, 100)
