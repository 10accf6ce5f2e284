"""The banner of `toolbus up`."""

from typing import Any

import pytest

from toolbus_cli.launcher.banner import Welcome, banner


def welcome(**fields: Any) -> str:
    values = {"endpoint": "http://127.0.0.1:1/mcp", "state_dir": ".toolbus", "servers": []}
    return banner(Welcome(**{**values, "demo": False, "key": "demo", **fields}))


def test_the_banner_shows_client_configuration_and_server_states() -> None:
    ready = {"name": "notes", "state": "ready", "tools": 3, "last_failure": ""}
    lost = {"name": "dead", "state": "failed", "tools": 0, "last_failure": "It is gone."}
    shown = welcome(servers=[ready, lost], demo=True, secrets={"demo": "S"})
    assert "claude mcp add --transport http toolbus http://127.0.0.1:1/mcp" in shown
    assert '"Authorization": "Bearer S"' in shown
    assert "It is gone." in shown
    assert "toolbus call notes__clear" in shown


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"kind": "http", "tools": 1}, "notes        ready, 1 tool\n"),
        ({"kind": "http", "tools": 0}, "notes        ready, 0 tools\n"),
        ({"kind": "openai", "tools": 2}, "notes        ready, 2 models\n"),
        ({"kind": "anthropic", "tools": 0}, "notes        ready\n"),
    ],
)
def test_providers_have_models_and_servers_have_tools(row: dict[str, Any], shown: str) -> None:
    assert shown in welcome(servers=[{"name": "notes", "state": "ready", **row}])


def test_a_later_banner_explains_how_to_rotate_the_secret() -> None:
    shown = welcome()
    assert "was shown when it was created" in shown
    assert "toolbus keys rotate demo" in shown


def test_the_base_urls_of_models_are_shown_if_there_is_a_provider() -> None:
    assert "Models:" not in welcome()
    assert "http://127.0.0.1:1/v1 (OpenAI's API)" in welcome(has_models=True)
