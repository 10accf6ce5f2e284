"""The programs of the embedded engines: limits that the operator can change."""

from pathlib import Path

import pytest

from toolbus_cli.launcher.engines import nats
from toolbus_cli.state_dir import State


@pytest.mark.parametrize(("given", "limit"), [({}, "96MiB"), ({"GOMEMLIMIT": "1GiB"}, "1GiB")])
def test_the_heap_of_nats_is_limited_unless_the_operator_sets_another_limit(
    given: dict[str, str], limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMEMLIMIT", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    state = State(tmp_path / "state")
    state.prepare()
    program = nats(state, "", None, lambda *_: None).program
    assert program is not None
    assert program.environment == {"GOMEMLIMIT": limit}
