"""One value out of several structured answers, field by field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultra.messages.canonical_json import canonical_json
from ultra.messages.output_types import OutputType
from ultra.scoring.field_merge import MergedFields, merge_fields, merge_in_pieces, with_choices

SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-10, 10, allow_nan=False).map(lambda number: round(number, 2))
    | st.sampled_from(["red", "Red", "green", "a longer text", "a longer  text", "another text"])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.lists(
            st.fixed_dictionaries({"id": st.integers(0, 3)}, optional={"a": inner}),
            max_size=3,
            unique_by=lambda item: item["id"],
        )
    ),
    max_leaves=8,
)
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, 3.0])
ANSWERS = st.lists(st.tuples(VALUES, WEIGHTS), min_size=1, max_size=5)


class Item(msgspec.Struct):
    sku: str
    price: float
    note: str | None = None


class Invoice(msgspec.Struct):
    paid: bool
    total: float
    count: int
    items: list[Item]


INVOICES = st.builds(
    Invoice,
    paid=st.booleans(),
    total=st.floats(0, 100),
    count=st.integers(0, 3),
    items=st.lists(
        st.builds(
            Item, sku=st.sampled_from("ABC"), price=st.floats(0, 9), note=st.none() | st.text(max_size=3)
        ),
        max_size=3,
    ),
).map(msgspec.to_builtins)


def equal(*values: Any, **options: Any) -> MergedFields:
    """Merge values of models of equal weight."""
    return merge_fields([(value, 1.0) for value in values], **options)


# --- what must hold for any answers ----------------------------------------------------------------------


@given(ANSWERS, st.randoms(use_true_random=False))
def test_the_merged_value_does_not_depend_on_the_order_of_models(
    answers: list[tuple[Any, float]], random: Any
) -> None:
    merged = merge_fields(answers)
    shuffled = list(answers)
    random.shuffle(shuffled)
    again = merge_fields(shuffled)
    assert canonical_json(again.value) == canonical_json(merged.value)
    assert again.shares == merged.shares


@pytest.mark.parametrize(("one", "other"), [(5, 5.0), ([1, 0], [1.0, -0.0]), ({"a": 2}, {"a": 2.0})])
def test_what_is_equal_and_written_in_two_ways_is_written_in_one_whatever_the_order(
    one: Any, other: Any
) -> None:
    assert repr(equal(one, other).value) == repr(equal(other, one).value)


@given(VALUES, st.lists(WEIGHTS, min_size=1, max_size=4))
def test_what_all_models_say_is_not_changed(value: Any, weights: list[float]) -> None:
    merged = merge_fields([(value, weight) for weight in weights])
    assert merged.value == value
    assert all(share == pytest.approx(1.0) for share in merged.shares.values())


@given(st.lists(st.tuples(st.sampled_from("xyz"), VALUES), min_size=2, max_size=4), VALUES)
def test_a_field_on_which_all_agree_keeps_its_value_beside_fields_on_which_none_do(
    others: list[tuple[str, Any]], same: Any
) -> None:
    answers = [({"same": same, name: value}, 1.0) for name, value in others]
    assert merge_fields(answers).value["same"] == same


@given(ANSWERS)
def test_merging_the_merged_value_again_changes_nothing(answers: list[tuple[Any, float]]) -> None:
    merged = merge_fields(answers).value
    assert merge_fields([(merged, 1.0), (merged, 2.0)]).value == merged


@given(ANSWERS)
def test_shares_are_shares_and_every_field_has_its_value_among_its_choices(
    answers: list[tuple[Any, float]],
) -> None:
    merged = merge_fields(answers)
    assert merged.fields
    assert all(0 <= share <= 1 for share in merged.shares.values())
    assert with_choices(merged, {}) == merged.value
    for path, field in merged.fields.items():
        for choice in field.choices:
            chosen = with_choices(merged, {path: choice})
            for step in field.steps:
                chosen = chosen[step]
            assert canonical_json(chosen) == canonical_json(choice)


@settings(max_examples=60)
@given(st.lists(st.tuples(INVOICES, WEIGHTS), min_size=1, max_size=5))
def test_merged_values_of_a_type_satisfy_its_schema(answers: list[tuple[Any, float]]) -> None:
    output = OutputType.of(Invoice)
    assert output is not None
    merged = merge_fields(answers, output.schema.schema)
    assert isinstance(output.decoded(merged.value), Invoice)


@given(st.lists(st.tuples(st.integers(-5, 5), WEIGHTS), min_size=1, max_size=6))
def test_a_value_that_has_more_than_half_of_the_weight_wins(answers: list[tuple[int, float]]) -> None:
    total = sum(weight for _, weight in answers)
    for value, _ in answers:
        behind = sum(weight for other, weight in answers if other == value)
        if behind > total / 2:
            assert merge_fields(answers).value == value


# --- kinds of fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        ([(True, 1.0), (False, 1.5), (True, 1.0)], True),
        ([("EUR", 1.0), ("USD", 3.0), ("EUR", 1.0)], "USD"),
        ([(None, 1.0), (None, 1.0), ("x", 1.0)], None),
        ([(3, 1.0), (4, 2.0)], 4),
        ([(3, 0.0), (4, 0.0), (4, 0.0)], 4),
        ([(100.0, 1.0), (100.4, 1.0), (250.0, 1.5)], 100.0),
        ([(100.4, 2.0), (100.0, 1.0), (250.0, 2.5)], 100.4),
        ([(-100.0, 1.0), (-99.5, 1.0), (0.0, 1.5)], -100.0),
        ([(2024, 1.0), (2025, 1.0), (2025, 1.0), (2026, 1.0)], 2025),
        ([("ACME Ltd.", 1.0), ("acme  ltd.", 1.0), ("Umbrella", 1.0)], "ACME Ltd."),
        ([("the red house", 1.0), ("the red big house", 1.0), ("a blue boat", 1.0)], "the red house"),
    ],
)
def test_a_field_is_decided_by_its_kind(answers: list[tuple[Any, float]], value: Any) -> None:
    assert merge_fields([({"f": given}, weight) for given, weight in answers]).value == {"f": value}


def test_numbers_that_are_nearly_the_same_count_as_one_only_within_the_tolerance() -> None:
    values = [{"n": 100.5}, {"n": 101.0}, {"n": 7.5}]
    assert equal(*values).shares == {"$.n": pytest.approx(2 / 3)}
    assert equal(*values, tolerance=0.0).shares == {"$.n": pytest.approx(1 / 3)}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("pair", [(99.0, 100.0), (123456789.12345678, 123456789.12345679), (0.99, 1.0)])
def test_the_tolerance_is_that_of_the_larger_number_whatever_its_sign(
    pair: tuple[float, float], sign: float
) -> None:
    values = [{"n": sign * number} for number in (*pair, 5.5)]
    assert equal(*values).shares == {"$.n": pytest.approx(2 / 3)}


@given(
    st.lists(st.floats(-1e6, 1e6).map(lambda number: number + 0.5), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.01, 0.3]),
)
def test_numbers_of_the_other_sign_are_clustered_in_the_same_way(
    numbers: list[float], tolerance: float
) -> None:
    merged = equal(*({"n": number} for number in numbers), tolerance=tolerance)
    turned = equal(*({"n": -number} for number in numbers), tolerance=tolerance)
    assert merged.shares == turned.shares


def test_half_of_the_weight_is_no_majority_of_a_text_though_its_sum_is_rounded_up() -> None:
    # 0.2 + 0.1 is 0.30000000000000004; of equals, the heavier model's value stands.
    answers = [({"t": "red"}, 0.3), ({"t": "blue"}, 0.2), ({"t": "blue"}, 0.1)]
    assert merge_fields(answers).value == {"t": "red"}


@pytest.mark.parametrize(
    "values",
    [
        ("2024-05-01", "2024-05-02", "2024-05-03"),
        ("5 May 2024", "6 May 2024", "7 May 2024"),
        ("INV-1001", "INV-1002", "INV-1003"),
        ("ann@example.com", "bob@example.com", "eve@example.com"),
        ("+49 30 123 456", "+49 30 123 457", "+49 30 123 458"),
    ],
)
def test_dates_and_names_that_differ_a_little_are_as_sure_as_those_that_differ_much(
    values: tuple[str, ...],
) -> None:
    merged = equal(*({"f": value} for value in values))
    assert merged.shares == {"$.f": pytest.approx(1 / 3)}
    assert merged.value["f"] in values
    twice = merge_fields(
        [({"f": value}, weight) for value, weight in zip(values, (1.0, 1.0, 1.5), strict=True)]
    )
    assert twice.value == {"f": values[2]}


def test_an_accent_is_the_same_however_it_is_encoded() -> None:
    merged = equal({"f": "caf\u00e9"}, {"f": "cafe\u0301"}, {"f": "Rome"})
    assert merged.shares == {"$.f": pytest.approx(2 / 3)}
    aligned = equal({"f": ["caf\u00e9"]}, {"f": ["cafe\u0301"]})
    assert aligned.shares == {"$.f[0]": 1.0}


def test_an_enum_is_voted_on_by_exact_value_and_never_by_likeness() -> None:
    schema = {"properties": {"e": {"enum": ["very good", "very bad", "so good"]}}}
    answers = [({"e": "very bad"}, 1.5), ({"e": "very good"}, 1.0), ({"e": "so good"}, 1.0)]
    assert merge_fields(answers, schema).value == {"e": "very bad"}


def test_an_optional_field_is_there_if_most_weight_has_it() -> None:
    assert equal({"a": 1, "b": 2}, {"a": 1}, {"a": 1}).value == {"a": 1}
    assert equal({"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 2}).value == {"a": 1, "b": 2}
    assert equal({"a": 1, "b": 2}, {"a": 1}, {"a": 1}).shares["$.b"] == pytest.approx(2 / 3)


def test_of_a_tagged_union_only_fields_of_one_variant_are_merged() -> None:
    class Card(msgspec.Struct, tag="card"):
        number: str

    class Cash(msgspec.Struct, tag="cash"):
        coins: int

    output = OutputType.of(Card | Cash)
    assert output is not None
    answers = [
        ({"type": "cash", "coins": 3}, 1.0),
        ({"type": "cash", "coins": 4}, 1.0),
        ({"type": "card", "number": "1"}, 1.5),
    ]
    merged = merge_fields(answers, output.schema.of_value).value
    assert isinstance(output.decoded(merged), Cash)


# --- lists -----------------------------------------------------------------------------------------------


def test_lists_of_objects_are_aligned_by_a_key_that_is_found() -> None:
    merged = equal(
        [{"sku": "A", "n": 1}, {"sku": "B", "n": 2}],
        [{"sku": "B", "n": 2}, {"sku": "A", "n": 5}],
        [{"sku": "A", "n": 1}, {"sku": "b", "n": 2}, {"sku": "C", "n": 3}],
    )
    assert merged.value == [{"sku": "A", "n": 1}, {"sku": "B", "n": 2}]
    assert merged.shares["$[0].n"] == pytest.approx(2 / 3)
    assert merged.shares["$[1].n"] == 1.0


def test_the_key_that_is_told_goes_before_one_that_is_found() -> None:
    lists = [
        [{"a": 1, "b": 1, "c": 7}, {"a": 2, "b": 2, "c": 8}],
        [{"a": 2, "b": 1, "c": 7}, {"a": 1, "b": 2, "c": 8}],
    ]
    assert equal(*lists, key="b").shares["$[0].c"] == 1.0
    assert equal(*lists, key="a").shares["$[0].c"] == 0.5


def test_lists_of_texts_keep_what_most_lists_have_in_the_order_that_most_have() -> None:
    assert equal(["x", "y"], ["x", "y", "z"], ["y"]).value == ["x", "y"]


def test_lists_without_a_key_are_aligned_by_position_where_most_have_one_length() -> None:
    assert equal([1.5, 2.5], [1.5, 9.0], [1.5]).value == [1.5, 2.5]
    assert equal([{"n": 1}, {"n": 1}], [{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 2}]).value == [
        {"n": 1},
        {"n": 2},
    ]


def test_a_list_of_fixed_length_is_aligned_by_position() -> None:
    schema = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}]}
    answers = [(["a", "b"], 1.0), (["b", "a"], 1.5), (["a", "a"], 1.0)]
    assert merge_fields(answers, schema).value == ["a", "a"]


def test_names_that_are_no_identifiers_are_quoted_in_paths() -> None:
    assert list(equal({"it's a name": 1, "b": [{"c": 1}]}).fields) == ["$.b[0].c", "$['it\\'s a name']"]


def test_a_choice_that_no_model_made_and_a_path_that_is_none_are_left() -> None:
    merged = equal({"a": 1}, {"a": 2}, {"a": 2})
    assert with_choices(merged, {"$.a": 3, "$.b": 1, "$": {}}) == {"a": 2}
    assert with_choices(merged, {"$.a": 1.0}) == {"a": 1}


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no answers"):
        merge_fields([])


def test_others_can_run_between_the_fields_of_long_answers() -> None:
    one, other = ([f"text {number} of {name}" for number in range(5_000)] for name in ("one", "another"))
    nested = {"lists": [{"inner": one}], "more": other}

    assert sum(1 for _ in merge_in_pieces([(one, 1.0), (other, 1.0)])) >= 5_000 // 100
    assert sum(1 for _ in merge_in_pieces([(nested, 1.0), (nested, 1.0)])) >= 10_000 // 100
