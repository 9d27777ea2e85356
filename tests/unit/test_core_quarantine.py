"""A defect is reported with its type and its place in the code, and with nothing from the record."""

from __future__ import annotations

import json
import re
from types import FunctionType

from flagpost_consumer.core.planning.quarantine import Suspects, defect_detail, fingerprint
from flagpost_schemas import Decoder


def caught(action: object) -> BaseException:
    assert callable(action)
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("it does not raise")


def test_the_place_is_the_innermost_line_of_ours() -> None:
    """If a library raises, the line to fix is the one of ours that called it."""

    def in_the_decoder() -> None:
        Decoder().decode(7)  # type: ignore[arg-type]

    assert re.fullmatch(
        r"AttributeError at flagpost_schemas\.decode:\d+", fingerprint(caught(in_the_decoder))
    )


def test_without_a_line_of_ours_the_place_is_where_it_was_raised() -> None:
    error = caught(lambda: json.loads("{"))
    assert re.fullmatch(r"json\.decoder\.JSONDecodeError at json\.decoder:\d+", fingerprint(error))


def test_an_exception_that_was_never_raised_has_a_fingerprint_too() -> None:
    assert fingerprint(KeyError("x")) == "KeyError at an unknown place"


def test_the_detail_says_what_to_do_and_holds_nothing_of_the_record() -> None:
    def with_an_id() -> None:
        raise ValueError("visitor-4711\nlives here")

    detail = defect_detail(caught(with_an_id))
    assert "4711" not in detail
    assert detail.startswith("a defect of Flagpost's: ValueError at ")
    assert "replay the dead letter" in detail
    assert detail.isprintable()
    assert len(detail) <= 300


def test_names_are_cut_so_that_the_detail_keeps_its_advice() -> None:
    error = type("E" * 5_000, (Exception,), {"__module__": "m" * 5_000})()
    detail = defect_detail(error)
    assert len(detail) <= 300
    assert detail.endswith("replay the dead letter")


def test_code_that_belongs_to_no_module_has_a_place_too() -> None:
    nameless = FunctionType(compile("raise ValueError", "made", "exec"), {})
    assert fingerprint(caught(nameless)) == "ValueError at ?:1"


def test_no_record_is_to_blame_before_any_is_handled() -> None:
    assert not Suspects().blame(ValueError("of the start"))
