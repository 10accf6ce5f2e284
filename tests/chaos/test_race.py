"""Sixty-four clients race for one budget while policy and Valkey are killed: exact to the cent.

`make bench-ledger` does the same with a hundred thousand reservations.
"""

from pathlib import Path

from harness.gateway.budget_race import Race


def test_a_race_through_kills_neither_overshoots_nor_drifts_nor_leaks(tmp_path: Path) -> None:
    figures = Race(tmp_path, 4000).run(every=(0.5, 1.5))
    assert (figures.overshoot, figures.drift, figures.leaked) == (0, 0, 0), figures
    assert figures.kills, figures
    assert figures.refused >= figures.clients, figures
    # Calls that a killed replica held stay reserved until redelivery, half a minute later.
    assert figures.spent > figures.limit / 2, figures
