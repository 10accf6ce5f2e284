"""Events of connections hold pseudonyms of people."""

from typing import Any

import pytest

from toolbus_common.contracts import (
    ConnectionCreated,
    ConnectionEnded,
)


@pytest.mark.parametrize("event", [ConnectionCreated, ConnectionEnded])
def test_connection_events_name_their_person_for_pseudonyms(event: Any) -> None:
    fields = {"id": "i", "at": 0.0, "customer": "s", "server": "docs"}
    assert event(**fields, user="ann").people == {"user": "user:ann"}
    assert event(**fields).people == {}
