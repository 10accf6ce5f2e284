"""From a text to a declaration, or to every fault in it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toolbus_cli.config import references, rules
from toolbus_cli.config.document import Document, Fault, read
from toolbus_cli.config.sentences import sentence
from toolbus_cli.errors import CommandError
from toolbus_common.declared import Declaration
from toolbus_common.snapshot import hash_of, proof_of

SHORTEST_SECRET = 24
LARGEST_FILE = 4 * 1024 * 1024
_MAY_BE_BARE = ("customers", "teams", "users", "keys", "groups")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked text. With faults there is no declaration to speak of.

    `secrets` holds the key secrets the text or the environment gave, by key: never stored.
    """

    declaration: Declaration = field(default_factory=Declaration)
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


class ConfigurationError(CommandError):
    """A file with faults: all of them, and nothing was applied."""

    def __init__(self, path: Path, faults: tuple[Fault, ...]) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"{path}:{fault.line}: {fault}" for fault in faults]
        super().__init__("\n".join([*lines, f"{path} has {count}; nothing was applied."]))
        self.faults = faults


def load_file(path: Path, environ: Mapping[str, str]) -> Loaded:
    """The checked file. Raises `ConfigurationError`, or `CommandError` if it cannot be read."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CommandError(
                f"{path} is larger than {LARGEST_FILE >> 20} MiB; declare fewer keys, and make "
                "the others with 'toolbus keys create'."
            )
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise CommandError(f"{path} cannot be read ({reason}); name another with -c.") from error
    loaded = load(text, environ)
    if loaded.faults:
        raise ConfigurationError(path, loaded.faults)
    return loaded


def load(text: str, environ: Mapping[str, str]) -> Loaded:
    """Check a text as a whole."""
    document = read(text)
    found = list(document.faults)
    if document.data is None and not found:
        document.data = {}
    if not isinstance(document.data, dict):
        found = found or [Fault(1, "", "the file must hold sections such as servers: and keys:")]
        return Loaded(faults=tuple(found))
    _drop_empty(document.data)
    found += [*references.faults(document), *rules.faults(document)]
    secrets: dict[str, str] = {}
    found += _take_secrets(document, environ, secrets)
    declaration, wrong = _validated(document)
    faults = tuple(sorted({*found, *wrong}))
    warnings = [
        *references.warnings(document, environ),
        *rules.warnings(document, declaration),
        *_expired(document, declaration),
    ]
    return Loaded(declaration, faults, tuple(sorted(set(warnings))), secrets)


def _drop_empty(data: dict[str, Any]) -> None:
    """A section whose entries are all commented out declares nothing; so does a bare name."""
    for name, section in list(data.items()):
        if section is None and name in Declaration.model_fields:
            del data[name]
        elif isinstance(section, dict) and name in _MAY_BE_BARE:
            section.update({key: {} for key, value in section.items() if value is None})


def _take_secrets(
    document: Document, environ: Mapping[str, str], secrets: dict[str, str]
) -> Iterator[Fault]:
    keys = document.data.get("keys")
    owners: dict[str, str] = {}
    for name, key in keys.items() if isinstance(keys, dict) else ():
        if not isinstance(key, dict):
            continue
        yield from _checked_hash(document, name, key)
        if "secret" not in key:
            continue
        place = ("keys", name, "secret")
        secret, wrong = _resolved(key.pop("secret"), environ)
        if wrong:
            yield document.fault(place, wrong)
        elif secret in owners:
            yield document.fault(place, f"is also the secret of the key '{owners[secret]}'")
        else:
            owners[secret], secrets[name] = name, secret
            key["secret_hash"] = hash_of(proof_of(secret))


def _checked_hash(document: Document, name: str, key: dict[str, Any]) -> Iterator[Fault]:
    if "secret_hash" not in key:
        return
    place = ("keys", name, "secret_hash")
    if "secret" in key:
        yield document.fault(place, "is given beside secret; keep one of them")
    elif not _HASH.fullmatch(str(key["secret_hash"])):
        yield document.fault(
            place, "must be 64 hex digits: SHA-256 of the hex SHA-256 of the secret"
        )


def _resolved(secret: Any, environ: Mapping[str, str]) -> tuple[str, str]:
    """The secret itself, or what is wrong. What is wrong never quotes it."""
    if not isinstance(secret, str):
        return "", "must be text; put it in quotes"
    whole = references.REFERENCE.fullmatch(secret)
    source = ""
    if whole is not None:
        source = f" (from {whole[1]})"
        secret = environ.get(whole[1], "")
        if not secret:
            return "", f"the environment has no {whole[1]}; set it before starting"
    elif "${" in secret:
        return "", "must be a secret or exactly ${env:NAME}"
    if len(secret) < SHORTEST_SECRET:
        return "", f"is shorter than {SHORTEST_SECRET} characters{source}; make it longer"
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        return "", f"may hold printable ASCII without spaces only{source}: it travels in a header"
    return secret, ""


def _validated(document: Document) -> tuple[Declaration, list[Fault]]:
    try:
        return Declaration.model_validate(document.data), []
    except ValidationError as error:
        found = []
        for each in error.errors(include_url=False):
            place, said = sentence(each, Declaration)
            found.append(document.fault(place, said))
        return Declaration(), found


def _expired(document: Document, declaration: Declaration) -> Iterator[Fault]:
    today: date = datetime.now(UTC).date()
    for name, key in declaration.keys.items():
        if key.expires is not None and key.expires < today:
            yield document.fault(("keys", name, "expires"), "is in the past: the key opens nothing")
