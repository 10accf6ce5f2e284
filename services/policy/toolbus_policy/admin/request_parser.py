"""Parse administration requests.

An invalid body is rejected with the location of each error (no I/O).
"""

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
from toolbus_common.config_store.redacted_view import configuration_error
from toolbus_common.errors import InvalidError

MAX_EXACT_INTEGER = 2**53  # some larger integers have no exact float
_FORM = re.compile(r"constrained-\w+$|function-\w+\[")  # a union member in pydantic's location
SEMANTIC_ERROR = "value_error"  # the shape is valid, but the values contradict each other


def parse_body(wanted: Any, body: bytes) -> Any:
    """Return the body, parsed and validated as the type `wanted`.

    Raises `InvalidError` if the body does not match the schema, and `InvalidConfigurationError` if
    only its values contradict each other.
    """
    try:
        return TypeAdapter(wanted).validate_json(json.dumps(_parse_json(body)), strict=True)
    except ValidationError as error:
        every = error.errors(include_url=False)
        found = [each for each in every if not _is_another_form(each, every)]
        problems = [_validation_problem(each) for each in found]
        if all(each["type"] == SEMANTIC_ERROR for each in found):
            raise configuration_error(problems) from error
        first = problems[0]
        where = f"{first['location']}: " if first["location"] else ""
        raise InvalidError(
            f"The body does not match the schema: {where}{first['reason']}.",
            errors=problems[:100],
        ) from error


def _is_another_form(error: Any, every: list[Any]) -> bool:
    """Return whether an error can be ignored, because another form of the union fits the value.

    A form with a semantic error for the same value fits: its shape was valid.
    """
    place, value = error["loc"][:-1], error["input"]
    return (
        error["type"] != SEMANTIC_ERROR
        and isinstance(value, dict)
        and any(
            each["type"] == SEMANTIC_ERROR and each["loc"][:-1] == place and each["input"] == value
            for each in every
        )
    )


def _parse_json(body: bytes) -> Any:
    """Parse strict JSON; 5.0 is the integer 5, as in JSON Schema."""
    return json.loads(body or b"null", parse_float=_number)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < MAX_EXACT_INTEGER else number


def expiry(text: str | None) -> date | datetime | None:
    """Parse an expiry: the last valid day, or a time. Raises `InvalidError`."""
    try:
        return parse_expiry(text) if text is not None else None
    except ValueError as error:
        raise InvalidError(f"expires: {error}.") from error


def load_configuration(body: bytes, form: str, wanted: Any) -> Loaded:
    """Return a whole configuration, validated like a file. `form` is `yaml` or `json`."""
    if form == "yaml":
        try:
            return check(read(body.decode()), None)
        except UnicodeDecodeError as error:
            raise InvalidError("The body is not UTF-8 text; send it as UTF-8.") from error
    parse_body(wanted, body)
    return check(Document(data=_parse_json(body)), None)


def with_entry(old: Configuration, kind: str, name: str, entry: Any) -> Configuration:
    """Return the configuration with this entry replaced, or removed if the new entry is None.

    Raises `InvalidConfigurationError` for errors that the old configuration did not have.
    """
    data = old.model_dump(mode="json", exclude_defaults=True)
    before = {(problem.path, problem.message) for problem in check(_document(data), None).problems}
    section = {**data.get(kind, {}), name: entry}
    if entry is None:
        del section[name]
    made = check(_document({**data, kind: section}), None)
    raise_for_problems([f for f in made.problems if (f.path, f.message) not in before])
    if not made.problems:
        return made.configuration
    return Configuration.model_validate({**data, kind: section})


def raise_for_problems(problems: list[ConfigProblem]) -> None:
    """Raise `InvalidConfigurationError` if there are problems."""
    if problems:
        raise configuration_error([problem_as_json(problem) for problem in problems])


def problem_as_json(problem: ConfigProblem) -> dict[str, Any]:
    """Return a validation error in the form that responses contain."""
    return {"location": problem.path, "line": problem.line, "reason": problem.message}


def parse_entry(kind: str, body: bytes) -> Any:
    """Return an entry in the form of a configuration file. Raises like `parse_body`."""
    entry = parse_body(KINDS[kind], body)
    return TypeAdapter(KINDS[kind]).dump_python(entry, mode="json", exclude_defaults=True)


def _document(data: dict[str, Any]) -> Document:
    return Document(data={name: dict(section) for name, section in data.items()})


def _validation_problem(error: Any) -> dict[str, Any]:
    place, reason = describe_error(error, Configuration)
    steps = [str(step) for step in place if not _FORM.match(str(step))]
    return {"location": ".".join(steps), "line": 0, "reason": reason}
