"""Arguments that violate a tool's schema, for the caller's error and for the call's event."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jsonschema_rs import ValidationError, ValidationErrorKind

MAX_MISFITS = 50
_MAX_NAMED = 8
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Misfit:
    """A validation failure. `text` is for the caller. `note` is for events and contains no values.

    `names` are the invalid arguments. None means that any argument may be invalid, because a server
    could interpret an argument that its schema does not define as another argument.
    """

    text: str
    note: str
    names: frozenset[str] | None = None

    def concerns(self, read: Collection[str] | None) -> bool:
        """Return whether one of the arguments `read` may be invalid. None means all arguments."""
        if read is None:
            return True
        return bool(read) and (self.names is None or not self.names.isdisjoint(read))


UNCHECKED = Misfit("they are too large to be validated, which a rule or a setting requires", "")


def misfit_of(errors: Sequence[ValidationError], known: Collection[str], text: str) -> Misfit:
    """Return the validation failure for these errors.

    `known` are the names of the arguments that the schema defines. `text` is the message for the
    caller.
    """
    concerned = [_concerned(each) for each in errors[:MAX_MISFITS]]
    named = frozenset(name for name in concerned if name is not None)
    sure = None not in concerned and len(errors) <= MAX_MISFITS
    return Misfit(text, _noted(errors, known), named if sure else None)


def _concerned(error: ValidationError) -> str | None:
    """Return the argument that an error is about; None if it can be any argument."""
    path = error.instance_path
    if path:
        return str(path[0])
    kind = error.kind
    return kind.property if isinstance(kind, ValidationErrorKind.Required) else None


def _noted(errors: Sequence[ValidationError], known: Collection[str]) -> str:
    """Return the arguments and keywords of the errors, without names unknown to the schema."""
    notes = dict.fromkeys(
        f"{_shown(_concerned(each), known)} ({each.kind.name})" for each in errors[:MAX_MISFITS]
    )
    more = ["…"] if len(notes) > _MAX_NAMED else []
    return ", ".join([*list(notes)[:_MAX_NAMED], *more])


def _shown(name: str | None, known: Collection[str]) -> str:
    if name is None:
        return "the arguments"
    return name[:_LONGEST_NAME] if name in known else "an unknown argument"
