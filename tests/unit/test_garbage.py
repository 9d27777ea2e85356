"""When the service runs a garbage collection of all objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from flagpost_consumer.service.garbage import (
    HELD_BACK_STEPS,
    QUIET_FULLNESS,
    WORTHWHILE_STEPS,
    calm_collection,
    collect_if_quiet,
)


class Knot:
    """An object in a reference cycle, which only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def calm() -> Iterator[None]:
    thresholds = gc.get_threshold()
    calm_collection()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.fixture
def old_garbage() -> list[int]:
    """The ids of garbage that a full collection frees, and a collection of the younger generations does not."""
    knots = [Knot() for _ in range(3)]
    ids = [id(knot) for knot in knots]
    gc.collect(0)
    gc.collect(1)
    del knots
    gc.collect(1)
    assert left(ids)
    return ids


def left(ids: list[int]) -> bool:
    return any(isinstance(each, Knot) and id(each) in ids for each in gc.get_objects(generation=2))


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    ("steps", "fullness", "collects"),
    [
        (WORTHWHILE_STEPS, 0.0, True),
        (WORTHWHILE_STEPS, QUIET_FULLNESS, True),
        (WORTHWHILE_STEPS, QUIET_FULLNESS + 0.01, False),
        (WORTHWHILE_STEPS - 1, 0.0, False),
        (HELD_BACK_STEPS, 1.0, False),
    ],
)
def test_all_objects_are_collected_while_there_are_few(
    old_garbage: list[int], monkeypatch: pytest.MonkeyPatch, steps: int, fullness: float, collects: bool
) -> None:
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, steps))
    collect_if_quiet(fullness)
    assert left(old_garbage) is not collects


@pytest.mark.usefixtures("calm")
def test_python_itself_runs_a_full_collection_only_after_very_many_steps() -> None:
    assert gc.get_threshold()[2] == HELD_BACK_STEPS
