"""From a text to a declaration, or to every fault in it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from toolbus_common.access.anonymous import FORCE, remote_reason
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config.access.expiry import expired
from toolbus_common.config_store.loading import references, rules
from toolbus_common.config_store.loading.document import ConfigProblem, Document, read
from toolbus_common.config_store.loading.messages import sentence

SHORTEST_SECRET = 24
_MAY_BE_BARE = ("customers", "teams", "users", "keys", "groups")
Environ = Mapping[str, str] | None
NO_REFERENCE = "may be no reference here; give the secret itself, or none and one is made"
NOT_SET = "the environment has no {}; set it before starting"
_HASH = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked text. With faults there is no declaration to speak of.

    `secrets` holds the key secrets the text or the environment gave, by key: never stored.
    """

    declaration: Configuration = field(default_factory=Configuration)
    faults: tuple[ConfigProblem, ...] = ()
    warnings: tuple[ConfigProblem, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def load(text: str, environ: Environ, beside: PurePath | None = None) -> Loaded:
    """Check a text as a whole. Without an environment no secret may be a reference to one.

    Files it names lie `beside` it.
    """
    document = read(text)
    if beside is not None and isinstance(document.data, dict):
        _find_documents(document.data, beside)
    return check(document, environ)


def check(document: Document, environ: Environ) -> Loaded:
    """Check what was read, as a whole. Its data is used up."""
    found = list(document.faults)
    if document.data is None and not found:
        document.data = {}
    if not isinstance(document.data, dict):
        found = found or [
            ConfigProblem(1, "", "the file must hold sections such as servers: and keys:")
        ]
        return Loaded(faults=tuple(found))
    _drop_empty(document.data)
    found += [*references.faults(document), *rules.faults(document)]
    secrets: dict[str, str] = {}
    found += _take_secrets(document, environ, secrets)
    declaration, wrong = _validated(document)
    found += _reached_from_afar(document, declaration, environ or {})
    faults = tuple(sorted({*found, *wrong}))
    warnings = [
        *references.warnings(document, environ or {}),
        *rules.warnings(document, declaration),
        *_expired(document, declaration),
        *_let_in_by_nothing(document, declaration),
        *_open_to_everybody(document, declaration),
    ]
    return Loaded(declaration, faults, tuple(sorted(set(warnings))), secrets)


def _find_documents(data: dict[str, Any], beside: PurePath) -> None:
    """Name OpenAPI files as they are found from anywhere: executors work elsewhere."""
    servers = data.get("servers")
    for server in servers.values() if isinstance(servers, dict) else ():
        told = server.get("openapi") if isinstance(server, dict) else None
        if isinstance(told, str) and told and "://" not in told:
            server["openapi"] = str(beside / told)


def _drop_empty(data: dict[str, Any]) -> None:
    """A section whose entries are all commented out declares nothing; so does a bare name."""
    for name, section in list(data.items()):
        if section is None and name in Configuration.model_fields:
            del data[name]
        elif isinstance(section, dict) and name in _MAY_BE_BARE:
            section.update({key: {} for key, value in section.items() if value is None})


def _take_secrets(
    document: Document, environ: Environ, secrets: dict[str, str]
) -> Iterator[ConfigProblem]:
    """Put a hash in the place of every secret."""
    owners: dict[str, str] = {}
    for section, name, entry in _with_secrets(document.data):
        yield from _checked_hash(document, (section, name), entry)
        if "secret" not in entry:
            continue
        place = (section, name, "secret")
        secret, wrong = _resolved(entry.pop("secret"), environ)
        if wrong:
            yield document.fault(place, wrong)
        elif secret in owners:
            yield document.fault(place, f"is also the secret of {owners[secret]}")
        else:
            owners[secret] = f"the {section.removesuffix('s')} '{name}'"
            entry["secret_hash"] = hash_of(key_digest_of(secret))
            if section == "keys":
                secrets[name] = secret


def _with_secrets(data: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for section in ("keys", "admins", "readers"):
        entries = data.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                yield section, str(name), entry


def _checked_hash(
    document: Document, place: tuple[str, str], entry: dict[str, Any]
) -> Iterator[ConfigProblem]:
    if "secret_hash" not in entry:
        return
    where = (*place, "secret_hash")
    if "secret" in entry:
        yield document.fault(where, "is given beside secret; keep one of them")
    elif not _HASH.fullmatch(str(entry["secret_hash"])):
        yield document.fault(
            where, "must be 64 hex digits: SHA-256 of the hex SHA-256 of the secret"
        )


def _resolved(secret: Any, environ: Environ) -> tuple[str, str]:
    """The secret itself, or what is wrong. What is wrong never quotes it."""
    if not isinstance(secret, str):
        return "", "must be text; put it in quotes"
    whole = _VARIABLE.fullmatch(secret)
    source = ""
    if whole is not None:
        source = f" (from {whole[1]})"
        secret = (environ or {}).get(whole[1], "")
        if not secret:
            return "", NO_REFERENCE if environ is None else NOT_SET.format(whole[1])
    elif "${" in secret:
        return "", "must be a secret or exactly ${env:NAME}"
    if len(secret) < SHORTEST_SECRET:
        return "", f"is shorter than {SHORTEST_SECRET} characters{source}; make it longer"
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        return "", f"may hold printable ASCII without spaces only{source}: it travels in a header"
    return secret, ""


def _validated(document: Document) -> tuple[Configuration, list[ConfigProblem]]:
    try:
        return Configuration.model_validate(document.data), []
    except ValidationError as error:
        found = []
        for each in error.errors(include_url=False):
            place, said = sentence(each, Configuration)
            found.append(document.fault(place, said))
        return Configuration(), found


def _expired(document: Document, declaration: Configuration) -> Iterator[ConfigProblem]:
    now = datetime.now(UTC).timestamp()
    entries: tuple[tuple[str, Mapping[str, Key | Admin]], ...] = (
        ("keys", declaration.keys), ("admins", declaration.admins),
    )  # fmt: skip
    for section, expiring in entries:
        for name, entry in expiring.items():
            if expired(entry.expires, now):
                noun = section.removesuffix("s")
                said = f"is in the past: the {noun} opens nothing"
                yield document.fault((section, name, "expires"), said)


def _let_in_by_nothing(document: Document, declaration: Configuration) -> Iterator[ConfigProblem]:
    """Readers without a secret: unlike that of keys, theirs is never made for them."""
    for name, reader in declaration.readers.items():
        if not reader.secret_hash:
            said = (
                "has no secret: unless it had one before, nobody can ask as this reader; give one"
            )
            yield document.fault(("readers", name), said)


def _reached_from_afar(
    document: Document, declaration: Configuration, environ: Mapping[str, str]
) -> Iterator[ConfigProblem]:
    """Callers without a credential, where other machines may reach the gateway."""
    if not declaration.anonymous.on or declaration.anonymous.allow_remote:
        return
    told = (environ.get(f"TOOLBUS_{each}", "") for each in ("PUBLIC_URL", "TRUSTED_PROXIES"))
    reason = remote_reason(environ.get("TOOLBUS_HTTP_HOST") or "127.0.0.1", *told)
    if reason:
        yield document.fault(
            ("anonymous",),
            f"lets in callers without a credential, and {reason}: anybody who reaches it could use "
            f"these tools. Listen on 127.0.0.1 only, or accept that with {FORCE}",
        )


def _open_to_everybody(document: Document, declaration: Configuration) -> Iterator[ConfigProblem]:
    if declaration.anonymous.on and declaration.anonymous.allow_remote:
        yield document.fault(
            ("anonymous", "allow_remote"),
            "lets everybody who reaches the gateway use these tools without a key",
        )
