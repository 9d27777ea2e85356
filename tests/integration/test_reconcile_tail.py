"""`flagpost tail` as a process, on a real Kafka."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from deadlines import stretched
from flagpost_consumer.commands.sources import reading_by_time
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Gap, decode_settlements
from ledger_writing import History, entry
from scenes import Scene

DEADLINE_SECONDS = 30.0


@pytest.fixture
def history(scene: Scene) -> History:
    return History(scene)


class Tail:
    """A running `flagpost tail`, and what it has written."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._out.read_bytes().splitlines()]

    @property
    def said(self) -> str:
        return self._err.read_text()

    def until(self, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
        while not reached():
            assert time.monotonic() < deadline, (self._out.read_text(), self.said)
            assert self.process.poll() is None, self.said
            _pause(self.process)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(stretched(DEADLINE_SECONDS))


def _pause(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment for the process, or until it has ended."""
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return


@contextmanager
def tailing(history: History, directory: Path, *arguments: str) -> Iterator[Tail]:
    out, err = directory / "out", directory / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            history.command("tail", *arguments),
            env=history.environment(),
            stdout=stdout,
            stderr=stderr,
        )
        try:
            yield Tail(process, out, err)
        finally:
            process.kill()
            process.wait()


def keep_writing(history: History, tail: Tail, visitor: str) -> None:
    """Write settlements until the tail shows one, because it is not known when the tail begins to read."""

    def seen() -> bool:
        history.write(1, [entry(5, visitor_id=visitor)])
        return bool(tail.lines())

    tail.until(seen)


def test_it_begins_now_and_ends_with_an_interrupt(history: History, tmp_path: Path) -> None:
    history.write(1, [entry(1, visitor_id="before")])
    with tailing(history, tmp_path, "--json") as tail:
        keep_writing(history, tail, "now")
        assert {line["visitor_id"] for line in tail.lines()} == {"now"}
        assert (tail.lines()[0]["partition"], tail.lines()[0]["offset"]) == (1, 5)
        assert tail.interrupt() == 0
        assert tail.said == ""


def test_the_past_is_shown_on_request_and_filters_apply(history: History, tmp_path: Path) -> None:
    history.write(0, [entry(1, visitor_id="a", flag_key="f"), entry(2, visitor_id="a", flag_key="g")])
    history.write(2, [entry(3, "track", "dropped", visitor_id="a", flag_key="f"), entry(4, visitor_id="b")])
    history.write(2, [entry(9, visitor_id="a", flag_key="f")], group="another")
    history.write(3, [entry(5, visitor_id="a", flag_key="f")])
    arguments = ("--json", "--since", "1h", "--visitor", "a", "--flag", "f", "--outcome", "delivered")
    with tailing(history, tmp_path, *arguments) as tail:
        tail.until(lambda: len(tail.lines()) >= 2)
        history.write(3, [entry(6, visitor_id="a", flag_key="f")])
        tail.until(lambda: len(tail.lines()) >= 3)
        assert sorted((line["partition"], line["offset"]) for line in tail.lines()) == [
            (0, 1),
            (3, 5),
            (3, 6),
        ]


def told(history: History, *arguments: str) -> list[int]:
    """Run a `tail` that does not follow; returns the offsets that it shows, in their order."""
    done = history.run("tail", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [orjson.loads(line)["offset"] for line in done.stdout.splitlines()]


def at(minutes_ago: float) -> int:
    return int((time.time() - minutes_ago * 60) * 1000)


def test_settlements_are_shown_by_time_across_partitions(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset, minutes_ago in enumerate((50, 40, 30, 20, 10)):
        history.write(offset % 3, [entry(offset)], timestamp_ms=at(minutes_ago))
    assert told(history, "--no-follow") == [0, 1, 2, 3, 4]
    assert told(history, "--no-follow", "--since", "35m") == [2, 3, 4]
    assert told(history, "--until", "15m") == [0, 1, 2, 3]
    assert told(history, "--since", "45m", "--until", "25m") == [1, 2]
    upside_down = history.run("tail", "--json", "--since", "25m", "--until", "45m")
    assert upside_down.returncode == 2
    assert "--since is not before --until" in upside_down.stderr
    kafka = KafkaSettings(bootstrap_servers=history.scene.kafka.bootstrap_servers)
    monkeypatch.setattr(reading_by_time, "MAX_HELD", 1)
    with TopicReader(kafka) as reader:
        spans = reader.spans(history.ledger)
        read = list(reading_by_time.read_by_time(reader, history.ledger, spans, 0, at(0)))
    decoded = [decode_settlements(message.value()).entries[0].offset for message in read]
    assert decoded == [0, 1, 2, 3, 4], "the same where hardly anything is held at a time"


def test_reasons_and_kinds_are_filters_too(history: History) -> None:
    history.write(
        0, [entry(0), entry(1, "track", "dropped", reason="no_consent"), entry(2, "visitor_metadata")]
    )
    assert told(history, "--no-follow", "--reason", "no_consent") == [1]
    assert told(history, "--no-follow", "--kind", "visitor_metadata") == [2]
    assert told(history, "--no-follow", "--kind", "track", "--outcome", "delivered") == [0]


def test_damaged_records_and_gaps_are_reported_on_stderr(history: History, tmp_path: Path) -> None:
    damaged = history.put(history.ledger, 0, b"\xc3\x01broken")
    later = history.put(history.ledger, 0, b"\xc3\x01" + bytes(8))
    history.write(0, [entry(1)], [Gap(from_offset=10, to_offset=15)])
    with tailing(history, tmp_path, "--json", "--since", "1h") as tail:
        tail.until(tail.lines)
        assert len(tail.lines()) == 1
        said = tail.said.splitlines()
        assert said[0].startswith(f"ledger record 0/{damaged} is skipped: ")
        assert said[1].startswith(f"ledger record 0/{later} is skipped: ")
        assert "upgrade Flagpost" in said[1]
        assert said[2:] == ["partition 0: offsets 10 to 14 were lost before they were read"]


def test_a_closed_pipe_ends_it_silently(history: History, tmp_path: Path) -> None:
    history.write(0, [entry(offset) for offset in range(50)])
    err = tmp_path / "err"
    with err.open("wb") as stderr:
        tail = subprocess.Popen(
            history.command("tail", "--since", "1h"),
            env=history.environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        assert tail.stdout is not None
        first = tail.stdout.readline()
        tail.stdout.close()
        history.write(0, [entry(99)])
        code = tail.wait(stretched(DEADLINE_SECONDS))
    assert b" delivered " in first
    assert (code, err.read_text()) == (0, "")


def test_no_colours_go_into_a_file(history: History, tmp_path: Path) -> None:
    history.write(0, [entry(7, visitor_id="v")])
    with tailing(history, tmp_path, "--since", "1h") as tail:
        tail.until((tmp_path / "out").read_bytes)
    assert b"\x1b" not in (tmp_path / "out").read_bytes()


def test_a_topic_that_does_not_exist_is_reported_in_one_line(history: History) -> None:
    done = history.run("tail", kafka__ledger_topic="nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "flagpost topics create" in done.stderr
