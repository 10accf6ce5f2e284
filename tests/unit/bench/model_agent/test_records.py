"""Records of an interrupted benchmark, and their summary."""

from pathlib import Path
from typing import Any

from model_agent.records import NO_FIT, append, is_done, load, summary


def record(task: str, verdict: str, **more: Any) -> dict[str, Any]:
    fixed = {"tools": 45, "mode": "code", "prompt_tokens": 700, "task": task, "verdict": verdict}
    figures = {"input_tokens": 1000, "output_tokens": 50, "turns": 2, "seconds": 9.0}
    return {**fixed, **figures, **more}


def test_a_cut_last_line_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "results" / "agent.jsonl"
    append(path, record("port", "right"))
    with path.open("a") as file:
        file.write('{"tools": 45, "mode": "co')
    assert [each["task"] for each in load(path)] == ["port"]
    append(path, record("sum", "wrong"))
    assert [each["task"] for each in load(path)] == ["port", "sum"]


def test_a_task_is_done_for_its_tools_and_mode_only() -> None:
    records = [record("port", "wrong")]
    assert is_done(records, 45, "code", "port")
    assert not is_done(records, 45, "classic", "port")
    assert not is_done(records, 96, "code", "port")
    assert not is_done(records, 45, "code", "sum")


def test_definitions_that_do_not_fit_end_all_tasks_of_their_mode() -> None:
    fixed = {"tools": 508, "mode": "classic", "prompt_tokens": 250_000}
    records = [{**fixed, "task": "", "verdict": NO_FIT}]
    assert is_done(records, 508, "classic", "port")
    assert not is_done(records, 508, "code", "port")
    assert summary(records) == [{**fixed, "tasks": 0}]


def test_the_summary_has_verdicts_and_means() -> None:
    records = [
        record("port", "right"),
        record("sum", "guessed", input_tokens=3000, turns=4),
        record("author", "wrong", input_tokens=2000, turns=3),
    ]
    (row,) = summary(records)
    assert (row["tasks"], row["right"], row["guessed"]) == (3, 1, 1)
    assert (row["input_tokens"], row["turns"]) == (2000, 3)
