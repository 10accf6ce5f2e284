"""Codemode and oauth: they start, tell the truth about themselves, and leave."""

from importlib import import_module

import pytest

from toolbus_common.asklane import AskLane
from toolbus_common.bus import Bus
from toolbus_common.exchange import Exchange
from toolbus_common.settings import Settings


@pytest.mark.parametrize(
    ("name", "capability"), [("codemode", "runs_programs"), ("oauth", "gives_tokens")]
)
async def test_a_room_to_come_is_ready_and_claims_nothing(
    name: str,
    capability: str,
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    async with import_module(f"toolbus_{name}.main").build(Exchange()).running():
        (told,) = await AskLane("operator", operator).ask_all()
        assert (told.room, told.ready, told.details) == (name, True, {capability: False})
