"""Large results: extraction while reading, handles, and the quota of the store."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.errors import OverloadedError, UpstreamInvalidError
from toolbus_common.mcp.result_uris import MAX_LENGTH, Handle, authorized_name, parse_result_uri
from toolbus_executor.results.large import json_scanner as scanner
from toolbus_executor.results.large.decoder import Decoder
from toolbus_executor.results.large.json_scanner import Kind, Scanner
from toolbus_executor.results.large.quota import Quota
from toolbus_executor.results.large.reader import _whole_characters

SMALL = 8  # bytes that count as large here


class Extracted:
    """A large value, decoded in memory."""

    def __init__(self, kind: Kind, number: int) -> None:
        self.placeholder = b'"mark %d"' % number
        self.kind = kind
        self.value = b""
        self.ended = False
        self._decoding = Decoder(kind)

    def feed(self, raw: bytes) -> None:
        self.value += self._decoding.feed(raw)

    def end(self) -> None:
        self.value += self._decoding.end()
        self.ended = True


@pytest.fixture(autouse=True, scope="module")
def _everything_is_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanner, "MIN_BYTES", SMALL)
        yield


def scanned(text: bytes, sizes: list[int]) -> tuple[Any, list[Extracted]]:
    """Feed the text in pieces of these sizes; return the rest and the extracted values."""
    found: list[Extracted] = []

    def begin(kind: Kind) -> Extracted:
        found.append(Extracted(kind, len(found)))
        return found[-1]

    reader, at, turn = Scanner(begin), 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        reader.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    assert all(each.ended for each in found)
    return json.loads(reader.rest), found


def restore(value: Any, found: list[Extracted]) -> Any:
    """Return the response with its placeholders replaced by the extracted values."""
    marks = {json.loads(each.placeholder): each for each in found}
    if isinstance(value, list):
        return [restore(each, found) for each in value]
    if isinstance(value, dict):
        return {name: restore(each, found) for name, each in value.items()}
    if isinstance(value, str) and value in marks:
        extracted = marks[value]
        if extracted.kind is Kind.BASE64:
            return b64encode(extracted.value).decode()
        return (
            json.loads(extracted.value) if extracted.kind is Kind.JSON else extracted.value.decode()
        )
    return value


texts = st.text(st.characters(codec="utf-8"), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
blobs = st.binary(max_size=40).map(lambda raw: b64encode(raw).decode())
blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
    st.fixed_dictionaries({"type": st.just("image"), "data": blobs, "extra": values}),
    st.fixed_dictionaries({"resource": st.fixed_dictionaries({"text": texts, "more": values})}),
    st.fixed_dictionaries({"resource": st.fixed_dictionaries({"blob": blobs})}),
    values.filter(lambda value: not isinstance(value, dict)),
)
results = st.fixed_dictionaries(
    {"content": st.lists(blocks, max_size=5)},
    optional={
        "structuredContent": st.dictionaries(texts, values, max_size=4),
        "contents": st.lists(st.fixed_dictionaries({"uri": texts, "text": texts}), max_size=3),
        "_meta": values,
    },
)
answers = st.fixed_dictionaries({"id": values, "result": results, "other": values})


@given(
    answers,
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_a_response_read_in_pieces_equals_the_whole(
    answer: Any,
    sizes: list[int],
    ascii_only: bool,  # noqa: FBT001
    indent: int | None,
) -> None:
    text = json.dumps(answer, ensure_ascii=ascii_only, indent=indent).encode()
    result, found = scanned(text, sizes)
    assert restore(result, found) == answer


@given(answers)
def test_every_large_value_is_extracted(answer: Any) -> None:
    result, _ = scanned(json.dumps(answer).encode(), [7])
    left = [
        block.get("text", "") for block in result["result"]["content"] if isinstance(block, dict)
    ]
    assert all(len(json.dumps(text)) - 2 <= SMALL or text.startswith("mark ") for text in left)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_malformed_json_is_a_fault_or_stays_malformed(garbage: bytes, size: int) -> None:
    text = b'{"result":{"content":[{"text":"' + garbage
    try:
        reader = Scanner(lambda kind: Extracted(kind, 0))
        for at in range(0, len(text), size):
            reader.feed(text[at : at + size])
    except UpstreamInvalidError:
        return
    assert len(reader.rest) <= len(text) + 20


def test_the_number_of_extracted_values_and_the_rest_are_bounded() -> None:
    many = b",".join(b'{"text":"%b"}' % (b"x" * 100_000) for _ in range(200))
    reader = Scanner(lambda kind: Extracted(kind, 0))
    with pytest.raises(UpstreamInvalidError, match="request less"):
        reader.feed(b'{"result":{"content":[' + many)


def test_an_endless_value_elsewhere_is_bounded() -> None:
    reader = Scanner(lambda kind: Extracted(kind, 0))
    reader.feed(b'{"other":["' + b"[" * 7_000_000)
    with pytest.raises(UpstreamInvalidError, match="too large"):
        reader.feed(b"[" * 1_000_000)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [(Kind.TEXT, b"\xff"), (Kind.TEXT, b"\\x"), (Kind.BASE64, b"a"), (Kind.JSON, b"\xc3")],
)
def test_a_value_that_cannot_be_decoded_is_an_upstream_invalid(kind: Kind, raw: bytes) -> None:
    decoding = Decoder(kind)
    with pytest.raises(UpstreamInvalidError):
        decoding.feed(raw) + decoding.end()


@given(st.text(st.characters(codec="utf-8"), min_size=2), st.integers(4, 50))
def test_a_text_read_in_pieces_is_unchanged(text: str, size: int) -> None:
    raw, at, message = text.encode(), 0, ""
    while at < len(raw):
        piece = _whole_characters(raw[at : at + size], last=at + size >= len(raw))
        assert piece
        message, at = message + piece.decode(), at + len(piece)
    assert message == text


@given(st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True), texts.filter(bool))
def test_a_handle_is_parsed_from_its_uri(server: str, tool: str) -> None:
    handle = Handle(server, tool, "a" * 32)
    piece = parse_result_uri(handle.uri(7, MAX_LENGTH * 2))
    if len(handle.uri()) < 3500:
        assert piece is not None
        assert (piece.handle, piece.offset, piece.length) == (handle, 7, MAX_LENGTH)
        assert authorized_name(handle.uri()) == tool


@pytest.mark.parametrize("uri", ["", "file:///a", "toolbus-result:", "toolbus-result:s/t/short"])
def test_another_uri_is_authorized_by_itself(uri: str) -> None:
    assert authorized_name(uri) == uri


def test_one_principal_has_a_share_of_the_quota_that_expires() -> None:
    quota = Quota(limit=100, limit_per_principal=60)
    quota.take(60)
    quota.check(60, ("c", "k"))
    quota.assign(60, ("c", "k"), 0.0)
    with pytest.raises(OverloadedError, match="this key has 60 bytes"):
        quota.check(1, ("c", "k"))
    quota.check(60, ("c", "other"))
    quota.take(100)  # the expired value was evicted
    with pytest.raises(OverloadedError, match="result store is full"):
        quota.take(1)
