"""Stored large results: each object opens in its place only, for the principal it was made for."""

from time import time

import pytest

from harness.services.call_runner import admitted
from toolbus_common.mcp.result_uris import Handle
from toolbus_executor.results.large.store import LargeResultStore, Manifest

KEY = bytes(range(32))


class Bucket:
    """Objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, name: str, value: bytes) -> None:
        self.objects[name] = value

    async def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    async def delete(self, name: str) -> None:
        self.objects.pop(name, None)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def store(bucket: Bucket) -> LargeResultStore:
    async def opened() -> Bucket:
        return bucket

    return LargeResultStore(opened)


def manifest(size: int = 6, prefix: str = "one") -> Manifest:
    return Manifest(prefix, KEY, size, "text/plain", time() + 3600, part=3)


async def test_a_result_is_read_from_any_offset(store: LargeResultStore, bucket: Bucket) -> None:
    for number, part in enumerate((b"abc", b"def")):
        await store.put("one", number, KEY, part)
    assert not any(b"abc" in each for each in bucket.objects.values())
    assert await store.read(manifest(), 0, 6) == b"abcdef"
    assert await store.read(manifest(), 2, 3) == b"cde"


async def test_a_part_that_is_missing_moved_or_changed_is_not_read(
    store: LargeResultStore, bucket: Bucket
) -> None:
    for number, part in enumerate((b"abc", b"def")):
        await store.put("one", number, KEY, part)
    await store.put("two", 0, KEY, b"ghi")
    first = bucket.objects["one-0"]
    for other in (
        bucket.objects["one-1"],
        bucket.objects["two-0"],
        first[:-1] + bytes([first[-1] ^ 1]),
        first[:20],
        b"",
    ):
        bucket.objects["one-0"] = other
        assert await store.read(manifest(), 0, 6) is None
        assert await store.read(manifest(), 3, 3) == b"def"
    del bucket.objects["one-0"]
    assert await store.read(manifest(), 0, 6) is None


@pytest.mark.parametrize(
    "other", [{"key": "other:1"}, {"customer": "other"}, {"server": "other"}, {"tool": "other"}]
)
async def test_a_handle_is_of_one_principal_and_tool(
    store: LargeResultStore, other: dict[str, str]
) -> None:
    mine = {"key": "staff:1", "customer": "acme", "server": "files", "tool": "text"}
    call = admitted(**mine)
    handle = await store.create_handle(manifest(), call)
    found = await store.manifest(handle, call)
    assert found is not None
    assert (found.prefix, found.key) == ("one", KEY)
    theirs = mine | other
    moved = Handle(theirs["server"], theirs["tool"], handle.secret)
    assert await store.manifest(moved, admitted(**theirs)) is None


async def test_a_manifest_in_the_place_of_another_is_not_read(
    store: LargeResultStore, bucket: Bucket
) -> None:
    call = admitted("text")
    one, two = [await store.create_handle(manifest(prefix=each), call) for each in ("one", "two")]
    names = list(bucket.objects)
    bucket.objects[names[0]] = bucket.objects[names[1]]
    assert await store.manifest(one, call) is None
    assert await store.manifest(two, call) is not None
    bucket.objects[names[1]] = b"x" * 100
    assert await store.manifest(two, call) is None
