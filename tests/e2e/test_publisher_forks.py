"""Processes that fork without Python's hooks, as uWSGI does, and children that end without atexit.

Before the fix, each of these cases lost events silently: the child of a fork in C continued with the parent's
producer, whose threads a fork does not copy, and a child of multiprocessing ended without sending what it accepted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from applications import DEADLINE_SECONDS, last_line, run
from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import Decoder, TrackEvent
from kafka_reading import read_topic

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({}) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    return f"events-{uuid4()}"


def visitors(kafka: EmbeddedKafka, topic: str) -> list[str]:
    """The visitors of the topic's track events, sorted; checks that no two events have the same id."""
    decoder = Decoder()
    events = [decoder.decode(record.value or b"") for record in read_topic(kafka.bootstrap_servers, topic)]
    assert len({event.event_id for event in events}) == len(events)
    return sorted(event.visitor_id or "" for event in events if isinstance(event, TrackEvent))


FORKING_IN_C = """
import gc, json, os, sys, threading
from flagpost_publisher import Publisher
from forking_in_c import fork
from optimizely_fixtures import optimizely_client, user_of

servers, topic, before, ending = sys.argv[1:]
publisher = Publisher(bootstrap_servers=servers, topic=topic, dedupe_ttl_seconds=0)
client = optimizely_client()
publisher.attach(client)
publisher.track("parent", "first")
assert publisher.flush({seconds}) == 0

def locks_of(thing):
    lock_types, found, seen, rest = (type(threading.Lock()), type(threading.RLock())), [], set(), [thing.__dict__]
    while rest:
        each = rest.pop()
        if id(each) in seen or isinstance(each, (type, type(os), type(locks_of), threading.Thread)):
            continue
        seen.add(id(each))
        if isinstance(each, lock_types):
            found.append(each)
        elif type(each).__module__.startswith(("flagpost_publisher", "threading", "builtins")):
            rest.extend(gc.get_referents(each))
    return found

def hold(locks, held):
    for lock in locks:
        lock.acquire(timeout=1)
    held.set()
    forked.wait()
    for lock in locks:
        try:
            lock.release()
        except RuntimeError:
            pass  # it was another thread's all the time

held, forked = threading.Event(), threading.Event()
if before == "locked":
    locks = locks_of(publisher)
    assert len(locks) >= 4, locks
    threading.Thread(target=hold, args=(locks, held), daemon=True).start()
    held.wait()

def child(number):
    if number == 2:
        return 0  # a child that publishes nothing ends like any other
    user_of(client, f"child {{number}}").decide("banner")
    publisher.track(f"child {{number}}", "forked")
    left = publisher.flush({seconds})
    stats = publisher.stats()
    return 0 if (left, stats.accepted, stats.delivered) == (0, 2, 2) else f"{{number}}: {{left}} left, {{stats}}"

children = []
for number in range(3):
    process = fork()
    if process == 0:
        code = child(number)
        if ending == "exit":
            sys.exit(code)
        os._exit(0 if code == 0 else 1)
    children.append(process)
forked.set()
codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]
publisher.track("parent", "last")
left = publisher.flush({seconds})
stats = publisher.stats()
print(json.dumps({{"codes": codes, "left": left, "all": stats.accepted == stats.delivered}}))
"""


@pytest.mark.parametrize("ending", ["exit", "_exit"])
@pytest.mark.parametrize("before", ["quiet", "locked"])
def test_children_of_a_fork_in_c_publish(kafka: EmbeddedKafka, topic: str, before: str, ending: str) -> None:
    """Before, their events stayed in a queue that no thread served; `accepted` counted them, without an error."""
    script = FORKING_IN_C.format(seconds=stretched(DEADLINE_SECONDS // 3))

    finished = run(script, kafka.bootstrap_servers, topic, before, ending)

    assert last_line(finished) == {"codes": [0, 0, 0], "left": 0, "all": True}
    assert visitors(kafka, topic) == ["child 0", "child 1", "parent", "parent"]


GRANDCHILD = """
import os, sys
from flagpost_publisher import Publisher
from forking_in_c import fork

publisher = Publisher(bootstrap_servers=sys.argv[1], topic=sys.argv[2])
publisher.track("parent", "first")
assert publisher.flush({seconds}) == 0
if fork() == 0:
    if fork() == 0:
        publisher.track("grandchild", "forked")
        sys.exit(publisher.flush({seconds}))
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_grandchild_publishes_although_its_parent_never_did(kafka: EmbeddedKafka, topic: str) -> None:
    finished = run(
        GRANDCHILD.format(seconds=stretched(DEADLINE_SECONDS // 3)), kafka.bootstrap_servers, topic
    )

    assert (finished.returncode, finished.stderr) == (0, "")
    assert visitors(kafka, topic) == ["grandchild", "parent"]


# The publisher belongs to the module: a spawned child creates its own when it imports the main module.
MULTIPROCESSING = """
import sys
from flagpost_publisher import Publisher

publisher = Publisher(bootstrap_servers=sys.argv[1], topic=sys.argv[2])
publisher.track("main module", "imported")
publisher.flush({seconds})

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(name):
    publisher.track(name, "begin")
    assert publisher.flush({seconds}) == 0
    for number in range(5):
        assert publisher.track(name, str(number))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[3])
    if sys.argv[4] == "process":
        child = context.Process(target=work, args=("worker",))
        child.start()
        child.join()
        sys.exit(child.exitcode)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work, "worker").result()
