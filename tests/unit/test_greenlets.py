"""An application whose threads are greenlets is not stopped by what the publisher waits for.

With gevent all of its greenlets run in one thread, so whatever waits in C for seconds stops all of them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from applications import last_line, run
from flagpost_kafka import greenlets

NOBODY = "127.0.0.1:1"
GOES_ON = 10
"""Turns of a greenlet while the publisher waits for seconds; without any of ours there are hundreds."""


def with_gevent(program: str) -> Any:
    """What a program prints, JSON, in which `turns` counts the turns of a greenlet that never waits for long."""
    before = """
        from gevent import monkey
        monkey.patch_all()
        import json
        from gevent import sleep, spawn
        from flagpost_kafka import lasting_producer, reach
        from flagpost_publisher import Publisher

        turns = [0]
        def go_on():
            while True:
                sleep(0.01)
                turns[0] += 1
        spawn(go_on)

        def turns_during(wait):
            before = turns[0]
            wait()
            return turns[0] - before
    """
    return last_line(run(dedent(before) + dedent(program)))


def test_the_comparison_with_a_new_client_lets_an_application_with_gevent_go_on() -> None:
    """Before, the application stood still for 10 seconds at a time while Kafka was down."""
    turns = with_gevent(f"""
        lasting_producer.UNHEARD_SECONDS = 0.1
        answers, asked = reach.answers, []
        reach.answers = lambda *given: asked.append(turns_during(lambda: answers(*given, 1.0)))
        publisher = Publisher(bootstrap_servers="{NOBODY}")
        while not asked:
            publisher.track("v", "page")
            sleep(0.01)
        print(json.dumps(asked[0]))
    """)
    assert turns >= GOES_ON


def test_flush_and_close_let_an_application_with_gevent_go_on() -> None:
    """Before, only the greenlet that called them went on."""
    turns = with_gevent(f"""
        publisher = Publisher(bootstrap_servers="{NOBODY}", impressions_topic="impressions")
        publisher.track("v", "page")
        while not publisher._here().output._direct:
            sleep(0.01)
        flushed = turns_during(lambda: publisher.flush(1))
        decision = {{"flag_key": "f", "enabled": True, "variation_key": "a", "rule_key": "r",
                    "decision_event_dispatched": True}}
        for _ in range(2):  # the second is a duplicate, which close() reports
            publisher._on_decision("v", {{}}, decision, None)
        print(json.dumps([flushed, turns_during(lambda: publisher.close(1))]))
    """)
    assert min(turns) >= GOES_ON


def test_a_client_that_does_not_end_lets_an_application_with_gevent_go_on() -> None:
    ended = with_gevent("""
        from gevent.monkey import get_original
        ended = []
        def end():  # waits in C, like librdkafka
            get_original("time", "sleep")(1)
            ended.append(turns[0])
        reach.let_go(end)
        began = turns[0]
        while not ended:
            sleep(0.01)
        print(json.dumps(ended[0] - began))
    """)
    assert ended >= GOES_ON


def test_the_parents_greenlet_does_nothing_in_a_forked_child() -> None:
    """Before, it went on there with the parent's events, and could have written them once more."""
    foreign, all_turns = with_gevent(f"""
        import os
        from flagpost_publisher.kafka_output import KafkaOutput
        publisher = Publisher(bootstrap_servers="{NOBODY}")
        publisher.track("v", "page")
        while not publisher._here().output._direct:
            sleep(0.01)
        parents, looked, look_after = publisher._here().output, [], KafkaOutput._look_after
        KafkaOutput._look_after = lambda self: looked.append(self) or look_after(self)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            os._exit(0)
        looked.clear()
        publisher.track("v", "page")
        publisher._here().output._needed.set()
        parents._needed.set()
        while len(looked) < 5:
            sleep(0.01)
        print(json.dumps([looked.count(parents), len(looked)]), flush=True)
        os._exit(0)
    """)
    assert foreign == 0
    assert all_turns >= 5


@pytest.fixture(params=["gevent", "eventlet"])
def patched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Python looks as if one of them had replaced its threads; returns how long greenlets have rested."""
    rests: list[float] = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        time.sleep(0.001)

    start: Callable[..., object] = threading._start_new_thread  # type: ignore[attr-defined]
    patcher = SimpleNamespace(
        is_module_patched="threading".__eq__,
        get_original=lambda _module, _name: start,
        is_monkey_patched="thread".__eq__,
        original=lambda _module: SimpleNamespace(start_new_thread=start),
    )
    name = {"gevent": "gevent.monkey", "eventlet": "eventlet.patcher"}[request.param]
    monkeypatch.setitem(sys.modules, request.param, SimpleNamespace(sleep=rest))
    monkeypatch.setitem(sys.modules, name, patcher)
    return rests


def test_what_cannot_be_divided_is_called_in_a_real_thread(patched: list[float]) -> None:
    assert greenlets.call(threading.get_ident) != threading.get_ident()
    assert patched


def test_what_is_raised_in_a_real_thread_is_raised_where_it_is_waited_for(patched: list[float]) -> None:
    def fail() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        greenlets.call(fail)
    assert patched


def test_what_waits_for_at_most_some_seconds_is_asked_without_waiting(patched: list[float]) -> None:
    asked: list[float] = []
    greenlets.wait(asked.append, 0.1)
    greenlets.wait(asked.append, 0.0)
    assert (asked, patched) == ([0.0, 0.0], [greenlets.LOOK_SECONDS])


def test_where_threads_are_threads_everything_is_called_as_it_is() -> None:
    asked: list[float] = []
    greenlets.wait(asked.append, 0.1)
    assert asked == [0.1]
    assert greenlets.call(threading.get_ident) == threading.get_ident()
