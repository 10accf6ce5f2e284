"""What was sent, as what it means; what has not the form is refused, place by place. Pure."""

import json
import re
from datetime import date, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from toolbus_common.admin_api.models import KINDS
from toolbus_common.config import Configuration
from toolbus_common.config.access.expiry import parse_expiry
from toolbus_common.config_store.loading.document import ConfigProblem, Document, read
from toolbus_common.config_store.loading.loader import Loaded, check
from toolbus_common.config_store.loading.messages import describe_error
from toolbus_common.config_store.redacted_view import faulty
from toolbus_common.errors import InvalidError

EXACT = 2**53  # beyond, not every whole number is a float
_FORM = re.compile(r"constrained-\w+$|function-\w+\[")  # which of several, as pydantic says it
MEANING = "value_error"  # it has the form, but its parts do not fit together


def shaped(wanted: Any, body: bytes) -> Any:
    """The body as the model it must be. Raises `InvalidError`, or `FaultyError` for its meaning."""
    try:
        return TypeAdapter(wanted).validate_json(json.dumps(_plain(body)), strict=True)
    except ValidationError as error:
        every = error.errors(include_url=False)
        found = [each for each in every if not _is_another_form(each, every)]
        faults = [_told(each) for each in found]
        if all(each["type"] == MEANING for each in found):
            raise faulty(faults) from error
        first = faults[0]
        where = f"{first['place']}: " if first["place"] else ""
        raise InvalidError(
            f"The body does not have the form wanted here: {where}{first['reason']}.",
            faults=faults[:100],
        ) from error


def _is_another_form(error: Any, every: list[Any]) -> bool:
    """Whether what has several forms has another one, in which only its meaning is wrong."""
    place, told = error["loc"][:-1], error["input"]
    return (
        error["type"] != MEANING
        and isinstance(told, dict)
        and any(
            each["type"] == MEANING and each["loc"][:-1] == place and each["input"] == told
            for each in every
        )
    )


def _plain(body: bytes) -> Any:
    """What a strict JSON text says: 5.0 is the whole number 5, as JSON Schema has it."""
    return json.loads(body or b"null", parse_float=_number)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < EXACT else number


def expiry(text: str | None) -> date | datetime | None:
    """Return a last day, or a time. Raises `InvalidError`."""
    try:
        return parse_expiry(text) if text is not None else None
    except ValueError as error:
        raise InvalidError(f"expires: {error}.") from error


def loaded(body: bytes, form: str, wanted: Any) -> Loaded:
    """A whole configuration, checked as the command checks a file."""
    if form == "yaml":
        try:
            return check(read(body.decode()), None)
        except UnicodeDecodeError as error:
            raise InvalidError("The body is no UTF-8 text; send it as UTF-8.") from error
    shaped(wanted, body)
    return check(Document(data=_plain(body)), None)


def with_entry(old: Configuration, kind: str, name: str, entry: Any) -> Configuration:
    """The declaration with another entry, or with None without it.

    Raises `FaultyError` for what is wrong with it now and was not before.
    """
    data = old.model_dump(mode="json", exclude_defaults=True)
    before = {(fault.path, fault.message) for fault in check(_document(data), None).problems}
    section = {**data.get(kind, {}), name: entry}
    if entry is None:
        del section[name]
    made = check(_document({**data, kind: section}), None)
    check_faults([f for f in made.problems if (f.path, f.message) not in before])
    if not made.problems:
        return made.declaration
    return Configuration.model_validate({**data, kind: section})


def check_faults(faults: list[ConfigProblem]) -> None:
    """Raise `FaultyError` if there are any."""
    if faults:
        raise faulty([told(fault) for fault in faults])


def told(fault: ConfigProblem) -> dict[str, Any]:
    """A fault as it is answered."""
    return {"place": fault.path, "line": fault.line, "reason": fault.message}


def written(kind: str, body: bytes) -> Any:
    """An entry that was sent, as it stands in a file. Raises like `shaped`."""
    entry = shaped(KINDS[kind], body)
    return TypeAdapter(KINDS[kind]).dump_python(entry, mode="json", exclude_defaults=True)


def _document(data: dict[str, Any]) -> Document:
    return Document(data={name: dict(section) for name, section in data.items()})


def _told(error: Any) -> dict[str, Any]:
    place, said = describe_error(error, Configuration)
    steps = [str(step) for step in place if not _FORM.match(str(step))]
    return {"place": ".".join(steps), "line": 0, "reason": said}
