"""Stored runs: content is readable for its caller alone, and a run belongs to one principal."""

import msgspec
import pytest

from toolbus_codemode.agent.dialects.base import Result, Suggested, Turn
from toolbus_codemode.agent.run_record import (
    MAX_STEPS,
    Content,
    RunRecord,
    Step,
    decode_record,
    digest_of_body,
    entry_name,
)
from toolbus_common.errors import UnavailableError

OWN, OTHER = "a" * 64, "b" * 64
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def record() -> RunRecord:
    """Return the record of a run."""
    return RunRecord(
        run="4f0c", principal="p", customer="acme", key="bot", method="models/chat",
        model="team-fast", call="4f0c", body=digest_of_body("models/chat", b"{}"), trace=TRACE,
        started=1.0, updated=1.0,
    )  # fmt: skip


def content() -> Content:
    """Return content with a secret in each part."""
    call = Suggested("c1", "shop__say", '{"text":"secret-argument"}')
    turn = Turn({}, [{"role": "assistant", "content": "secret-text"}], [call], {})
    turn.results["c1"] = Result("secret-result")
    return Content([turn])


def test_content_survives_and_is_not_readable_in_the_stored_form() -> None:
    made = record()
    made.seal(content(), OWN)
    assert "secret" not in made.sealed
    assert made.open(OWN) == content()


def test_facts_are_stored_without_content() -> None:
    made = record()
    made.seal(content(), OWN)
    stored = made.encode()
    assert b"secret" not in stored
    assert made.sealed.encode() not in stored
    assert decode_record(stored).turns == made.turns
    assert made.sealed


def test_another_credential_cannot_read_the_content() -> None:
    made = record()
    made.seal(content(), OWN)
    with pytest.raises(UnavailableError, match="another credential"):
        made.open(OTHER)


def test_content_cannot_be_moved_to_another_run() -> None:
    made, other = record(), record()
    made.seal(content(), OWN)
    other.run, other.sealed = "4f0d", made.sealed
    with pytest.raises(UnavailableError):
        other.open(OWN)


def test_people_see_facts_without_content() -> None:
    made = record()
    made.steps = [Step("tool", "shop__say", "c9", 2.0)]
    made.seal(content(), OWN)
    shown = made.shown(whole=True)
    assert (shown.trace_id, shown.steps[0].name) == (TRACE.split("-")[1], "shop__say")
    assert made.shown(whole=False).steps == ()
    assert set(msgspec.json.decode(shown.encode())).isdisjoint({"sealed", "body", "principal"})


def test_a_record_shows_the_newest_steps_only() -> None:
    made = record()
    made.steps = [Step("tool", str(at), "", 0.0) for at in range(MAX_STEPS + 5)]
    made.seal(content(), OWN)
    assert [made.steps[0].name, len(made.steps)] == ["5", MAX_STEPS]


def test_the_entry_of_a_run_begins_with_its_owner() -> None:
    assert entry_name("p", "4f0c") != entry_name("q", "4f0c")
    assert entry_name("p", "4f0c").endswith(".4f0c")


def test_another_api_is_another_request() -> None:
    assert digest_of_body("models/chat", b"{}") != digest_of_body("models/messages", b"{}")
