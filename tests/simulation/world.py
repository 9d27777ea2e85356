"""One simulated minute: consumers, traffic and troubles, all decided by one seed.

In: a seed. Out: the history, and the oracle's complaints. Troubles come in the first half minute, and each of them
ends. Then there is calm, in which everything has to be settled.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.service.process import serve
from flagpost_consumer.settings import Needs, Settings, load_settings
from flagpost_schemas import DecisionEvent, encode_single_object
from simulation import clients, threads
from simulation.broker import START_MS, Broker, Entry, Log
from simulation.clients import SimulatedAdmin, SimulatedConsumer, SimulatedProducer
from simulation.history import History, listening
from simulation.loop import Process, SimulatedLoop
from simulation.oracle import Oracle, Published
from simulation.pendo import OUTAGES, Fate, Pendo

EVENTS, LEDGER, DEAD_LETTERS, SUPPRESSIONS = (
    "flagpost.events",
    "flagpost.ledger",
    "flagpost.dead-letters",
    "flagpost.suppressions",
)
SESSION_SECONDS = 6.0
HARMLESS_SECONDS = SESSION_SECONDS / 2
"""A member that is away for less than this keeps its session, and sends nothing again because of it."""
REQUEST_TIMEOUT_SECONDS = 1.5
INTERVAL_SECONDS = 0.1
MAX_CONNECTIONS = 4
DRAIN_SECONDS = 8.0
TROUBLE_SECONDS = 20.0
"""New troubles begin before this second."""
CALM_SECONDS = 25.0
"""There are no troubles from this second on."""
TRAFFIC_SECONDS = 45.0
LOST_UNTIL_SECONDS = 10.0
"""No client loses its brokers later."""
END_SECONDS = 60.0
STOP_SECONDS = 25.0
"""How long the consumers may take to stop after END_SECONDS."""
EVENTS_A_SECOND = 3.0
VISITORS = 10
AILING = 6
"""More than MAX_CONNECTIONS: all requests in flight could be theirs."""


def settings(*, kip_848: bool) -> Settings:
    """The settings of the simulated consumers."""
    told: dict[str, Any] = {
        "KAFKA__BOOTSTRAP_SERVERS": "simulated:9092",
        "KAFKA__SESSION_TIMEOUT_SECONDS": SESSION_SECONDS,
        "KAFKA__GROUP_PROTOCOL": "consumer" if kip_848 else "classic",
        "PENDO__TRACK_URL": "http://127.0.0.1:1/data/track",
        "PENDO__API_URL": "http://127.0.0.1:1",
        "PENDO__TRACK_SECRET": "simulated-secret",
        "PENDO__INTEGRATION_KEY": "simulated-key",
        "PENDO__PROXY": "none",
        "PENDO__MAX_CONNECTIONS": MAX_CONNECTIONS,
        "PENDO__REQUEST_TIMEOUT_SECONDS": REQUEST_TIMEOUT_SECONDS,
        "PENDO__METADATA_TIMEOUT_SECONDS": REQUEST_TIMEOUT_SECONDS,
        "DELIVERY__VISITOR_INTERVAL_SECONDS": INTERVAL_SECONDS,
        "DELIVERY__DRAIN_SECONDS": DRAIN_SECONDS,
        "METADATA__LINGER_SECONDS": 0.3,
    }
    environ = {f"FLAGPOST_{key}": str(value) for key, value in told.items()}
    return load_settings(None, environ, Needs.KAFKA | Needs.PENDO)


SETTINGS = {kip_848: settings(kip_848=kip_848) for kip_848 in (False, True)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a seed."""

    seed: int
    history: list[str]
    complaints: list[str]
    figures: dict[str, int] = field(default_factory=dict)


