"""Precision and recall of the built-in guards on public sets, and their false alarms."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from figures import Row, console, row
from guarded.sets import SETS, LabelledSet, Sample, ordinary
from harness.samples import secret_samples
from toolbus_common.config.guards.guard import Guard
from toolbus_common.guards.detectors import detector_of
from toolbus_common.guards.texts.findings import Detector

KINDS = ("secrets", "pii", "injection")
MOST_ALARMS = 0.01  # share of ordinary texts with a finding
LEAST_RECALL, MOST_FALSE = 0.95, 0.05  # on the samples of gitleaks' rules
EXAMPLES = 12
_ADDRESS = "email"  # the addresses in these texts are real: the rule is right to report them


def detectors() -> dict[str, Detector]:
    """Return the detector of each kind with all its rules."""
    return {
        kind: detector_of(Guard.model_validate({"kind": kind, "on": ["results"]})) for kind in KINDS
    }


def measured(directory: Path, more: Iterable[tuple[LabelledSet, Sequence[Sample]]] = ()) -> Any:
    """Return the figures, and print them. `more` are further sets, with their samples."""
    made = detectors()
    sets = [(each, each.samples(directory)) for each in SETS]
    figures: dict[str, Any] = {"sets": {}, "missing": []}
    for about, samples in [*sets, *more]:
        if not samples:
            figures["missing"].append(f"{about.name} ({about.source})")
            continue
        spans = any(sample.spans for sample in samples)
        seen = (by_place if spans else by_text)(made[about.kind], samples)
        figures["sets"][about.name] = {
            "kind": about.kind, "source": about.source, "licence": about.licence, **seen,
        }  # fmt: skip
    found = secret_samples.measured()
    figures["secret_samples"] = {
        "positives": found.positives, "negatives": found.negatives, "recall": found.recall,
        "recall_by_rule": found.recall_by_rule, "false_positives": found.false_positives,
    }  # fmt: skip
    figures["alarms"] = alarms(made, [*ordinary()])
    _show(figures)
    return figures


def rows(figures: Any) -> list[Row]:
    """Return the figures that have a demand."""
    secrets = figures["secret_samples"]
    return (
        [
            row("secrets: recall on gitleaks' samples", secrets["recall"], ">=", LEAST_RECALL),
            row("secrets: false positives there", secrets["false_positives"], "<=", MOST_FALSE),
        ]
        + [
            row(f"{kind}: share of ordinary texts with a finding", seen["share"], "<=", MOST_ALARMS)
            for kind, seen in figures["alarms"].items()
        ]
        + [
            row("pii: the same without e-mail addresses", each, "<=", MOST_ALARMS)
            for each in [figures["alarms"]["pii"].get("without_addresses")]
            if each is not None  # figures of an earlier version
        ]
    )


def by_text(detector: Detector, samples: Sequence[Sample]) -> dict[str, Any]:
    """Count whole texts: a text counts as found if the guard finds anything in it."""
    hits = [(sample, bool(detector.find([sample.text]))) for sample in samples]
    groups: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for sample, hit in hits:
        groups[sample.group][0] += hit
        groups[sample.group][1] += 1
    right = sum(hit and sample.found for sample, hit in hits)
    wrong = sum(hit and not sample.found for sample, hit in hits)
    wanted = sum(sample.found for sample, _ in hits)
    return _figures(right, wrong, wanted, len(samples)) | {"groups": dict(groups)}


def by_place(detector: Detector, samples: Sequence[Sample]) -> dict[str, Any]:
    """Count places: a finding is right if it overlaps one that the set names."""
    groups: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    right = wrong = wanted = 0
    unexpected: Counter[str] = Counter()
    for sample in samples:
        found = detector.find([sample.text])
        for start, end, name in sample.spans:
            hit = any(each.start < end and start < each.end for each in found)
            groups[name][0] += hit
            groups[name][1] += 1
            right, wanted = right + hit, wanted + 1
        for each in found:
            if not any(each.start < end and start < each.end for start, end, _ in sample.spans):
                unexpected[each.rule] += 1
                wrong += 1
    more = {"groups": dict(groups), "unexpected": dict(unexpected)}
    return _figures(right, wrong, wanted, len(samples)) | more


def alarms(made: dict[str, Detector], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the share of ordinary texts with a finding, by kind, and the rules that found it."""
    seen: dict[str, Any] = {}
    for kind, detector in made.items():
        rules: Counter[str] = Counter()
        groups: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        texts = size = others = 0
        for sample in samples:
            found = {each.rule for each in detector.find([sample.text])}
            rules.update(found)
            groups[sample.group][0] += bool(found)
            groups[sample.group][1] += 1
            texts += bool(found)
            others += bool(found - {_ADDRESS})
            size += len(sample.text)
        seen[kind] = {
            "texts": len(samples), "alarms": texts, "share": texts / max(1, len(samples)),
            "without_addresses": others / max(1, len(samples)), "megabytes": size / 1e6,
            "rules": dict(rules.most_common(EXAMPLES)), "groups": dict(groups),
        }  # fmt: skip
    return seen


def _figures(right: int, wrong: int, wanted: int, samples: int) -> dict[str, Any]:
    return {
        "samples": samples, "wanted": wanted, "right": right, "wrong": wrong,
        "precision": right / (right + wrong) if right + wrong else None,
        "recall": right / wanted if wanted else None,
    }  # fmt: skip


def _show(figures: Any) -> None:
    table = Table("set", "guard", "licence", "samples", "precision", "recall")
    for name, seen in figures["sets"].items():
        table.add_row(
            name, seen["kind"], seen["licence"], str(seen["samples"]),
            share(seen["precision"]), share(seen["recall"]),
        )  # fmt: skip
    console.print(table)
    table = Table("guard", "ordinary texts", "with a finding", "rules", title="False alarms")
    for kind, seen in figures["alarms"].items():
        rules = ", ".join(f"{rule} {count}" for rule, count in seen["rules"].items())
        table.add_row(kind, str(seen["texts"]), f"{seen['alarms']} ({share(seen['share'])})", rules)
    console.print(table)
    for name in figures["missing"]:
        console.print(f"not measured, because --sets has no copy of it: {name}")


def share(value: float | None) -> str:
    """Return a share in percent."""
    return "" if value is None else f"{value:.1%}"
