"""When keys end: with their last day in UTC, or at a time."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from toolbus_common.access.principal import NEVER
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config.access.expiry import ends_at, shown_expiry


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("expires", "end"),
    [
        ("2027-01-31", "2027-02-01T00:00+00:00"),
        (date(2027, 1, 31), "2027-02-01T00:00+00:00"),
        ("2027-01-31T18:00Z", "2027-01-31T18:00+00:00"),
        ("2027-01-31t18:00z", "2027-01-31T18:00+00:00"),
        ("2027-01-31 18:00", "2027-01-31T18:00+00:00"),
        ("2027-01-31T18:00:30+02:00", "2027-01-31T16:00:30+00:00"),
        (datetime(2027, 1, 31, 18), "2027-01-31T18:00+00:00"),  # noqa: DTZ001 - as YAML reads it
    ],
)
def test_a_key_and_an_admin_key_end_at_a_day_or_a_time(expires: Any, end: str) -> None:
    key = Key(expires=expires)
    admin = Admin(role="viewer", expires=expires)
    assert not key.expired(at(end) - 0.001)
    assert key.expired(at(end))
    assert admin.live(at(end) - 0.001)
    assert not admin.live(at(end))


@pytest.mark.parametrize(
    "expires",
    [
        "tomorrow",
        "2027-02-30",
        "2027-01-31T25:00Z",
        "9999-12-31T23:59-10:00",
        "0001-01-01T00:00+10:00",
        "",
        5,
        1.5,
        True,
        ["2027-01-31"],
    ],
)
def test_an_invalid_expiry_is_rejected_with_an_example(expires: Any) -> None:
    with pytest.raises(ValueError, match="must be a day such as 2027-01-31"):
        Key(expires=expires)


@pytest.mark.parametrize("expires", ["2027-01-31", "2027-01-31T18:00:00Z"])
def test_an_expiry_is_stored_and_shown_as_it_was_written(expires: str) -> None:
    declared = Configuration.model_validate({"keys": {"bot": {"tools": ["*"], "expires": expires}}})
    stored = Configuration.model_validate_json(declared.model_dump_json())
    assert stored == declared
    assert shown_expiry(stored.keys["bot"].expires) == expires


def test_the_last_representable_day_is_accepted() -> None:
    assert ends_at(date(9999, 12, 31)) < NEVER
    assert ends_at(datetime(2027, 1, 31, 18, tzinfo=UTC)) == at("2027-01-31T18:00+00:00")
