"""Events and subjects: fields from the contracts, publishers from the permissions on the bus."""

from collections.abc import Iterator

from pydantic import BaseModel

from reference.markdown import code, paragraphs, table
from reference.types import default_of, type_of
from toolbus_common import contracts
from toolbus_common.contracts import CallFact, Fact, Message, Question
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.permissions import rights
from toolbus_common.nats.topology import BUCKETS, DURABLES, FACTS

OWN_SUBJECTS = "tb."


def events() -> list[type[Fact]]:
    """Return every event, by name."""
    return sorted(_events_below(Fact), key=lambda event: event.NAME)


def _events_below(base: type[Fact]) -> Iterator[type[Fact]]:
    for child in base.__subclasses__():
        if not child.__module__.startswith(contracts.__name__):
            continue
        if "NAME" in vars(child):
            yield child
        yield from _events_below(child)


def messages() -> list[type[Message]]:
    """Return every message that is no event and has a subject of its own, by subject."""
    found: dict[str, type[Message]] = {}
    waiting = [Message]
    while waiting:
        for child in waiting.pop().__subclasses__():
            waiting.append(child)
            if "SUBJECT" in vars(child) and child.__module__.startswith(contracts.__name__):
                found[child.SUBJECT] = child
    return [found[subject] for subject in sorted(found)]


def generated() -> str:
    """Return the tables of subjects, buckets and consumers, and one section for each event."""
    parts = [
        "## Subjects", _subjects(),
        "## Queries", _queries(),
        "## Key-value buckets", _buckets(),
        "## Consumers of the event stream", _consumers(),
        "## Fields of every event", _fields(Fact, ()),
        "## Fields of every event about a call", _fields(CallFact, tuple(Fact.model_fields)),
        *(_section(event) for event in events()),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _allowed(kind: str) -> dict[str, list[str]]:
    """Return the subjects of our own that may be published (or subscribed to), and by which users."""
    found: dict[str, list[str]] = {}
    for user, granted in rights().items():
        for subject in getattr(granted, kind):
            if subject.startswith(OWN_SUBJECTS):
                found.setdefault(subject, []).append(user)
    return found


def _names(users: list[str]) -> str:
    return ", ".join(sorted(users))


def _subjects() -> str:
    publish, subscribe = _allowed("publish"), _allowed("subscribe")
    known = {each.SUBJECT: each for each in messages()}
    queries = {each.SUBJECT for each in Question.__subclasses__()}
    event_subjects = {subject_of(event.NAME, "*") for event in events()}
    shown = sorted({*publish, *subscribe} - queries - event_subjects)
    rows = []
    for subject in shown:
        message = known.get(subject.removesuffix(".*").removesuffix(".>"))
        meaning = _first_sentence(message) if message else ""
        rows.append(
            (code(subject), _names(publish.get(subject, [])), _names(subscribe.get(subject, [])))
            + (meaning,)
        )
    return table(("subject", "may publish", "may subscribe", "message"), rows)


def _queries() -> str:
    publish = _allowed("publish")
    rows = [
        (
            code(each.SUBJECT),
            each.SUBJECT.split(".")[2],
            _names(publish.get(each.SUBJECT, [])),
            ", ".join(map(code, each.model_fields)),
            _first_sentence(each),
        )
        for each in sorted(Question.__subclasses__(), key=lambda each: each.SUBJECT)
        if each.__module__.startswith(contracts.__name__)
    ]
    return table(("subject", "answered by", "may send", "fields", "query"), rows)


def _buckets() -> str:
    granted = rights()
    rows = []
    for config in BUCKETS:
        writers = [u for u, each in granted.items() if any(
            subject.startswith(f"$KV.{config.bucket}.") for subject in each.publish
        )]
        readers = [u for u, each in granted.items() if watched(config.bucket) in each.subscribe]
        kept = "" if not config.ttl else f"{config.ttl:g} s"
        rows.append((code(config.bucket), _names(writers), _names(readers), kept))
    return table(("bucket", "may write", "watched by", "entries expire after"), rows)


def _consumers() -> str:
    rows = [
        (
            code(durable.known_as),
            ", ".join(map(code, durable.subjects)),
            f"{durable.wait_seconds:g} s",
        )
        for durable in DURABLES
    ]
    head = f"The stream is `{FACTS}`."
    return f"{head}\n\n{table(('consumer', 'subjects', 'acknowledged within'), rows)}"


def _section(event: type[Fact]) -> str:
    subject = subject_of(event.NAME, "*")
    base = CallFact if issubclass(event, CallFact) else Fact
    about = "every event about a call" if base is CallFact else "every event"
    anchor = about.replace(" ", "-")
    parts = [
        f"## {event.NAME}",
        paragraphs(event.__doc__),
        *_inherited_docs(event),
        f"Published by {_names(_allowed('publish').get(subject, []))} on "
        f"`{subject_of(event.NAME, '<customer>')}`, with [the fields of {about}]"
        f"(#fields-of-{anchor}).",
        _fields(event, tuple(base.model_fields)),
    ]
    return "\n\n".join(filter(None, parts))


def _inherited_docs(event: type[Fact]) -> Iterator[str]:
    """Yield the docstrings of the bases between an event and the two general ones."""
    for base in event.__mro__[1:]:
        if base in (CallFact, Fact):
            return
        if issubclass(base, Fact):
            yield paragraphs(base.__doc__)


def _fields(model: type[BaseModel], without: tuple[str, ...]) -> str:
    rows = [
        (code(name), type_of(field.annotation), default_of(field))
        for name, field in model.model_fields.items()
        if name not in without
    ]
    text = paragraphs(model.__doc__) if not without or model is CallFact else ""
    shown = table(("field", "type", "default"), rows) if rows else ""
    return "\n\n".join(filter(None, (text, shown)))


def _first_sentence(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."
