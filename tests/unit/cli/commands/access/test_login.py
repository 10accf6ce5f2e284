"""`toolbus login`: polling for the decision made in a browser."""

from typing import Any

import pytest

from toolbus_cli.commands.access.login import awaited
from toolbus_cli.errors import CommandError

WAITING = {"interval": 5, "expires_in": 60}


def scripted(*answers: dict[str, Any]) -> tuple[Any, list[float]]:
    """Return a request function with these responses in order, and the pauses it makes."""
    each = iter(answers)
    return lambda: (200 if "access_token" in (last := next(each)) else 400, last), []


def test_login_polls_until_the_decision_and_slows_down_on_request() -> None:
    pending, slower = {"error": "authorization_pending"}, {"error": "slow_down"}
    request, pauses = scripted(pending, slower, pending, {"access_token": "a-token"})
    assert awaited(request, WAITING, pauses.append) == "a-token"
    assert pauses == [5, 5, 10, 10]


def test_a_rejected_and_an_expired_login_are_reported() -> None:
    request, pauses = scripted(
        {"error": "access_denied", "error_description": "The person denied it."}
    )
    with pytest.raises(CommandError, match="The person denied it"):
        awaited(request, WAITING, pauses.append)
    request, pauses = scripted(*[{"error": "authorization_pending"}] * 99)
    with pytest.raises(CommandError, match="in time"):
        awaited(request, WAITING, pauses.append)
    assert sum(pauses) == 60
