"""The one rule by which nested properties are flattened."""

from typing import Any

import pytest

from flagpost_schemas import flatten


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({}, {}),
        (
            {"a": 1, "b": None, "c": 0.5, "d": False, "e": ""},
            {"a": 1, "b": None, "c": 0.5, "d": False, "e": ""},
        ),
        ({"cart": {"total": 5, "ship": {"city": "Bern"}}}, {"cart_total": 5, "cart_ship_city": "Bern"}),
        ({"empty": {}}, {}),
        ({"tags": ["a", 1, 2.5, True, None, "b"]}, {"tags": "a,1,2.5,true,b"}),
        ({"tags": ()}, {"tags": ""}),
        ({"products": [{"id": 1}, {"id": 2}]}, {"products_count": 2}),
        ({"mixed": ["a", {"id": 2}]}, {"mixed_count": 2}),
        ({"rows": [[1], [2], [3]]}, {"rows_count": 3}),
        ({"cart": {"items": [{"id": 1}]}}, {"cart_items_count": 1}),
        ({"a": {"b": 1}, "a_b": 2, "a_b_2": 3}, {"a_b": 1, "a_b_2": 2, "a_b_2_2": 3}),
    ],
)
def test_nested_becomes_flat(nested: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten(nested) == flat
    assert list(flatten(nested)) == list(flat)


def test_values_of_other_types_are_left_for_encoding_to_refuse() -> None:
    value = object()

    assert flatten({"a": {"b": value}}) == {"a_b": value}


def test_a_cycle_is_refused() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle

    with pytest.raises(ValueError, match="deeper than 32"):
        flatten(cycle)


def test_a_name_that_is_taken_gets_the_next_free_number() -> None:
    nested = {"a": {"b_c": 1, "b": {"c": 2}}, "a_b": {"c": 3}, "a_b_c_2": 4, "a_b_c": 5}

    assert flatten(nested) == {"a_b_c": 1, "a_b_c_2": 2, "a_b_c_3": 3, "a_b_c_2_2": 4, "a_b_c_4": 5}


def test_names_do_not_grow_without_bound() -> None:
    assert len(flatten({"x" * 999: {str(number): number for number in range(100)}})) == 100

    with pytest.raises(ValueError, match="too long for so many members"):
        flatten({"x" * 999: {str(number): number for number in range(101)}})
