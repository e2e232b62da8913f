"""Classes stand in the order that their names tell, and in no other."""

from __future__ import annotations

import pytest

from nnduet.data.class_order import natural_order, ranks


@pytest.mark.parametrize(
    "expected",
    [
        ["2", "9", "10"],
        ["0.5", "1", "1.5"],
        ["-1", "0", "1"],
        ["G1", "G2", "G10"],
        ["T1", "T1a", "T1b", "T2", "T10"],
        ["BI-RADS 3", "BI-RADS 4A", "BI-RADS 4B", "BI-RADS 5"],
        ["1 cm", "2 cm", "10 cm"],
        ["1-5 cm", "6-10 cm", "11-20 cm"],
        ["I", "II", "III", "IV"],
        ["I", "II", "V", "IX", "X"],
        ["Stage i", "Stage ii", "Stage iv"],
        ["Stage IIa", "Stage IIb", "Stage III"],
    ],
)
def test_row_75_ordinal_classes_stand_in_the_order_of_their_numbers(expected: list[str]) -> None:
    assert ranks(expected) is not None
    assert natural_order(sorted(expected)) == natural_order(expected[::-1]) == tuple(expected)


@pytest.mark.parametrize(
    "labels",
    [
        ["low", "medium", "high"],
        ["A", "B", "C"],
        ["0", "1", "two"],
        ["G1", "G01"],
        ["G1 low", "G1 high"],
        ["0", "1+", "2+"],
        ["C", "D", "L"],
        ["taxi", "tax"],
        ["<1", "1-2", ">2"],
    ],
)
def test_row_75_no_rank_is_read_out_of_other_names(labels: list[str]) -> None:
    assert ranks(labels) is None


def test_row_75_classes_without_rank_are_sorted_naturally() -> None:
    assert natural_order(["b10", "a", "b9", "10", "9 x"]) == ("9 x", "10", "a", "b9", "b10")
    assert natural_order(["T10 left", "T2 right"]) == ("T2 right", "T10 left")
