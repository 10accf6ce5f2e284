"""Events and subjects: fields from the contracts, publishers from the permissions on the bus."""

from collections.abc import Iterator

from pydantic import BaseModel

from reference.markdown import code, paragraphs, table
from reference.texts import texts
from reference.types import default_of, type_of
from toolbus_common import contracts
from toolbus_common.contracts import CallEvent, Event, Message, Query
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.permissions import rights
from toolbus_common.nats.topology import BUCKETS, DURABLES, EVENTS

OWN_SUBJECTS = "tb."
BUCKET_UPDATES = "tb.kv."  # subjects on which buckets republish their updates
SECONDS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def events() -> list[type[Event]]:
    """Return every event, by name."""
    return sorted(_events_below(Event), key=lambda event: event.NAME)


def _events_below(base: type[Event]) -> Iterator[type[Event]]:
    for child in base.__subclasses__():
        if not child.__module__.startswith(contracts.__name__):
            continue
        if "NAME" in vars(child):
            yield child
        yield from _events_below(child)


def messages() -> dict[str, type[Message]]:
    """Return every message that is not an event, by its subject."""
    found: dict[str, type[Message]] = {}
    waiting = [Message]
    while waiting:
        for child in waiting.pop().__subclasses__():
            waiting.append(child)
            if "SUBJECT" in vars(child) and child.__module__.startswith(contracts.__name__):
                found[vars(child)["SUBJECT"]] = child
    return found


def generated() -> str:
    """Return the tables of subjects, buckets and consumers, and one section for each event."""
    parts = [
        "## Subjects", _subjects(),
        "## Queries", _queries(),
        "## Key-value buckets", _buckets(),
        "## Consumers of the event stream", _consumers(),
        "## Fields of every event", _fields(Event, ()),
        "## Fields of every event about a call", _fields(CallEvent, tuple(Event.model_fields)),
        *(_section(event) for event in events()),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _allowed(kind: str) -> dict[str, list[str]]:
    """Return the users by the Toolbus subject that they may publish or subscribe to."""
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
    known, result = messages(), texts("subjects")
    queries = {each.SUBJECT for each in Query.__subclasses__()}
    event_subjects = {subject_of(event.NAME, "*") for event in events()}
    shown = sorted({*publish, *subscribe} - queries - event_subjects)
    replies = next(subject for subject in publish if subject.split(".")[1] == "reply")
    request = min(queries).rsplit(".", 2)[0] + "."
    to_one = f"{request}<service>.>"
    rows = [
        (code(replies[:-1] + "<service>.>"), _names(publish[replies]), "that service", "Replies."),
        (code(to_one), "see [Queries](#queries)", "that service", "Queries to one service."),
        (code(f"{request}all.>"), "operator", "every service", "Queries to every service."),
    ]
    for subject in shown:
        if subject.startswith((replies[:-1], request, BUCKET_UPDATES)):
            continue
        message = known.get(subject.removesuffix(".*").removesuffix(".>"))
        meaning = _summary(message) if message else result[subject]
        rows.append(
            (
                code(subject),
                _names(publish.get(subject, [])),
                _names(subscribe.get(subject, [])),
                meaning,
            )
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
            _summary(each),
        )
        for each in sorted(Query.__subclasses__(), key=lambda each: each.SUBJECT)
        if each.__module__.startswith(contracts.__name__)
    ]
    return table(("subject", "answered by", "may send", "fields", "query"), rows)


def _buckets() -> str:
    granted = rights()
    rows = []
    for config in BUCKETS:
        writers = [
            u
            for u, each in granted.items()
            if any(subject.startswith(f"$KV.{config.bucket}.") for subject in each.publish)
        ]
        readers = [u for u, each in granted.items() if watched(config.bucket) in each.subscribe]
        kept = "" if not config.ttl else _duration(config.ttl)
        rows.append((code(config.bucket), _names(writers), _names(readers), kept))
    return table(("bucket", "may write", "watched by", "entries expire after"), rows)


def _duration(seconds: float) -> str:
    """Format a time in seconds as a whole number of the largest possible unit."""
    size, unit = next((size, unit) for size, unit in SECONDS if seconds % size == 0)
    return f"{seconds / size:g} {unit}"


def _consumers() -> str:
    rows = [
        (
            code(durable.consumer_name),
            ", ".join(map(code, durable.subjects)),
            f"{durable.wait_seconds:g} s",
        )
        for durable in DURABLES
    ]
    head = f"The stream is `{EVENTS}`."
    return f"{head}\n\n{table(('consumer', 'subjects', 'acknowledged within'), rows)}"


def _section(event: type[Event]) -> str:
    subject = subject_of(event.NAME, "*")
    base = CallEvent if issubclass(event, CallEvent) else Event
    about = "every event about a call" if base is CallEvent else "every event"
    published = (
        f"Published by {_names(_allowed('publish').get(subject, []))} on "
        f"`{subject_of(event.NAME, '<customer>')}`, with [the fields of {about}]"
        f"(#fields-of-{about.replace(' ', '-')})."
    )
    parts = [
        f"## {event.NAME}",
        paragraphs(event.__doc__),
        *_inherited_docs(event),
        published,
        _fields(event, tuple(base.model_fields)),
    ]
    return "\n\n".join(filter(None, parts))


def _inherited_docs(event: type[Event]) -> Iterator[str]:
    """Yield the docstrings of the classes between an event and the two common base classes."""
    for base in event.__mro__[1:]:
        if base in (CallEvent, Event):
            return
        if issubclass(base, Event):
            yield paragraphs(base.__doc__)


def _fields(model: type[BaseModel], without: tuple[str, ...]) -> str:
    rows = [
        (code(name), type_of(field.annotation), default_of(field))
        for name, field in model.model_fields.items()
        if name not in without
    ]
    text = paragraphs(model.__doc__) if not without or model is CallEvent else ""
    shown = table(("field", "type", "default"), rows) if rows else ""
    return "\n\n".join(filter(None, (text, shown)))


def _summary(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."
