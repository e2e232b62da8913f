"""Classes stand in the order that their names tell, and in no other."""

from __future__ import annotations

import pytest

from nnduet.datasets.class_order import natural_order, ranks


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


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1,5", "2"], [("1,5", (1.5,)), ("2", (2.0,))]),
        (["6-10 cm", "1-5 cm"], [("1-5 cm", (1.0, 5.0)), ("6-10 cm", (6.0, 10.0))]),
        (["T2", "T1a", "T1"], [("T1", (1.0, "")), ("T1a", (1.0, "a")), ("T2", (2.0, ""))]),
        (
            ["Stage XXXIX", "stage iv", "Stage IXb"],
            [("stage iv", (4.0, "")), ("Stage IXb", (9.0, "b")), ("Stage XXXIX", (39.0, ""))],
        ),
    ],
)
def test_ranks_are_the_numbers_in_the_labels(labels: list[str], expected: list[tuple[str, tuple[float | str, ...]]]) -> None:
    found = ranks(labels)
    assert found == dict(expected)
    assert natural_order(labels) == tuple(label for label, _ in expected)


@pytest.mark.parametrize(
    "numeral, value", [("I", 1), ("III", 3), ("IV", 4), ("V", 5), ("VIII", 8), ("IX", 9), ("X", 10), ("XIV", 14)]
)
def test_roman_numerals_are_read(numeral: str, value: int) -> None:
    assert ranks([numeral, "II"]) == {numeral: (float(value), ""), "II": (2.0, "")}


@pytest.mark.parametrize(
    "labels", [["IIII", "II"], ["XL", "II"], ["a II", "b IV"], ["mix", "ix"], ["II", "two"], ["IId", "III"]]
)
def test_what_is_no_roman_numeral_has_no_rank(labels: list[str]) -> None:
    assert ranks(labels) is None


def test_a_blank_or_a_sign_may_stand_before_a_roman_numeral_and_no_letter() -> None:
    assert ranks(["grade-iv", "grade-i"]) is not None
    assert ranks(["gradeiv", "gradei"]) is None


def test_numbers_stand_before_texts_and_texts_in_the_order_of_the_alphabet_without_regard_to_case() -> None:
    assert natural_order(["beta", "Alpha", "10", "9", "gamma 2", "gamma 10", "gamma"]) == (
        "9",
        "10",
        "Alpha",
        "beta",
        "gamma",
        "gamma 2",
        "gamma 10",
    )
    assert natural_order(["B", "b", "A"]) == ("A", "B", "b")


def test_of_equal_ranks_none_is_told_though_others_differ() -> None:
    assert ranks(["1", "1.0", "2"]) is None
    assert ranks(["2", "1", "3", "03"]) is None
    assert natural_order(["1.0", "2", "1"]) == ("1", "1.0", "2")
