"""What the application's own code does when the Publisher, or the system, calls it: on_error, signal handlers,
callables. Nothing of it ends the Publisher's thread, or holds the application up.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

from applications import last_line, run
from deadlines import await_until, stretched
from flagpost_publisher import Publisher

NOBODY = "127.0.0.1:1"
SECONDS = 30.0
NO_VALUE = {"x": object()}
"""Properties with which an event is refused, so that on_error is called."""
INFO: dict[str, Any] = {
    "flag_key": "f",
    "enabled": True,
    "variation_key": "a",
    "rule_key": "r",
    "decision_event_dispatched": True,
}


def eventually(reached: Callable[[], object]) -> None:
    await_until(reached, SECONDS)


def applied(program: str) -> Any:
    """What an application prints, JSON; it ends after a while even if it hangs."""
    before = f"""
        import faulthandler, json, os, signal, threading, time
        faulthandler.dump_traceback_later({stretched(SECONDS)}, exit=True)
        from flagpost_publisher import Publisher
    """
    return last_line(run(dedent(before) + dedent(program)))


def test_an_on_error_that_exits_does_not_end_the_thread() -> None:
    """Before, nothing was delivered or reported from then on."""
    told: list[Exception] = []

    def on_error(error: Exception) -> None:
        told.append(error)
        sys.exit("stop")

    publisher = Publisher(bootstrap_servers=NOBODY, on_error=on_error)
    publisher.track("v", "page", NO_VALUE)
    eventually(lambda: told)
    publisher.publish(object())  # type: ignore[arg-type]  # refused for another reason
    eventually(lambda: len(told) > 1)
    publisher.close(0)


def test_on_error_may_close_the_publisher() -> None:
    """Before, close() raised RuntimeError: a thread cannot join itself."""
    told: list[object] = []

    def on_error(_: Exception) -> None:
        try:
            told.append(publisher.close())
        except BaseException as error:  # noqa: BLE001 - whatever it is
            told.append(error)

    publisher = Publisher(bootstrap_servers=NOBODY, on_error=on_error)
    publisher.track("v", "page", NO_VALUE)
    eventually(lambda: told)
    assert told[0] == 0
    thread = publisher._here().output._thread
    assert thread is not None
    thread.join(stretched(SECONDS))
    assert not thread.is_alive()


def test_the_last_errors_are_reported_by_the_publishers_thread_before_close_returns() -> None:
    """Before, close() called on_error itself."""
    threads: list[threading.Thread] = []
    publisher = Publisher(
        bootstrap_servers=NOBODY, on_error=lambda _: threads.append(threading.current_thread())
    )
    publisher.track("v", "page")
    own = publisher._here().output._thread
    assert publisher.close(0) == 1
    assert set(threads) == {own}


def test_close_ends_although_on_error_waits_for_its_caller() -> None:
    """Before, close() called on_error while its caller held the lock: for ever."""
    told = applied(f"""
        lock, told = threading.Lock(), []
        def on_error(error):
            with lock:
                told.append(error.kind)
        publisher = Publisher(bootstrap_servers="{NOBODY}", on_error=on_error)
        publisher.track("v", "page")
        with lock:
            left = publisher.close(0)
        while "delivery" not in told:
            time.sleep(0.01)
        print(json.dumps(left))
    """)
    assert told == 1


def test_a_signal_handler_may_close_while_close_waits_for_the_last_report() -> None:
    """Before, it waited for ever for a lock that the thread that it interrupted held."""
    told = applied(f"""
        publisher = Publisher(bootstrap_servers="{NOBODY}", impressions_topic="impressions")
        publisher.track("v", "page")
        for _ in range(2):  # the second is a duplicate, which close() reports
            publisher._on_decision("v", {{}}, {INFO}, None)
        signal.signal(signal.SIGTERM, lambda *_: publisher.close(0.5))
        reporting = publisher._here().reporting
        look_after = reporting._look_after
        def interrupted(seconds):
            if threading.current_thread() is threading.main_thread():
                reporting._look_after = look_after
                os.kill(os.getpid(), signal.SIGTERM)
            look_after(seconds)
        reporting._look_after = interrupted
        publisher.close(0.5)
        print(json.dumps(reporting._look_after == look_after))
    """)
    assert told is True


def test_a_signal_handler_that_publishes_first_starts_no_second_thread() -> None:
    """Before, both threads served the producer, and one of them nobody waited for."""
    threads = applied(f"""
        import flagpost_publisher.kafka_output as output
        publisher = Publisher(bootstrap_servers="{NOBODY}")
        signal.signal(signal.SIGUSR1, lambda *_: publisher.track("v", "page"))
        class Thread(threading.Thread):
            def start(self):
                super().start()
                if not interrupted:
                    interrupted.append(True)
                    os.kill(os.getpid(), signal.SIGUSR1)
        interrupted, output.Thread = [], Thread
        publisher.track("v", "page")
        assert publisher.stats().accepted == 2
        print(json.dumps(sum(each.name == "flagpost-publisher" for each in threading.enumerate())))
    """)
    assert threads == 1


def test_an_event_for_which_no_thread_starts_is_refused_and_the_next_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = Publisher(bootstrap_servers=NOBODY)

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert not publisher.track("v", "page")
    assert publisher.track("v", "page")
    assert publisher.close(0) == 1


def test_flush_and_close_wait_for_nothing_if_nothing_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, they waited for their whole time while the schema registry did not answer."""
    publisher = Publisher(bootstrap_servers=NOBODY, schema_registry_url="http://127.0.0.1:1")
    publisher.track("v", "page", NO_VALUE)
    output = publisher._here().output
    assert output._thread is not None
    waits: list[float] = []
    monkeypatch.setattr(output._open, "wait", waits.append)
    assert (publisher.flush(), publisher.close()) == (0, 0)
    assert waits == []


def test_a_decision_that_was_interrupted_is_no_duplicate_later() -> None:
    """Before, it was remembered as published: gevent.Timeout, KeyboardInterrupt and others are no Exceptions."""

    class Interruption(BaseException):
        pass

    asked: list[str] = []

    def consent(user_id: str, _: object) -> dict[str, bool]:
        asked.append(user_id)
        if len(asked) == 1:
            raise Interruption
        return {}

    publisher = Publisher(bootstrap_servers=NOBODY, consent=consent)
    with pytest.raises(Interruption):
        publisher._on_decision("v", {}, INFO, None)
    publisher._on_decision("v", {}, INFO, None)
    stats = publisher.stats()
    assert (stats.accepted, stats.duplicates) == (1, 0)
    publisher.close(0)


def test_what_one_publisher_raises_at_the_end_of_the_process_concerns_no_other() -> None:
    """Before, those after it were not flushed."""
    ended = applied(f"""
        from flagpost_publisher import processes
        ended = []
        class One(Publisher):
            def end(self, seconds):
                ended.append(seconds)
                raise LookupError
        publishers = [One(bootstrap_servers="{NOBODY}") for _ in range(3)]
        processes._end()
        print(json.dumps(len(ended)))
    """)
    assert ended == 3
