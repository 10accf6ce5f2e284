"""Responses of programs: whole if short enough, else a preview and a handle."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_codemode.programs.response import LONGEST_ANSWER, Response, ResponseBuilder
from toolbus_codemode.results.preview import preview, shape
from toolbus_codemode.results.result_store import Results, Store
from toolbus_codemode.sandbox.program import ProgramError, ProgramResult
from toolbus_common.errors import BusDownError

ROWS = [{"id": number, "name": "Ada", "tags": ["a", "b"]} for number in range(5000)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


class ResultStore:
    """A result store in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, name: str, value: bytes) -> None:
        self.kept[name] = value

    async def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    async def written(self, name: str) -> str:
        return "now" if name in self.kept else ""


def results(store: ResultStore | None = None) -> Results:
    async def opened() -> Store:
        if store is None:
            raise BusDownError("The bus is down.")
        return store

    return Results(opened)


async def answered(ended: ProgramResult, kept: Results, engine: str = "starlark") -> Response:
    return await ResponseBuilder(kept, "key_digest", engine).answer(ended)


async def test_a_short_result_is_returned_unchanged() -> None:
    answer = await answered(ProgramResult([1, "é"], prints="hello\n"), results())
    assert answer == Response('hello\n[1,"é"]', is_error=False, output_bytes=13)


async def test_no_result_is_returned_as_null() -> None:
    assert (await answered(ProgramResult(), results())).text == "null"


async def test_a_large_result_is_stored_and_previewed() -> None:
    kept = results(ResultStore())
    answer = await answered(ProgramResult(ROWS, prints="so many\n"), kept)
    assert answer.kept == 1
    assert answer.text.startswith("so many\nThe result has ")
    assert len(answer.text) < 1000
    assert "list of 5,000 {id: int, name: str, tags: list of 2 str}" in answer.text
    assert '[0] {"id":0,"name":"Ada","tags":["a","b"]}' in answer.text
    handle = answer.text.partition('results.read("')[2].partition('"')[0]
    assert (await kept.recalled("key_digest", {"handle": handle})).value == ROWS


async def test_the_handle_is_shown_in_the_language_of_the_program() -> None:
    answer = await answered(ProgramResult(ROWS), results(ResultStore()), "python")
    assert '(await results.read("r' in answer.text


async def test_large_output_is_stored_next_to_a_small_result() -> None:
    prints = "line\n" * LONGEST_ANSWER
    answer = await answered(ProgramResult(5, prints=prints), results(ResultStore()))
    assert answer.text.startswith("The print has ")
    assert answer.text.endswith("\n5")


async def test_of_result_and_output_too_large_together_the_larger_is_stored() -> None:
    answer = await answered(
        ProgramResult("r" * 40_000, prints="p" * 50_000), results(ResultStore())
    )
    assert answer.kept == 1
    assert answer.text.startswith("The print has 50,000 characters")
    assert answer.text.endswith("r" * 40_000)


async def test_a_result_that_cannot_be_stored_is_cut_with_the_reason() -> None:
    answer = await answered(ProgramResult(ROWS), results())
    assert "could not be stored: The bus is down." in answer.text
    assert len(answer.text) < 5000


async def test_an_error_follows_the_output() -> None:
    error = ProgramError("runtime", "It broke.", 3, hint="Fix it.")
    answer = await answered(ProgramResult(error=error, prints="so far\n"), results())
    assert answer.text == "so far\nruntime (line 3): It broke.\nFix it."
    assert answer.is_error


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "list of 0"),
        ([1, "a", None], "list of 3 int | str | None"),
        ({"rows": [{"id": 1}] * 2000, "next": None}, "{rows: list of 2,000 {id: int}, next: None}"),
        ("x" * 100, "str of 100 characters"),
        ([[[[[[1]]]]]], "list of 1 list of 1 list of 1 list of 1 list of 1"),
        ({str(n): n for n in range(40)}, ", … 10 more}"),
    ],
)
def test_a_value_is_shown_by_its_shape(value: Any, expected: str) -> None:
    assert shape(value).endswith(expected)


@given(JSON)
def test_a_preview_of_any_value_is_short(value: Any) -> None:
    assert len(preview(value)) < 5000


def test_a_preview_of_a_wide_and_deep_value_is_short() -> None:
    wide: Any = 1
    for _ in range(3):
        wide = {f"{'k' * 500}{number}": wide for number in range(20)}
        assert len(preview(wide)) < 5000
