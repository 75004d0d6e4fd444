"""Sizes as Kubernetes writes them, held against an implementation of their own."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jhub_safety import quantity

#: Written out: nothing is shared with the code that is tested.
TABLE = {
    "": Decimal(1),
    "n": Decimal("0.000000001"),
    "u": Decimal("0.000001"),
    "m": Decimal("0.001"),
    "k": Decimal(1000),
    "M": Decimal(1000000),
    "G": Decimal(1000000000),
    "T": Decimal(1000000000000),
    "P": Decimal(1000000000000000),
    "E": Decimal(1000000000000000000),
    "Ki": Decimal(1024),
    "Mi": Decimal(1048576),
    "Gi": Decimal(1073741824),
    "Ti": Decimal(1099511627776),
    "Pi": Decimal(1125899906842624),
    "Ei": Decimal(1152921504606846976),
}
EXACT = Context(prec=3000, Emax=99999, Emin=-99999)

signs = st.sampled_from(["", "+", "-"])
digits = st.text("0123456789", min_size=1, max_size=25)
numbers = st.one_of(
    digits,
    digits.map(lambda whole: f"{whole}."),
    digits.map(lambda part: f".{part}"),
    st.builds("{}.{}".format, digits, digits),
)
exponents = st.builds("{}{}{}".format, st.sampled_from("eE"), signs, st.integers(0, 999).map(str))


def independent(number: str, suffix: str) -> Decimal:
    if suffix in TABLE:
        return EXACT.multiply(EXACT.create_decimal(number), TABLE[suffix])
    return EXACT.create_decimal(number + suffix)


@given(signs, numbers, st.one_of(st.sampled_from(sorted(TABLE)), exponents))
@example("", "1", "E")
@example("", "1", "E3")
@example("", "1", "Ei")
@example("-", "0.1", "Ei")
@example("+", ".5", "Gi")
def test_every_form_is_read_exactly(sign, number, suffix):
    found = quantity.parse(sign + number + suffix)
    assert found == Fraction(independent(sign + number, suffix))


@given(st.text(max_size=12) | st.text("0123456789.+-eEinumkKMGTP ", max_size=8))
def test_any_other_text_is_an_error_of_one_kind(text):
    try:
        found = quantity.parse(text)
    except ValueError:
        return
    head = text.rstrip("inumkKMGTPE")
    assert found == Fraction(independent(head, text[len(head) :]))


@pytest.mark.parametrize(
    "same",
    [
        ("1Gi", "1024Mi", "1048576Ki", "1073741824", "1073741824000m", "1.0Gi", "+1Gi"),
        ("1G", "1000M", "1e9", "1E9", "1e+9", "0.001T", "1000000000", "10e8", "1.0G"),
        ("0.5Gi", "512Mi", ".5Gi", "536870912"),
        ("1k", "1000", "1e3", "1.e3", "1000000m", "1000000000u"),
        ("1Ei", "1024Pi", "1152921504606846976"),
    ],
    ids=lambda same: same[0],
)
def test_one_size_written_differently_is_equal(same):
    assert len({quantity.storage(text) for text in same}) == 1


def test_binary_and_decimal_are_not_the_same():
    sizes = [quantity.storage(text) for text in ("1G", "1Gi", "1T", "1Ti")]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1 Gi", " 1Gi", "1Gi\n", "Gi", ".", "-", "1gi", "1GB", "1GiB", "1g", "1,5Gi"),
        *("\u0661Gi", "1e", "1e3Gi", "1Gie3", "0x10", "1_000", "inf", "nan", "1Zi", "--1", "1..5"),
        "1e1000",
    ],
    ids=repr,
)
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="no quantity"):
        quantity.parse(text)


def test_a_capital_k_is_a_usual_slip():
    with pytest.raises(ValueError, match=r"'10K' .* \(did you mean Ki\?\)"):
        quantity.parse("10K")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1500m", "not a whole number of bytes"),
        ("0.1Ki", "not a whole number of bytes"),
        ("0.1Ei", "not a whole number of bytes"),
        ("1n", "not a whole number of bytes"),
        ("1e-3", "not a whole number of bytes"),
        ("0", "more than 0"),
        ("0Gi", "more than 0"),
        ("-0", "more than 0"),
        ("-1Gi", "more than 0"),
        (str(2**63), "more than Kubernetes can count"),
        ("8Ei", "more than Kubernetes can count"),
        ("10E", "more than Kubernetes can count"),
        ("1e999", "more than Kubernetes can count"),
        ("ten", "no quantity"),
    ],
)
def test_what_is_no_size_of_a_volume(text, why):
    with pytest.raises(ValueError, match=why) as caught:
        quantity.storage(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["1", "1000m", str(2**63 - 1), "7.5Ei", "1e18"])
def test_the_smallest_and_the_largest(text):
    assert 0 < quantity.storage(text) < 2**63
