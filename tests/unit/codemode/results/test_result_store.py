"""Stored results of programs: what earlier code stored still opens, a changed one does not."""

from toolbus_codemode.results.result_store import Results

# Written before the encryption moved to toolbus_common: handle, object name, object.
HANDLE = "rfRacU7eZ_DwOFn1RM"
NAME = "75d1da7c614f97f01ab04440f0c5ea86-f"
STORED = bytes.fromhex("9daf2041c654e1842681f1394dac3f65e838dc1804")


class Objects:
    """The store of these tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, name: str, value: bytes) -> None:
        self.objects[name] = value

    async def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    async def written(self, name: str) -> str:
        return "now" if name in self.objects else ""


def results_in(objects: Objects) -> Results:
    async def opened() -> Objects:
        return objects

    return Results(opened)


async def test_a_result_that_earlier_code_stored_still_opens() -> None:
    objects = Objects()
    objects.objects[NAME] = STORED
    assert await results_in(objects).read("digest", HANDLE) == b"[1,2]"


async def test_no_byte_of_a_stored_result_can_be_changed() -> None:
    objects = Objects()
    results = results_in(objects)
    handle = await results.keep("digest", [1, 2])
    ((name, stored),) = objects.objects.items()
    for at in range(len(stored)):
        objects.objects[name] = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
        assert await results.read("digest", handle) is None
    objects.objects[name] = stored
    assert await results.read("digest", handle) == b"[1,2]"
    assert await results.read("other", handle) is None
    later = await results.keep("digest", [3])
    objects.objects[name] = objects.objects[next(each for each in objects.objects if each != name)]
    assert await results.read("digest", handle) is None, "a result in the slot of another"
    assert await results.read("digest", later) == b"[3]"
