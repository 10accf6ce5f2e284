"""Which arguments do not fit a tool's schema: told to the caller, or named in the call's event."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jsonschema_rs import ValidationError, ValidationErrorKind

MOST_MISFITS = 50
_MOST_NAMED = 8
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Misfit:
    """What does not fit: `text` for the caller, `note` for events, which repeats no value.

    `names` are the arguments concerned; None where any may be, for a server could take one that
    its schema does not know for another.
    """

    text: str
    note: str
    names: frozenset[str] | None = None

    def concerns(self, read: Collection[str] | None) -> bool:
        """Return whether one of these arguments may not fit; None stands for all of them."""
        if read is None:
            return True
        return bool(read) and (self.names is None or not self.names.isdisjoint(read))


UNCHECKED = Misfit(
    "they are too large to be checked against the schema, and a rule or a setting wants that", ""
)


def misfit_of(errors: Sequence[ValidationError], known: Collection[str], text: str) -> Misfit:
    """Return what these errors say; `known` are the arguments that the schema names."""
    concerned = [_concerned(each) for each in errors[:MOST_MISFITS]]
    named = frozenset(name for name in concerned if name is not None)
    sure = None not in concerned and len(errors) <= MOST_MISFITS
    return Misfit(text, _noted(errors, known), named if sure else None)


def _concerned(error: ValidationError) -> str | None:
    """The argument an error is about; None where it may be about any."""
    path = error.instance_path
    if path:
        return str(path[0])
    kind = error.kind
    return kind.property if isinstance(kind, ValidationErrorKind.Required) else None


def _noted(errors: Sequence[ValidationError], known: Collection[str]) -> str:
    """The arguments and the keywords of the schema. Names that are the caller's own stay out."""
    told = dict.fromkeys(
        f"{_shown(_concerned(each), known)} ({each.kind.name})" for each in errors[:MOST_MISFITS]
    )
    more = ["…"] if len(told) > _MOST_NAMED else []
    return ", ".join([*list(told)[:_MOST_NAMED], *more])


def _shown(name: str | None, known: Collection[str]) -> str:
    if name is None:
        return "the arguments"
    return name[:_LONGEST_NAME] if name in known else "an unknown argument"