"""


@pytest.mark.parametrize("kind", ["process", "pool"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_sends_what_it_accepted(
    kafka: EmbeddedKafka, topic: str, tmp_path: Path, method: str, kind: str
) -> None:
    """The child ends with os._exit(), so atexit never runs; before, the last five events were lost."""
    script = tmp_path / "application.py"
    script.write_text(MULTIPROCESSING.format(seconds=stretched(DEADLINE_SECONDS // 3)))

    finished = run(script, kafka.bootstrap_servers, topic, method, kind)

    assert (finished.returncode, finished.stderr) == (0, "")
    imports = 1 if method == "fork" else 2
    assert visitors(kafka, topic) == ["main module"] * imports + ["worker"] * 6


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_ends_although_kafka_is_absent(tmp_path: Path, method: str) -> None:
    script = tmp_path / "application.py"
    script.write_text(
        MULTIPROCESSING.format(seconds=0).replace("assert publisher.flush(0) == 0", "publisher.flush(0)")
    )

    finished = run(script, "127.0.0.1:1", "events", method, "process")

    assert (finished.returncode, finished.stderr) == (0, "")


UWSGI = Path(sys.executable).with_name("pyuwsgi")
SERVED = """
import os, sys
from flagpost_publisher import Publisher

publisher = Publisher(bootstrap_servers=os.environ["SERVERS"], topic=os.environ["TOPIC"])
seconds = float(os.environ["SECONDS"])
publisher.track("master", "loaded")
publisher.flush(seconds)
publisher.prepare_fork()  # a fork in C is not waited for: see docs/guarantees.md

def application(environ, start_response):
    publisher.track("worker", "request")
    left, stats = publisher.flush(seconds), publisher.stats()
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{os.getpid()} {left} {stats.accepted} {stats.delivered}".encode()]
"""


@contextmanager
def uwsgi(kafka: EmbeddedKafka, topic: str, directory: Path, options: list[str]) -> Iterator[str]:
    """Run a real uWSGI with one worker and the application above; yields its URL."""
    (directory / "served.py").write_text(SERVED)
    log = directory / "uwsgi.log"
    variables = {"SERVERS": kafka.bootstrap_servers, "TOPIC": topic, "SECONDS": str(stretched(20))}
    master = ["--master", "--processes", "1", "--need-app", "--wsgi-file", "served.py", "--die-on-term"]
    with log.open("w") as written:
        process = subprocess.Popen(
            [str(UWSGI), "--http-socket", "127.0.0.1:0", *master, "--home", sys.prefix, *options],
            cwd=directory,
            env={**os.environ, **variables},
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port_of(log)}/"
        process.terminate()
        process.wait(stretched(DEADLINE_SECONDS))
    except BaseException:
        sys.stderr.write(f"uWSGI said:\n{log.read_text()}")
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def port_of(log: Path) -> str:
    """The port that uWSGI chose, from its log."""
    deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
    while time.monotonic() < deadline:
        told = [line for line in log.read_text().splitlines() if "bound to TCP address 127.0.0.1:" in line]
        if told:
            return told[0].partition("127.0.0.1:")[2].split()[0]
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def asked(url: str) -> list[int]:
    """The numbers in the application's answer; retries, because the worker may still be starting."""
    deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
    while True:
        try:
            with urllib.request.urlopen(url, timeout=stretched(DEADLINE_SECONDS)) as answer:  # noqa: S310 - loopback
                return [int(word) for word in answer.read().split()]
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("options", [[], ["--enable-threads"], ["--enable-threads", "--py-call-osafterfork"]])
def test_workers_of_uwsgi_publish(
    kafka: EmbeddedKafka, topic: str, tmp_path: Path, options: list[str]
) -> None:
    """Also the second worker, which replaces a killed one; the master published before the fork."""
    workers = []
    with uwsgi(kafka, topic, tmp_path, options) as url:
        for _ in range(2):
            worker, *counted = asked(url)
            assert counted == [0, 1, 1]
            workers.append(worker)
            os.kill(worker, signal.SIGKILL)

    assert len(set(workers)) == 2
    assert visitors(kafka, topic) == ["master", "worker", "worker"]
