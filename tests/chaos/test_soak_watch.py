"""Which deliveries the soak's watch reports as late, and which troubles excuse them."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from chaos.soak.events import REGISTRY_PARTITION, Content
from chaos.soak.soak import Episode, named
from chaos.soak.topics import Entry
from chaos.soak.watch import DELIVERY_SECONDS, RETRY_SECONDS, Watch
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.demo.pendo_stand_in import Ending, Endpoint, Fate, Received

T0 = 1000.0
STEP = ("steady-0001", 1)


class Scene:
    """A soak of one event, published at T0, and its watch."""

    def __init__(self, visitor: str = STEP[0], partition: int = 0, kind: Kind = Kind.TRACK) -> None:
        content = Content(visitor, STEP[1] if kind is Kind.TRACK else None, frozenset({kind}))
        life = SimpleNamespace(topic_id="id", entries=[Entry(partition, 7, T0, content, None)])
        self.requests: list[Received] = []
        received = SimpleNamespace(since=lambda number, _: self.requests[number:])
        self.soak: Any = SimpleNamespace(
            began=time.monotonic(),
            episodes=[],
            lives=[life],
            published=life,
            ledger=SimpleNamespace(settled={}),
            pendo=SimpleNamespace(received=received),
        )
        self.watch = Watch(cast("Any", self.soak), Path("nowhere"))

    def trouble(self, name: str, began: float, ended: float | None) -> float:
        """Add a trouble, with its times in seconds after T0; returns its grace in seconds."""
        (trouble,) = named(name)
        self.soak.episodes.append(Episode(trouble, T0 + began, None if ended is None else T0 + ended))
        return trouble.grace_seconds

    def answer(self, status: int, after: float, endpoint: Endpoint = Endpoint.TRACK) -> None:
        """Add a request about the event, `after` seconds after T0, and Pendo's answer."""
        track = {"visitorId": STEP[0], "properties": {"step": STEP[1]}}
        self.requests.append(
            Received(
                number=len(self.requests),
                at_seconds=T0 + after,
                wall_ms=0,
                endpoint=endpoint,
                path="/",
                content_type="",
                body=orjson.dumps(track if endpoint is Endpoint.TRACK else [{"visitorId": STEP[0]}]),
                visitor_id=STEP[0] if endpoint is Endpoint.TRACK else None,
                ending=Ending.ANSWER,
                status=status,
                fate=Fate.RECORDED if status == 200 else Fate.NOT_RECORDED,
            )
        )

    def is_late(self, after: float) -> bool:
        self.watch.take_in()
        self.watch.judge_waiting(T0 + after)
        return bool(self.watch.late) or bool(self.watch.minutes[-1].late)


def test_a_delivery_that_is_not_made_in_time_is_late() -> None:
    scene = Scene()
    assert not scene.is_late(DELIVERY_SECONDS - 1)
    assert scene.is_late(DELIVERY_SECONDS + 1)


def test_a_delivery_that_is_made_or_settled_is_not_late() -> None:
    delivered, settled = Scene(), Scene()
    delivered.answer(200, after=1)
    settled.soak.ledger.settled["id", 0, 7, Kind.TRACK] = ["a dead letter"]
    assert not delivered.is_late(1000)
    assert not settled.is_late(1000)


def test_a_trouble_that_holds_all_is_an_excuse_until_its_grace_is_over() -> None:
    during, afterwards = Scene(), Scene()
    during.trouble("broker freeze", 1, None)
    assert not during.is_late(1000)
    grace = afterwards.trouble("broker freeze", 1, 5)
    assert not afterwards.is_late(5 + grace + DELIVERY_SECONDS - 1)
    assert afterwards.is_late(5 + grace + DELIVERY_SECONDS + 1)


@pytest.mark.parametrize("name", ["hot visitors", "bombs", "dead letters not writable", "Pendo 429 by share"])
def test_a_trouble_that_should_hold_nothing_is_no_excuse(name: str) -> None:
    scene = Scene()
    scene.trouble(name, 1, None)
    assert scene.is_late(DELIVERY_SECONDS + 1)


def test_a_trouble_of_the_registry_excuses_only_the_registrys_partition() -> None:
    its_own, another = Scene(partition=REGISTRY_PARTITION), Scene(partition=0)
    for scene in (its_own, another):
        scene.trouble("registry silent", 1, None)
    assert not its_own.is_late(1000)
    assert another.is_late(DELIVERY_SECONDS + 1)


def test_a_failed_request_excuses_its_visitor_for_one_longest_pause() -> None:
    scene = Scene()
    scene.answer(500, after=2)
    assert not scene.is_late(2 + RETRY_SECONDS + DELIVERY_SECONDS - 1)
    assert scene.is_late(2 + RETRY_SECONDS + DELIVERY_SECONDS + 1)


def test_metadata_is_measured_until_the_ledger_has_it() -> None:
    settled, failed, late = (Scene(kind=Kind.VISITOR_METADATA) for _ in range(3))
    settled.soak.ledger.settled["id", 0, 7, Kind.VISITOR_METADATA] = ["delivered"]
    assert not settled.is_late(1000)
    failed.answer(500, after=2, endpoint=Endpoint.METADATA)
    assert not failed.is_late(2 + RETRY_SECONDS)
    late.answer(500, after=2)
    assert late.is_late(DELIVERY_SECONDS + 1)


@pytest.mark.parametrize("visitor", ["hot-0001", "poison-0001", "odd-0001"])
def test_visitors_that_are_not_healthy_are_not_measured(visitor: str) -> None:
    assert not Scene(visitor).is_late(1000)
