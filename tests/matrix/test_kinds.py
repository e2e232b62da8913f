"""The rows of the matrix cover every pair of properties."""

from __future__ import annotations

import itertools

from kinds import PROPERTIES, covering_rows


def test_any_two_properties_that_can_occur_together_do() -> None:
    rows, names = covering_rows(), list(PROPERTIES)
    for first, second in itertools.combinations(names, 2):
        for pair in itertools.product(PROPERTIES[first], PROPERTIES[second]):
            known = {first: pair[0], second: pair[1]}
            without_table = known.get("tasks") == "none" and any(known.get(n) for n in ("covariates", "missing", "patients"))
            assert without_table or any((getattr(row, first), getattr(row, second)) == pair for row in rows), known
