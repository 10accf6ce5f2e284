"""Reasons of failures as operators and callers read them: the server is named once."""

import pytest

from toolbus_executor.resilience.failure_log import with_name, with_pronoun


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("The upstream answered HTTP 500.", "The upstream flaky answered HTTP 500."),
        ("The upstream's process ended: x.", "The upstream flaky's process ended: x."),
        ("The upstream flaky answered HTTP 500.", "The upstream flaky answered HTTP 500."),
        ("The upstream flaky's process ended: x.", "The upstream flaky's process ended: x."),
        ("The upstream flaky-2 is away.", "The upstream flaky flaky-2 is away."),
        ("The call timed out.", "The call timed out."),
    ],
)
def test_a_server_is_named_once(reason: str, named: str) -> None:
    assert with_name(reason, "flaky") == named
    assert with_name(named, "flaky") == named


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("The upstream answered HTTP 500.", "It answered HTTP 500."),
        ("The upstream's process ended: x.", "Its process ended: x."),
    ],
)
def test_a_pronoun_replaces_the_server(reason: str, shown: str) -> None:
    assert with_pronoun(reason) == shown
