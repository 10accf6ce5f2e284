"""Samples of content are checked by the real guards, and compared with the expected verdicts."""

import json
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli.clients.guard_samples import Laboratory, document, samples_of
from toolbus_cli.errors import CommandError
from toolbus_common.config import Guard

TOKEN = "ghp_" + "x7Gk2mQp9RtVw3ZbN5cYs8HdLf4JaE6uT1oi"
GUARDS = {
    "secrets": Guard(kind="secrets", on=("arguments", "results"), action="redact"),
    "watch": Guard(kind="secrets", on=("results",), action="block", mode="observe"),
    "service": Guard(kind="http", on=("prompts",), action="block", url="https://g.example/"),
}


def written(path: Path, *samples: dict[str, Any]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in samples))
    else:
        path.write_text(json.dumps(samples))
    return path


async def results(path: Path, guard: str = "") -> list[tuple[str, str, bool]]:
    laboratory = Laboratory(GUARDS)
    return [
        (each.check.guard, each.check.verdict, each.ok)
        for number, sample in enumerate(samples_of(path), 1)
        for each in await laboratory.results(number, sample, guard)
    ]


@pytest.mark.parametrize("name", ["samples.jsonl", "samples.yaml", "samples.json"])
async def test_samples_of_each_form_are_compared_with_the_verdict_of_each_guard(
    tmp_path: Path, name: str
) -> None:
    secret = {"content": {"text": f"token: {TOKEN}"}, "expect": "redacted"}
    path = written(
        tmp_path / name,
        {"phase": "arguments", **secret},
        {"phase": "results", **secret, "guard": "secrets"},
        {"phase": "results", **secret},
        {"phase": "results", "content": "plain words", "expect": "redacted", "guard": "secrets"},
    )
    assert await results(path) == [
        ("secrets", "redacted", True),
        ("secrets", "redacted", True),
        ("secrets", "redacted", True),
        ("watch", "would_block", False),
        ("secrets", "passed", False),
    ]


async def test_a_sample_with_other_findings_than_expected_differs(tmp_path: Path) -> None:
    sample = {"phase": "arguments", "content": TOKEN, "expect": "redacted"}
    path = written(
        tmp_path / "s.jsonl",
        {**sample, "findings": ["github-pat"]},
        {**sample, "findings": ["aws-access-token"]},
    )
    assert [ok for *_, ok in await results(path)] == [True, False]


async def test_a_guard_of_a_service_fails_without_an_installation_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    path = written(
        tmp_path / "s.jsonl", {"phase": "prompts", "content": "hello", "expect": "passed"}
    )
    assert await results(path) == [("service", "failed", False)]
    made = await Laboratory(GUARDS).check("service", "prompts", b'"hello"')
    assert "needs a running Toolbus" in made.error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"phase": "results"}', "each sample has"),
        ('{"phase": "x", "content": 1, "expect": "passed"}', "phase"),
        ('{"phase": "results", "content": 1, "expect": "good"}', "expect"),
        ('{"phase": "results", "content": 1, "expect": "passed", "gaurd": "x"}', "gaurd"),
        ("{", "each sample has"),
    ],
)
def test_a_sample_without_the_form_is_rejected_with_the_fields_it_needs(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(CommandError, match=message):
        samples_of(tmp_path / "s.jsonl")


async def test_unknown_guards_and_other_phases_are_rejected_with_the_known_ones() -> None:
    laboratory = Laboratory(GUARDS)
    with pytest.raises(CommandError, match="secrets, watch, service"):
        await laboratory.check("none", "results", b"1")
    with pytest.raises(CommandError, match="checks results, not arguments"):
        await laboratory.check("watch", "arguments", b"1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"a": 1}', b'{"a": 1}'), ("[1]", b"[1]"), ("{a", b'"{a"'), ("12", b'"12"'), ("", b'""')],
)
def test_a_text_that_is_no_object_or_list_is_checked_as_a_string(
    text: str, expected: bytes
) -> None:
    assert document(text) == expected
