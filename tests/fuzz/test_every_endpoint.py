"""A short run of the fuzzer over every endpoint: no 500, no traceback, no hang.

`make fuzz ARGS="--seconds 600"` runs longer, with another seed every time.
"""

from collections.abc import Iterator

import pytest

from fuzz.fuzzed_gateway import FuzzedGateway, place
from fuzz.fuzzer import fuzz
from harness.network.raw_requests import exchange, request_bytes

SEED, MAX_REQUESTS = 15, 6000
BROKEN = (b'{"client_name": "\xff"}', b'{"a": "\xed\xa0\x80"}', b'{"\xff": 1}', b'{"a": "\\ud800"}')


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedGateway]:
    with place(tmp_path_factory.mktemp("fuzzed")) as made:
        yield made


def test_every_seed_is_a_request_that_is_understood(fuzzed: FuzzedGateway) -> None:
    for seed in fuzzed.seeds:
        answer = exchange(seed.port, seed.request.encode())
        assert answer.status in (200, 201, 202, 204, 303, 400, 401, 403, 404, 422), (seed, answer)


@pytest.mark.parametrize("body", BROKEN)
def test_a_registration_that_is_not_utf8_is_refused_with_a_reason(
    fuzzed: FuzzedGateway, body: bytes
) -> None:
    result = request_bytes("/oauth/register", "POST", body, Content_Type="application/json")
    answer = exchange(fuzzed.launched.port, result)
    assert answer.status == 400
    assert b"invalid_request" in answer.body
    assert b"must be a JSON object" in answer.body
    assert "Traceback" not in fuzzed.launched.logs()


def test_no_mutation_of_a_request_is_answered_with_a_500_a_traceback_or_silence(
    fuzzed: FuzzedGateway,
) -> None:
    report = fuzz(fuzzed, SEED, maximum=MAX_REQUESTS)
    assert not report.wrong, report.text()
    assert report.sent == MAX_REQUESTS
