"""Whole application processes: with Kafka absent, at their end, and across forks."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from applications import DEADLINE_SECONDS, last_line, run
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import DecisionEvent, Decoder, TrackEvent
from kafka_reading import read_topic

pytestmark = pytest.mark.thorough

ABSENT = {
    "nothing listens": "127.0.0.1:1",
    "unknown host": "kafka.invalid:9092",
    "no answer": "192.0.2.1:9092",  # an address reserved for documentation: packets to it get lost
}


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({}) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    return f"events-{uuid4()}"


DECIDING = """
import json, sys
from dataclasses import asdict
from flagpost_publisher import Publisher
from optimizely_fixtures import optimizely_client, user_of

def decide(client):
    seen = []
    for number in range(200):
        decisions = user_of(client, f"v{number}", {"plan": "gold"}).decide_all()
        seen.append({key: decision.as_json() for key, decision in sorted(decisions.items())})
    return seen

without = decide(optimizely_client())
publisher = Publisher(bootstrap_servers=sys.argv[1], queue_max_messages=300)
client = optimizely_client()
publisher.attach(client)
with_publisher = decide(client)
print(json.dumps({"same": without == with_publisher, "decisions": len(without), **asdict(publisher.stats())}))
"""


@pytest.mark.parametrize("servers", ABSENT.values(), ids=ABSENT.keys())
def test_an_application_whose_kafka_is_absent_sees_nothing(servers: str) -> None:
    assert last_line(run(DECIDING, servers)) == {
        "same": True,
        "decisions": 200,
        "accepted": 300,
        "queued": 300,
        "refused": 700,
        "duplicates": 0,
        "delivered": 0,
        "failed": 0,
    }


ENDING = """
import sys
from flagpost_publisher import Publisher
publisher = Publisher(bootstrap_servers=sys.argv[1], topic=sys.argv[2])
publisher.track("v", "first")
publisher.flush({seconds})
for number in range(20):
    assert publisher.track("v", str(number))
{end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "del publisher", "publisher.close()"])
def test_what_was_published_last_is_sent_when_the_process_ends(
    kafka: EmbeddedKafka, topic: str, end: str
) -> None:
    finished = run(ENDING.format(end=end, seconds=DEADLINE_SECONDS), kafka.bootstrap_servers, topic)

    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert len(read_topic(kafka.bootstrap_servers, topic)) == 21


def test_an_unhandled_exception_ends_the_process_as_usual() -> None:
    finished = run(ENDING.format(end="raise RuntimeError('mine')", seconds=0), "127.0.0.1:1", "events")

    assert finished.returncode == 1
    assert finished.stderr.splitlines()[0].startswith("Traceback")
    assert finished.stderr.splitlines()[-1] == "RuntimeError: mine"


FORKING = """
import json, os, sys, threading
from dataclasses import asdict
from flagpost_publisher import Publisher
from optimizely_fixtures import optimizely_client, user_of

servers, topic, before = sys.argv[1:]
publisher = Publisher(bootstrap_servers=servers, topic=topic)
client = optimizely_client()
publisher.attach(client)
if before == "publishing":
    user_of(client, "v").decide("banner")
    assert publisher.flush() == 0
if before == "waiting":
    user_of(client, "v").decide("banner")

def stay_busy(stop):
    while not stop.is_set():
        user_of(client, "busy").decide("banner")

stop = threading.Event()
busy = threading.Thread(target=stay_busy, args=(stop,))
if before == "busy":
    busy.start()

children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        user_of(client, "v").decide("banner")
        publisher.track(f"child {number}", "forked")
        left = publisher.flush()
        stats = publisher.stats()
        if (left, stats.accepted, stats.delivered, stats.failed) != (0, 2, 2, 0):
            sys.exit(f"child {number}: {left} left, {stats}")
        sys.exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
if before == "busy":
    busy.join()
publisher.track("parent", "forked")
left = publisher.flush()
stats = publisher.stats()
print(json.dumps({"codes": codes, "left": left, "all": stats.accepted == stats.delivered}))
"""


@pytest.mark.parametrize("before", ["nothing", "publishing", "waiting", "busy"])
def test_parent_and_children_publish_after_a_fork(kafka: EmbeddedKafka, topic: str, before: str) -> None:
    finished = run(FORKING, kafka.bootstrap_servers, topic, before)

    assert last_line(finished) == {"codes": [0, 0, 0], "left": 0, "all": True}
    decoder = Decoder()
    events = [decoder.decode(record.value) for record in read_topic(kafka.bootstrap_servers, topic)]
    tracked = [event.visitor_id for event in events if isinstance(event, TrackEvent)]
    assert sorted(tracked, key=str) == ["child 0", "child 1", "child 2", "parent"]
    decided = [
        event.visitor_id for event in events if isinstance(event, DecisionEvent) and event.visitor_id == "v"
    ]
    assert len(decided) == (4 if before in {"publishing", "waiting"} else 3)


MULTIPROCESSING = """
import multiprocessing, sys
from flagpost_publisher import Publisher

publisher = Publisher(bootstrap_servers=sys.argv[1], topic=sys.argv[2])

def work(number):
    publisher.track(f"worker {number}", "job")
    assert publisher.flush() == 0

publisher.track("parent", "start")
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(work, range(4))
"""


def test_pools_of_workers_publish(kafka: EmbeddedKafka, topic: str) -> None:
    finished = run(MULTIPROCESSING, kafka.bootstrap_servers, topic)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert len(read_topic(kafka.bootstrap_servers, topic)) == 5


SIGNALLED = """
import signal, sys
from flagpost_publisher import Publisher
from optimizely_fixtures import optimizely_client, user_of

publisher = Publisher(bootstrap_servers="127.0.0.1:1", queue_max_messages=100, dedupe_ttl_seconds=0)
client = optimizely_client()
publisher.attach(client)
handled = []

def handler(*_):
    handled.append(user_of(client, "signal").decide("banner"))
    # Once more only now: a timer that repeats would interrupt its own handlers where decide() takes
    # longer than its interval, until Python's stack is full.
    signal.setitimer(signal.ITIMER_REAL, 0.0005)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
while len(handled) < 300:
    user_of(client, "loop").decide("banner")
signal.setitimer(signal.ITIMER_REAL, 0)
print('"done"')
"""


def test_a_signal_handler_may_decide_within_decide() -> None:
    assert last_line(run(SIGNALLED)) == "done"


ABANDONING = """
import sys
from flagpost_publisher import Publisher
publisher = Publisher(bootstrap_servers="127.0.0.1:1")
publisher.track("v", "page")
output = publisher._here().output
assert output._open.wait(10)
raw = output._producer._producer
references = sys.getrefcount(raw)
output.abandon()
print(sys.getrefcount(raw) - references)
"""


def test_a_parents_producer_is_never_destroyed_in_a_child() -> None:
    assert last_line(run(ABANDONING)) == 1
