"""Large results as programs read them: assembled from pieces, decoded, limited."""

from base64 import b64encode
from typing import Any

import msgspec
import pytest

from toolbus_codemode.programs.value_conversion import outcome_of
from toolbus_codemode.results.large_result_reader import LARGEST, read, uri_in
from toolbus_common.contracts import CallResult, FinalReply
from toolbus_common.mcp.result_uris import Handle, parse_result_uri

HANDLE = Handle("reports", "export/all", "s" * 32)
LINK = {"type": "resource_link", "uri": HANDLE.uri(), "name": "result of export"}


class Store:
    """The pieces of one result, as executor returns them."""

    def __init__(self, value: bytes, media: str = "text/plain", maximum: int = 1 << 20) -> None:
        self.value = value
        self.media = media
        self.maximum = maximum
        self.read: list[tuple[int, int]] = []

    async def piece(self, handle: Handle, uri: str) -> FinalReply:
        piece = parse_result_uri(uri)
        assert piece is not None
        assert handle == piece.handle == HANDLE
        length = min(piece.length, self.maximum)
        self.read.append((piece.offset, length))
        part = self.value[piece.offset : piece.offset + length]
        end = piece.offset + len(part)
        about: dict[str, Any] = {"size": len(self.value)}
        if end < len(self.value):
            about["next"] = HANDLE.uri(end, length)
        is_text = self.media.startswith("text/") or self.media.endswith("json")
        value = {"text": part.decode()} if is_text else {"blob": b64encode(part).decode()}
        content = {
            "uri": uri,
            "mimeType": self.media,
            **value,
            "_meta": {"dev.toolbus/result": about},
        }
        return CallResult(body=msgspec.json.encode({"contents": [content]}))


async def value_of(store: Store, **arguments: Any) -> Any:
    outcome = await read(store.piece, HANDLE.uri(), arguments)
    assert outcome.failure is None
    return outcome.value


async def test_json_is_decoded_after_the_last_piece() -> None:
    store = Store(msgspec.json.encode(list(range(1000))), "application/json", maximum=100)
    assert await value_of(store) == list(range(1000))
    assert len(store.read) == -(-len(store.value) // 100)


async def test_bytes_of_several_pieces_are_one_base64_text() -> None:
    store = Store(bytes(range(256)), "image/png", maximum=100)
    assert await value_of(store) == b64encode(store.value).decode()


async def test_part_of_a_json_result_is_text() -> None:
    assert await value_of(Store(b"[1, 2]", "application/json"), offset=1, length=2) == "1,"


async def test_a_result_too_large_to_read_at_once_is_requested_in_one_piece() -> None:
    store = Store(b"x" * (LARGEST + 1))
    outcome = await read(store.piece, HANDLE.uri(), {})
    assert outcome.failure is not None
    assert "offset= and length=" in outcome.failure.message
    assert len(store.read) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"offset": -1},
        {"length": 0},
        {"offset": "1"},
        {"offset": True},
        {"select": ""},
        {"select": 1},
    ],
)
async def test_an_invalid_read_is_rejected_before_any_call(
    arguments: dict[str, Any],
) -> None:
    store = Store(b"x")
    outcome = await read(store.piece, HANDLE.uri(), arguments)
    assert outcome.failure is not None
    assert store.read == []


def test_a_link_is_found_in_a_tools_result() -> None:
    words = {"type": "text", "text": "[9000000 bytes, too large to return at once."}
    assert uri_in([words, LINK]) == uri_in(LINK) == uri_in(HANDLE.uri()) == HANDLE.uri()
    assert uri_in([LINK, LINK]) is uri_in([words]) is uri_in(None) is uri_in("r0abc") is None


def test_a_structure_too_large_for_a_program_is_a_link() -> None:
    words = {"type": "text", "text": "[9000000 bytes, too large to return at once."}
    body = msgspec.json.encode({"content": [words, LINK], "isError": True})
    assert outcome_of(body).value == [words, LINK]
    failed = msgspec.json.encode({"content": [words], "isError": True})
    assert outcome_of(failed).failure is not None
