"""A replay that was interrupted anywhere can be run again: nothing is replayed twice, nothing is left out."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dead_letter_topics import DeadLetterTopics, WholeTopic, letter, step
from deadlines import stretched
from real_kafka.broker import KafkaBroker, OwnBroker
from running import FLAGPOST, environment

pytestmark = [pytest.mark.kafka]

LETTERS = 3_000
PARTITIONS = 3
DEADLINE_SECONDS = 60.0


@contextmanager
def replaying(topics: DeadLetterTopics, *, written: int) -> Iterator[subprocess.Popen[str]]:
    """Run `replay` as a process; yields it once it has written `written` records, and kills it at the end."""
    with WholeTopic(topics.kafka, topics.events) as events:
        before = sum(events.ends().values())
        process = subprocess.Popen(
            [str(FLAGPOST), "dead-letters", "replay", "--json"],
            env=environment(topics.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
            while sum(events.ends().values()) - before < written:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "the replay wrote too little"
            yield process
        finally:
            process.kill()
            process.communicate()


def put_back(topics: DeadLetterTopics) -> set[str]:
    """The sources of the replayed dead letters; checks that the events topic and the markers agree."""
    events = [put.header("flagpost-replay-of") for put in topics.replayed()]
    markers = [marker.header("flagpost-replayed") for marker in topics.markers()]
    assert len(events) == len(set(events)), "put back twice"
    assert len(markers) == len(set(markers)), "marked twice"
    assert events.count(None) == markers.count(None) == 0
    sources = topics.sources()
    assert {sources[str(place)] for place in markers} == set(events), "events and markers disagree"
    return {str(event) for event in events}


@pytest.fixture
def topics(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> DeadLetterTopics:
    found = DeadLetterTopics(kafka, fresh_name("interrupted"), PARTITIONS)
    bury(found)
    return found


def bury(topics: DeadLetterTopics) -> None:
    topics.bury(
        *(letter(step(f"e{n}", f"v{n % 100}"), source=f"{topics.events}/0/{n}") for n in range(LETTERS))
    )


def test_after_kill_9_at_several_moments_each_is_put_back_exactly_once(topics: DeadLetterTopics) -> None:
    done: set[str] = set()
    for written in (1, 350, 1_000):
        with replaying(topics, written=written) as process:
            process.send_signal(signal.SIGKILL)
            process.wait(stretched(DEADLINE_SECONDS))
        now = put_back(topics)
        assert done <= now
        done = now
    assert 0 < len(done) < LETTERS
    rest = topics.replay()
    assert rest["matched"] == rest["replayed"] == LETTERS - len(done)
    assert len(put_back(topics)) == LETTERS
    assert topics.replay()["matched"] == 0


def test_ctrl_c_ends_it_with_a_line_that_says_how_far_it_came(topics: DeadLetterTopics) -> None:
    with replaying(topics, written=350) as process:
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=stretched(DEADLINE_SECONDS))
    assert (process.returncode, stdout) == (1, "")
    done = put_back(topics)
    assert 0 < len(done) < LETTERS
    assert stderr == (
        f"Error: interrupted. {len(done):,} of {LETTERS:,} dead letters were replayed and are marked; "
        "run the command again for the others\n"
    )
    assert topics.replay()["replayed"] == LETTERS - len(done)
    assert len(put_back(topics)) == LETTERS


def test_of_two_replays_at_once_the_later_continues_and_the_earlier_says_why_it_ends(
    topics: DeadLetterTopics,
) -> None:
    with replaying(topics, written=1) as earlier:
        later = topics.replay()
        stdout, stderr = earlier.communicate(timeout=stretched(DEADLINE_SECONDS))
    assert len(put_back(topics)) == LETTERS
    assert (earlier.returncode, stdout) == (1, "")
    assert "another replay of the group" in stderr
    assert f"{LETTERS - later['replayed']:,} of {LETTERS:,} dead letters were replayed" in stderr


def test_after_a_crash_of_the_broker_another_run_replays_the_rest(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    topics = DeadLetterTopics(kafka_broker, fresh_name("interrupted"), PARTITIONS)
    bury(topics)
    with replaying(topics, written=350) as process:
        kafka_broker.kill()
        kafka_broker.restart()
        process.communicate(timeout=stretched(DEADLINE_SECONDS))
    put_back(topics)
    topics.replay()
    assert len(put_back(topics)) == LETTERS


def test_kafka_that_stays_away_ends_it_with_exit_code_1_and_the_next_run_finishes(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    topics = DeadLetterTopics(kafka_broker, fresh_name("interrupted"), PARTITIONS)
    bury(topics)
    with replaying(topics, written=350) as process:
        kafka_broker.kill()
        stdout, stderr = process.communicate(timeout=stretched(2 * DEADLINE_SECONDS))
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("Error: Kafka: ")
    assert "run the command again for the others" in stderr
    kafka_broker.restart()
    put_back(topics)
    topics.replay()
    assert len(put_back(topics)) == LETTERS