class World:
    """One run."""

    def __init__(self, seed: int, kinds: Collection[str] = ()) -> None:
        """`kinds`: the troubles that may come, by name; none: all of them."""
        self.seed = seed
        self._kinds = kinds
        self.random = Random(seed)
        draw = self.random.random
        self.loop = SimulatedLoop(timers_first=draw() < 0.5)
        self.history = History(self.loop)
        self.kip_848 = draw() < 0.5
        self.partitions = self.random.choice((2, 3, 4))
        self.broker = Broker(
            self.loop, self.random, self.history.note, self.partitions, SESSION_SECONDS, eager=draw() < 0.3
        )
        for topic in (EVENTS, LEDGER, DEAD_LETTERS):
            self.broker.create(topic, self.partitions)
        self.broker.create(SUPPRESSIONS, 1)
        self.pendo = Pendo(self.loop, self.random, self.history.note)
        self.pendo.poison = frozenset({"poison"}) if draw() < 0.5 else frozenset()
        self.visitors = [f"v{number}" for number in range(VISITORS)] + ["hot"] * 2 + ["poison"]
        crowds = Random(-1 - seed)  # its own, so that the other seeds' histories stay as they are
        if crowds.random() < 0.1:
            self.pendo.poison = frozenset({"poison"})
            self.visitors += ["poison"] * 2 * VISITORS
        elif crowds.random() < 0.1:
            self.pendo.ailing = frozenset(f"ailing{number}" for number in range(AILING))
            self.visitors += sorted(self.pendo.ailing)
        self.pendo.slowest = self.random.choice((0.01, 0.05, 0.4))
        self.oracle = Oracle(self.broker, self.pendo, self.history.note)
        self.broker.on_append = self._appended
        self.broker.on_commit = self.oracle.committed
        self.broker.on_given_up = self.oracle.given_up
        self.pendo.on_request = self.oracle.request
        self.pendo.on_heard = self.oracle.heard
        self.history.on_alarm = self.oracle.alarm
        self.scheduler = threads.Scheduler(self.loop, self.random, self._thread_crashed)
        self.loop.listen = lambda _: SimpleNamespace(
            sockets=[SimpleNamespace(getsockname=lambda: ("127.0.0.1", 8080))],
            close=lambda: None,
            wait_closed=_nothing,
            is_serving=lambda: True,
        )
        self.loop.set_exception_handler(self._loop_failed)
        self.processes: list[Process] = []
        self.tasks: dict[Process, asyncio.Task[int]] = {}
        self._stopped_at: dict[Process, float] = {}
        """When each process was told to drain and stop."""
        self._steps: dict[str, int] = {}
        self._epoch = self.loop.now

    # Processes

    def start(self) -> Process:
        """Start a consumer."""
        process = Process(f"c{len(self.processes)}", self.loop)
        self.processes.append(process)
        self.history.note(f"{process.name} starts")
        task = self.loop.create_task(serve(SETTINGS[self.kip_848]), context=process.context)
        self.tasks[process] = task
        task.add_done_callback(lambda ended: self._ended(process, ended), context=self.loop.world)
        return process

    def _ended(self, process: Process, task: asyncio.Task[int]) -> None:
        if task.cancelled() or self.history.is_closed:
            return
        error = task.exception()
        said = f"raised {error!r}" if error is not None else f"exit code {task.result()}"
        self.history.note(f"{process.name} has ended: {said}")
        process.kill()
        if error is not None:
            self.history.defects.append(f"{process.name} {said}")
        elif self.now < END_SECONDS and not self.living():
            self.start()

    def may_be_stopped(self, process: Process) -> bool:
        """Whether it handles SIGTERM and was not stopped yet: at a second signal it ends at once, with code 1."""
        return process not in self._stopped_at and (process, signal.SIGTERM) in self.loop.handlers

    def stop(self, process: Process) -> None:
        """Tell a process to drain and stop."""
        self._stopped_at[process] = self.loop.now
        self.loop.signal(process, signal.SIGTERM)

    def living(self) -> list[Process]:
        """The consumers that have not ended."""
        return [process for process in self.processes if process.is_alive]

    def some_process(self) -> Process:
        """A random consumer that has not ended."""
        return self.random.choice(self.living() or [self.start()])

    def _thread_crashed(self, name: str, error: BaseException) -> None:
        self.history.note(f"the thread {name} has ended: {error!r}")
        self.history.defects.append(f"the thread {name} has ended: {error!r}")

    def _loop_failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self.history.is_closed:
            return
        said = f"the loop reports: {context['message']} {context.get('exception')!r}"
        self.history.note(said)
        self.history.defects.append(said)

    # Time

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.loop.now - self._epoch

    def at(self, seconds: float, what: Callable[..., object], *arguments: Any) -> None:
        """Call something at a second of the run."""
        self.loop.in_world(self._epoch + seconds, what, *arguments)

    def soon(self, seconds: float, what: Callable[..., object], *arguments: Any) -> None:
        """Call something after a delay."""
        self.at(self.now + seconds, what, *arguments)

    # Traffic

    def publish(self) -> None:
        """Publish one decision; about one in six is a duplicate of the visitor's last one."""
        draw = self.random
        visitor = draw.choice(self.visitors)
        for _ in range(3 if visitor == "hot" and draw.random() < 0.3 else 1):
            step = self._steps.get(visitor, 0)
            if step == 0 or draw.random() > 1 / 6:
                step += 1
            self._steps[visitor] = step
            self._publish(visitor, f"step-{step:03}")

    def _publish(self, visitor: str, flag: str) -> None:
        now_ms = START_MS + int(self.loop.now * 1000)
        event = DecisionEvent(
            event_id=f"e{len(self.oracle.published):04}",
            occurred_at=now_ms,
            visitor_id=visitor,
            flag_key=flag,
            enabled=True,
            variation_key="a",
            rule_key="rule",
            decision_event_dispatched=True,
        )
        number = partition_of(visitor.encode(), self.partitions)
        topic = self.broker.topics[EVENTS]
        log = topic.logs[number]
        offset = log.end
        self.oracle.publish(
            Published(
                event.event_id, visitor, flag, event.occurred_at, topic.id, number, offset, self.loop.now
            )
        )
        self.history.note(f"published {event.event_id} {visitor} {flag} at {number}/{offset}")
        self.broker.append(log, visitor.encode(), encode_single_object(event), (), now_ms)

    def _traffic(self) -> None:
        self.publish()
        if self.now < TRAFFIC_SECONDS:
            self.soon(self.random.expovariate(EVENTS_A_SECOND), self._traffic)

    def _appended(self, log: Log, entry: Entry) -> None:
        if log.topic == LEDGER:
            self.oracle.ledger_has(log.number, entry)
        elif log.topic == DEAD_LETTERS:
            self.oracle.dead_letter(entry)

    # The group

    def _look_after_group(self) -> None:
        self.broker.group.look_after()
        for reader in list(self.broker.readers):
            client = getattr(reader, "__self__", None)
            if isinstance(client, SimulatedConsumer):
                client.heartbeat()
        self.soon(0.25, self._look_after_group)

    def clients(self) -> list[SimulatedConsumer]:
        """The consumers' clients that are members of the group."""
        found = [getattr(reader, "__self__", None) for reader in self.broker.readers]
        return [each for each in found if isinstance(each, SimulatedConsumer) and each.is_member]

    # Running

    def run(self) -> Outcome:
        """Run the whole minute, and judge it."""
        threads.use(self.scheduler)
        clients.use(self.broker)
        with listening(self.history):
            try:
                self._begin()
                self.loop.call_at(self._epoch + END_SECONDS, self._stop_all)
                self.loop.call_at(self._epoch + END_SECONDS + STOP_SECONDS, self.loop.stop)
                self.loop.run_forever()
                self.oracle.judge()
            except AssertionError as error:
                self.history.defects.append(f"the simulation ended: {error}")
            finally:
                complaints = [*self.history.defects, *self.oracle.complaints, *self._left()]
                for complaint in complaints:
                    self.history.note(f"COMPLAINT {complaint}")
                self._close()
        return Outcome(self.seed, list(self.history.lines()), complaints, self.oracle.figures())

    def _begin(self) -> None:
        troubles = Troubles(self, self._kinds)
        for _ in range(self.random.choice((1, 2, 2, 3))):
            self.at(self.random.uniform(0.0, 1.0), self.start)
        self.at(0.5, self._traffic)
        self.at(0.25, self._look_after_group)
        for _ in range(self.random.randrange(1, 8)):
            self.at(self.random.uniform(1.0, TROUBLE_SECONDS), troubles.draw())

    def _stop_all(self) -> None:
        self.history.note("the end: all are stopped")
        self.oracle.look_at_the_end()
        for process in self.living():
            if self.may_be_stopped(process):
                self.stop(process)
        self._stop_when_all_have()

    def _stop_when_all_have(self) -> None:
        if self.living():
            self.soon(0.1, self._stop_when_all_have)
        else:
            self.loop.stop()

    def _left(self) -> list[str]:
        return [f"{process.name} does not stop" for process in self.living()] + [
            f"{process.name} ended with exit code {task.result()}"
            for process, task in self.tasks.items()
            if task.done() and not task.cancelled() and task.exception() is None
            if task.result() != 0 and not self._had_trouble_draining(process)
        ]

    def _had_trouble_draining(self, process: Process) -> bool:
        """Whether a trouble kept it from settling everything before it ended: its exit code is then 1."""
        stopped_at = self._stopped_at.get(process)
        return stopped_at is not None and self.oracle.is_troubled(process, stopped_at, DRAIN_SECONDS)

    def _close(self) -> None:
        """End everything, without notes in the history."""
        self.history.is_closed = True
        self.scheduler.close()
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            with suppress(RuntimeError, ValueError):  # it awaits something while it is closed
                coroutine.close()
        self.loop.close()


