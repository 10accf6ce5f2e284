"""Recall and false positives of the detector of secrets on the samples of gitleaks' rules."""

import gzip
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from toolbus_common.guards.secrets.detector import SecretsDetector, known_rules

_FILE = Path(__file__).parent / "gitleaks" / "samples.jsonl.gz"


@dataclass(frozen=True)
class RuleSamples:
    """The samples of one rule."""

    rule: str
    true: tuple[str, ...]
    false: tuple[str, ...]


@dataclass
class Figures:
    """How many samples were found: with their own rule alone, and with all rules together."""

    positives: int = 0
    found: int = 0
    found_by_rule: int = 0
    negatives: int = 0
    reported: int = 0
    missed: Counter[str] = field(default_factory=Counter)

    @property
    def recall(self) -> float:
        """The share of the true positives that any rule finds."""
        return self.found / self.positives

    @property
    def recall_by_rule(self) -> float:
        """The share of the true positives that the rule of the sample finds."""
        return self.found_by_rule / self.positives

    @property
    def false_positives(self) -> float:
        """The share of the negatives of a rule that this rule reports."""
        return self.reported / self.negatives


@cache
def secret_samples() -> tuple[RuleSamples, ...]:
    """Return the samples of each rule, also of the rules that Toolbus leaves out."""
    lines = gzip.decompress(_FILE.read_bytes()).decode().splitlines()
    return tuple(
        RuleSamples(each["rule"], tuple(each["true"]), tuple(each["false"]))
        for each in map(json.loads, lines)
    )


def measured() -> Figures:
    """Return the figures over all samples. A rule that is left out finds none of its samples."""
    whole, figures = SecretsDetector(), Figures()
    for samples in secret_samples():
        rules = (samples.rule,) if samples.rule in known_rules() else ()
        alone = SecretsDetector(rules)
        for text in samples.true:
            found = bool(whole.find([text]))
            figures.positives += 1
            figures.found += found
            figures.found_by_rule += bool(alone.find([text]))
            figures.missed[samples.rule] += not found
        for text in samples.false:
            figures.negatives += 1
            figures.reported += bool(alone.find([text]))
    return figures
