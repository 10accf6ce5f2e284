"""The program of a Python plugin's process, run in the test: loading, answers, faulty hooks."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from toolbus_common.plugins.python.process import Plugin, Settings

SUBJECTS = ["tb.hook.before_decision.probe"]


def load(path: Path, monkeypatch: pytest.MonkeyPatch, source: str, **settings: Any) -> Plugin:
    """Return the plugin of a module with this source."""
    module = f"probe_{path.name.replace('-', '_')}"
    head = "from toolbus_common.plugins.python.api import Answer, change, hook, refuse\n"
    (path / f"{module}.py").write_text(head + source)
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.delitem(sys.modules, module, raising=False)
    return Plugin(Settings("probe", module, SUBJECTS, settings=settings))


async def ask(plugin: Plugin, **fields: Any) -> dict[str, Any]:
    """Return the answer to a request."""
    request = {
        "point": "before_decision", "plugin": "probe", "call_id": "c", "customer": "acme",
        "key": "bot", "server": "docs", "tool": "burn", "deadline": 0.0, "has_content": True,
        "content": {"arguments": {"page": 7}}, "new": "unknown", **fields,
    }  # fmt: skip
    return dict(json.loads(await plugin.answer(json.dumps(request).encode())))


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_hook_receives_the_call_and_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = f"""
__version__ = "3"
@hook
{kind} before_decision(call, settings):
    return change(call.content | settings)
"""
    plugin = load(tmp_path, monkeypatch, source, more=1)
    answer = await ask(plugin)
    assert answer["content"] == {"arguments": {"page": 7}, "more": 1}
    assert (answer["verdict"], answer["version"]) == ("change", "3")


async def test_a_hook_without_a_result_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = load(tmp_path, monkeypatch, "@hook\ndef before_decision():\n    return None\n")
    assert (await ask(plugin))["verdict"] == "pass"


async def test_an_error_of_a_hook_names_its_type_but_not_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "@hook\ndef before_decision(call):\n    raise ValueError(str(call.content))\n"
    plugin = load(tmp_path, monkeypatch, source)
    answer = await ask(plugin, content="s3cret")
    assert answer["verdict"] == "fail"
    assert "ValueError" in answer["reason"]
    assert "s3cret" not in json.dumps(answer)
    assert json.loads(await plugin.answer(b"no JSON"))["verdict"] == "fail"


def test_a_declared_point_without_a_hook_stops_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="no hook 'before_decision'"):
        load(tmp_path, monkeypatch, "@hook\ndef after_result():\n    return None\n")
