"""Headers of the cache of model responses, in requests and responses."""

import pytest

from toolbus_common.config import ModelTarget
from toolbus_common.contracts import Notification, Progress
from toolbus_common.contracts.model_calls import CACHE, CHUNK, CacheNote
from toolbus_ingress.models_api.model_call import Attempt, cache_control_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (b"", ""),
        (b"max-age=0", ""),
        (b"no-cache", "no-cache"),
        (b"max-age=0, No-Cache", "no-cache"),
        (b"no-cache,no-store", "no-store"),
        (b"no-cachex", ""),
        (b"\xff", ""),
    ],
)
def test_the_strictest_known_directive_counts(value: bytes | None, expected: str) -> None:
    headers = {} if value is None else {b"cache-control": value}
    assert cache_control_of(headers) == expected


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (CacheNote("bypass"), {b"x-toolbus-cache": b"bypass"}),
        (CacheNote("miss", "k"), {b"x-toolbus-cache": b"miss", b"x-toolbus-cache-key": b"k"}),
        (
            CacheNote("semantic-hit", "k", 3),
            {b"x-toolbus-cache": b"semantic-hit", b"x-toolbus-cache-key": b"k", b"age": b"3"},
        ),
    ],
)
def test_a_response_names_the_use_of_the_cache(
    note: CacheNote, expected: dict[bytes, bytes]
) -> None:
    attempt = Attempt(ModelTarget(provider="p", model="m"), "1", 0)
    before = dict(attempt.headers)
    for other in (Progress(b"{}"), Notification(CHUNK, b"data: {}\n\n", 1)):
        attempt.receive(other)
    assert dict(attempt.headers) == before
    attempt.receive(Notification(CACHE, note.encode()))
    assert dict(attempt.headers) == before | expected
