"""Samples of content with the verdicts that guards must give."""

import json
from collections.abc import Mapping
from pathlib import Path
from secrets import token_bytes
from time import time
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from toolbus_cli.errors import CommandError
from toolbus_common.config import Guard
from toolbus_common.config.guards.guard import Phase
from toolbus_common.contracts.events.guards import GuardCheck, Verdict
from toolbus_common.contracts.guards import CheckedCall, ServiceCheck, ServiceVerdict
from toolbus_common.errors import InvalidError
from toolbus_common.guards.inspector import Inspector
from toolbus_common.guards.placeholders import Placeholders

LARGEST = 16 << 20  # bytes of a file
SECONDS = 60.0  # for the guards of one content


class Sample(Struct, forbid_unknown_fields=True):
    """A content and the expected verdict of a guard, or of each guard of the phase.

    `content` is a text or any other JSON value. `findings` are the expected names of rules; without
    them, any are right.
    """

    phase: Phase
    content: Any
    expect: Verdict
    guard: str = ""
    name: str = ""
    findings: list[str] | None = None


class Result(Struct):
    """The check of a sample by one guard."""

    sample: str
    expected: str
    check: GuardCheck
    ok: bool

    @property
    def as_data(self) -> dict[str, Any]:
        """The result as a dictionary for JSON."""
        check = self.check.__dict__
        return {"sample": self.sample, "ok": self.ok, "expected": self.expected, **check}


async def offline(
    guard: str,
    phase: str,  # noqa: ARG001 - part of the protocol
    call: CheckedCall,  # noqa: ARG001
    content: bytes,  # noqa: ARG001
) -> ServiceVerdict:
    """Refuse to ask a service."""
    raise InvalidError(
        f"'{guard}' asks a service, which needs a running Toolbus that has this guard; apply the "
        "configuration to it"
    )


class Laboratory:
    """Guards that check single contents, outside of any call."""

    def __init__(self, guards: Mapping[str, Guard], ask_service: ServiceCheck = offline) -> None:
        self.guards = guards
        secrets = [token_bytes(32)]
        self._inspector = Inspector(guards, ask_service, Placeholders(lambda: secrets))

    async def check(self, guard: str, phase: Phase, content: bytes) -> GuardCheck:
        """Return the check of a JSON document by one guard.

        Raises:
            CommandError: there is no such guard, or it does not check this phase.

        """
        found = self.known(guard)
        if phase not in found.on:
            raise CommandError(
                f"The guard '{guard}' checks {', '.join(found.on)}, not {phase}; add it to 'on:'."
            )
        call = CheckedCall(
            call_id="sample", customer="default", key="sample", server="sample", tool="sample",
            deadline=time() + SECONDS, principal_id="sample", run="sample",
        )  # fmt: skip
        inspection = await self._inspector.inspect((guard,), phase, call, content)
        return inspection.checks[0]

    def known(self, guard: str) -> Guard:
        """Return the guard of this name. Raises `CommandError` if there is none."""
        if guard not in self.guards:
            names = ", ".join(self.guards) or "none"
            raise CommandError(f"There is no guard '{guard}'; the guards are: {names}.")
        return self.guards[guard]

    async def results(self, number: int, sample: Sample, guard: str) -> list[Result]:
        """Check a sample with its guard, else with `guard`, else with all guards of its phase."""
        chosen = sample.guard or guard
        names = [chosen] if chosen else [
            name for name, each in self.guards.items() if sample.phase in each.on
        ]  # fmt: skip
        if not names:
            raise CommandError(
                f"No guard checks {sample.phase} (sample {number}); name one with --guard."
            )
        content = msgspec.json.encode(sample.content)
        made = [await self.check(name, sample.phase, content) for name in names]
        return [
            Result(sample.name or f"#{number}", sample.expect, each, ok=_fits(sample, each))
            for each in made
        ]


def samples_of(path: Path) -> list[Sample]:
    """Read samples: one JSON object per line (`.jsonl`), or a list in YAML or JSON.

    Raises:
        CommandError: the file cannot be read, or a sample does not have the form.

    """
    text = text_of(path)
    try:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            found = yaml.safe_load(text)
        return msgspec.convert(found, list[Sample])
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError(
            f"{path}: {reason}; each sample has 'phase', 'content', 'expect', and can have "
            "'guard', 'findings' and 'name'."
        ) from None


def text_of(path: Path) -> str:
    """Return the text of a file. Raises `CommandError` if it is too large or not readable."""
    try:
        if path.stat().st_size > LARGEST:
            raise CommandError(f"{path} is larger than {LARGEST >> 20} MiB; split it.")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as UTF-8 text; give another file.") from error


def document(text: str) -> bytes:
    """Return a text as a JSON document: a JSON object or list unchanged, else a JSON string."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            return text.encode()
    return msgspec.json.encode(text)


def _fits(sample: Sample, check: GuardCheck) -> bool:
    same = sample.findings is None or sorted(set(sample.findings)) == sorted(check.findings)
    return check.verdict == sample.expect and same