async def _nothing() -> None:
    """Return at once."""


class Troubles:
    """The troubles that may come."""

    def __init__(self, world: World, names: Collection[str]) -> None:
        self.world = world
        self._refusals: set[Fate] = set()
        self._without_brokers: set[Process] = set()
        kinds: list[Callable[[], None]] = [
            self.outage, self.flaky, self.unreachable, self.kill, self.kill, self.stop, self.scale_up, self.freeze,
            self.cut_off, self.leaderless, self.refuse, self.brokers_down, self.slow, self.forget_answers,
            self.lose_coordinator, self.holes, self.go_back, self.change_leader, self.retention,
            self.made_anew, self.fatal, self.clock_jump, self.suppress, self.suppress, self.sluggish,
        ]  # fmt: skip
        if "lose_brokers" in names:  # only if asked for: the minute is short for it
            kinds.append(self.lose_brokers)
        if "hide_ids" in names:  # only if asked for: most brokers tell the ids
            kinds.append(self.hide_ids)
        self.kinds = [kind for kind in kinds if not names or kind.__name__ in names]

    def draw(self) -> Callable[[], None]:
        """A random trouble, as a function that begins it."""
        kind = self.world.random.choice(self.kinds)

        def happen() -> None:
            self.world.oracle.cause(kind.__name__)
            kind()

        return happen

    def _until(self, *seconds: float) -> float:
        """How many seconds a trouble lasts: at most until the calm begins."""
        drawn = self.world.random.choice(seconds) * self.world.random.uniform(0.7, 1.3)
        return min(drawn, CALM_SECONDS - self.world.now)

    def _note(self, text: str) -> None:
        self.world.history.note(f"TROUBLE {text}")

    def outage(self) -> None:
        pendo, seconds = self.world.pendo, self._until(2, 5)
        # Only one outage with 401: if a delivery were refused in two, and others were accepted between them, the
        # product would give it up, as its rule says.
        pendo.outage = self.world.random.choice([each for each in OUTAGES if each not in self._refusals])
        self._refusals |= {pendo.outage} & {Fate.FORBIDDEN}
        pendo.outage_until = self.world.loop.now + seconds
        self._note(f"Pendo: {pendo.outage} for {seconds:.1f} s")

    def flaky(self) -> None:
        seconds = self._until(3, 8)
        self.world.pendo.flaky_until = self.world.loop.now + seconds
        self._note(f"Pendo is flaky for {seconds:.1f} s")

    def sluggish(self) -> None:
        seconds = self._until(5, 10)
        self.world.pendo.is_sluggish_until = self.world.loop.now + seconds
        self._note(f"Pendo is sluggish for {seconds:.1f} s")

    def unreachable(self) -> None:
        seconds = self._until(2, 5)
        self.world.pendo.is_unreachable_until = self.world.loop.now + seconds
        self._note(f"no new connection to Pendo for {seconds:.1f} s")

    def kill(self) -> None:
        process = self.world.some_process()
        self._note(f"{process.name} is killed")
        process.kill()
        self.world.oracle.trouble(process, 0.0)
        self.world.soon(self._until(0.5, 4), self.world.start)

    def stop(self) -> None:
        process = self.world.some_process()
        if not process.is_running or not self.world.may_be_stopped(process):
            return
        self._note(f"{process.name} is stopped, and another comes")
        self.world.stop(process)
        self.world.soon(self.world.random.uniform(0, 2), self.world.start)

    def scale_up(self) -> None:
        if len(self.world.living()) < 4:
            self._note("one more is started")
            self.world.start()

    def freeze(self) -> None:
        process, seconds = self.world.some_process(), self._until(0.5, 2, 5, 9)
        self._note(f"{process.name} is frozen for {seconds:.1f} s")
        process.freeze(seconds)
        self.world.oracle.trouble(process, seconds, delays_only=seconds < HARMLESS_SECONDS)

    def cut_off(self) -> None:
        process, seconds = self.world.some_process(), self._until(1, 4, 9)
        self._note(f"{process.name} is cut off from Kafka for {seconds:.1f} s")
        process.is_cut_off = True
        self.world.oracle.trouble(process, seconds, delays_only=seconds < HARMLESS_SECONDS)

        def end() -> None:
            process.is_cut_off = False

        self.world.soon(seconds, end)

    def _some_log(self, *topics: str) -> Log:
        topic = self.world.random.choice(topics)
        return self.world.random.choice(self.world.broker.topics[topic].logs)

    def leaderless(self) -> None:
        log, seconds = self._some_log(EVENTS, LEDGER, LEDGER, DEAD_LETTERS), self._until(2, 6)
        self._note(f"{log.topic}/{log.number} has no leader for {seconds:.1f} s")
        log.leaderless_until = self.world.loop.now + seconds
        if log.topic in {LEDGER, DEAD_LETTERS}:  # a drain waits for what is to be written there
            self.world.oracle.trouble(None, seconds, delays_only=True)

    def refuse(self) -> None:
        log, seconds = self._some_log(LEDGER, DEAD_LETTERS), self._until(2, 3)
        self._note(f"{log.topic}/{log.number} refuses writers for {seconds:.1f} s")
        log.refuses_until = self.world.loop.now + seconds
        # The pauses between attempts double, so the last pause may be as long as the refusals lasted: together that
        # is less than a hand-over waits for settlements.
        self.world.oracle.trouble(None, 2 * seconds + 1.0, delays_only=True)

    def brokers_down(self) -> None:
        seconds = self._until(1, 4, 9)
        self._note(f"all brokers are down for {seconds:.1f} s")
        self.world.broker.is_down_until = self.world.loop.now + seconds
        self.world.oracle.trouble(None, seconds, delays_only=seconds < HARMLESS_SECONDS)

    def slow(self) -> None:
        seconds = self._until(5, 15)
        self._note(f"brokers are slow for {seconds:.1f} s")
        self.world.broker.is_slow_until = self.world.loop.now + seconds

    def forget_answers(self) -> None:
        seconds = self._until(5, 10)
        self._note(f"answers to commits are lost for {seconds:.1f} s")
        self.world.broker.forgets_answers_until = self.world.loop.now + seconds

    def lose_coordinator(self) -> None:
        members = self.world.clients()
        hit = (
            members
            if self.world.random.random() < 0.5
            else self.world.random.sample(members, min(1, len(members)))
        )
        for client in hit if self.world.kip_848 else ():
            self._note(f"{client.process.name} loses its coordinator for good")
            client.loses_coordinator = True
            self.world.oracle.trouble(client.process, END_SECONDS)

    def lose_brokers(self) -> None:
        """Of one process either the consumers, the producers or the admin clients: to notice takes half a minute."""
        clients = [each for each in self.world.broker.clients if each.process.is_alive]
        process = self.world.random.choice([each.process for each in clients])
        kind = self.world.random.choice((SimulatedConsumer, SimulatedProducer, SimulatedAdmin))
        if process in self._without_brokers or self.world.now > LOST_UNTIL_SECONDS:
            return
        self._without_brokers.add(process)
        self._note(f"each {kind.__name__} of {process.name} loses its brokers for good")
        self.world.oracle.trouble(process, END_SECONDS)
        for client in clients:
            client.lost_brokers |= client.process is process and isinstance(client, kind)

    def hide_ids(self) -> None:
        seconds = self._until(5, 10)
        self._note(f"the brokers tell no topic's id for {seconds:.1f} s")
        self.world.broker.hides_ids_until = self.world.loop.now + seconds

    def holes(self) -> None:
        log, offsets = self._some_log(EVENTS, LEDGER), self.world.random.choice((1, 1, 3, 60))
        self._note(f"{log.topic}/{log.number} has a hole of {offsets} offsets at {log.end}")
        log.leave_hole(offsets)

    def change_leader(self) -> None:
        log = self._some_log(EVENTS, LEDGER)
        self._note(f"{log.topic}/{log.number} has another leader")
        log.changes_leader()

    def go_back(self) -> None:
        log = self._some_log(EVENTS)
        if log.end - log.low < 2:
            return
        offset = self.world.random.randrange(max(log.low, log.end - 6), log.end)
        self._note(f"{log.topic}/{log.number} goes back from {log.end} to {offset}")
        self.world.oracle.went_back(log.number, log.go_back(offset))
        for client in self.world.clients():
            client.leader_changed()

    def retention(self) -> None:
        log = self._some_log(EVENTS)
        offset = self.world.random.randint(log.low, log.end)
        self._note(f"{log.topic}/{log.number} begins at {offset} from now on")
        self.world.oracle.gone([each for each in log.entries if each.offset < offset])
        log.delete_before(offset)

    def made_anew(self) -> None:
        self._note(f"{EVENTS} is made anew")
        topics = self.world.broker.topics
        self.world.oracle.made_anew([each for log in topics[EVENTS].logs for each in log.entries])
        self.world.broker.create(EVENTS, self.world.partitions)
        if self.world.random.random() < 0.5:
            self.world.broker.group.commits.clear()

    def fatal(self) -> None:
        process = self.world.some_process()
        self._note(f"the producers of {process.name} meet a fatal error")
        self.world.oracle.trouble(process, 0.0)
        for producer in self.world.broker.producers:
            if isinstance(producer, SimulatedProducer) and producer.process is process:
                producer.fail()

    def clock_jump(self) -> None:
        process, seconds = self.world.some_process(), self._until(3, 9)
        process.clock_step_ms = self.world.random.choice((-250_000, -2_000, 2_000, 100_000))
        self._note(f"the clock of {process.name} is wrong by {process.clock_step_ms} ms for {seconds:.1f} s")

        def end() -> None:
            process.clock_step_ms = 0

        self.world.soon(seconds, end)

    def suppress(self) -> None:
        visitor = f"v{self.world.random.randrange(VISITORS)}"
        self._note(f"{visitor} is suppressed")
        log = self.world.broker.log(SUPPRESSIONS, 0)
        self.world.broker.append(log, visitor.encode(), b'{"at": 1}', (), self.world.broker.wall_ms())
        self.world.oracle.suppress(visitor)
