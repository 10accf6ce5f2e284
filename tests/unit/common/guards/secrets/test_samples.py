"""Recall and precision on the samples of the rules' authors."""

from harness.samples.secret_samples import measured, secret_samples


def test_nearly_all_samples_are_found_and_hardly_any_negative_is() -> None:
    figures = measured()
    assert figures.positives > 6000
    assert figures.recall >= 0.99
    assert figures.recall_by_rule >= 0.99
    assert figures.false_positives <= 0.02


def test_the_samples_cover_the_rules() -> None:
    assert len([each for each in secret_samples() if each.true]) > 200
