"""Replaces the clock, threads, random numbers and Kafka's clients while the product runs in a simulation.

In: the product's modules. Out: the same modules, in which each name of one of these refers to its stand-in. The names
are found by the identity of their values, in every module and in the defaults of functions. So the product needs no
code for the simulation, and code that moves to another module is simulated there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

import cachetools
import confluent_kafka
import confluent_kafka.admin
from aiohttp import connector

from flagpost_consumer.service import garbage
from flagpost_kafka import reach
from simulation import clients, threads
from simulation.broker import START_MS
from simulation.clients import SimulatedAdmin, SimulatedConsumer, SimulatedProducer
from simulation.loop import PROCESS

OURS = ("flagpost_",)


class Namespace:
    """A module in which some names are replaced."""

    def __init__(self, module: ModuleType, **others: Any) -> None:
        self._module = module
        self.__dict__.update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def monotonic() -> float:
    """The simulated time."""
    return threads.scheduler().loop.now


def time_ns() -> int:
    """The wall clock of the calling process, which may be wrong."""
    process = PROCESS.get()
    step_ms = 0 if process is None else process.clock_step_ms
    return (START_MS + step_ms) * 1_000_000 + int(monotonic() * 1000) * 1_000_000


def _seeded(*_: object) -> random.Random:
    return random.Random(threads.scheduler().random.getrandbits(64))


def _random() -> float:
    return threads.scheduler().random.random()


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=threads.scheduler().random.getrandbits(128), version=4)


def _sleep(seconds: float) -> None:
    threads.scheduler().park(None, seconds)


async def _dial(*_: Any, **__: Any) -> Any:
    """Connect in the simulation, instead of opening a socket."""
    return await threads.scheduler().loop.dial()


_TIME = {
    time.monotonic: monotonic,
    time.time: lambda: time_ns() / 1e9,
    time.time_ns: time_ns,
    time.sleep: _sleep,
    time.clock_gettime: lambda _: monotonic(),
}
_REPLACED: list[tuple[Any, Any]] = [
    *_TIME.items(),
    (time, Namespace(time, **{real.__name__: ours for real, ours in _TIME.items()})),
    (
        threading,
        Namespace(
            threading,
            Thread=threads.Thread,
            Event=threads.Event,
            Lock=threads.Lock,
            RLock=threads.Lock,
            Condition=threads.Condition,
        ),
    ),
    (threading.Thread, threads.Thread),
    (threading.Event, threads.Event),
    (threading.Lock, threads.Lock),
    (threading.RLock, threads.Lock),
    (threading.Condition, threads.Condition),
    (concurrent.futures.Future, threads.Future),
    (concurrent.futures.wait, threads.wait),
    (
        asyncio,
        Namespace(
            asyncio, run_coroutine_threadsafe=threads.run_coroutine_threadsafe, to_thread=threads.to_thread
        ),
    ),
    (random.Random, _seeded),
    (random.random, _random),
    (uuid, Namespace(uuid, uuid4=_uuid4)),
    (cachetools.TTLCache, partial(cachetools.TTLCache, timer=monotonic)),
    (garbage.calm_collection, lambda: None),
    (garbage.collect_if_quiet, lambda _: None),
    (confluent_kafka.Consumer, SimulatedConsumer),
    (confluent_kafka.Producer, SimulatedProducer),
    (confluent_kafka.admin.AdminClient, SimulatedAdmin),
]
_STAND_INS = {id(real): ours for real, ours in _REPLACED}

Undo = Callable[[], None]


@contextmanager
def simulated() -> Iterator[None]:
    """Use the stand-ins in all modules of the product that are loaded now, during the block."""
    undo = list(_replace_all())
    dialling = Namespace(vars(connector)["aiohappyeyeballs"], start_connection=_dial)
    try:
        with (
            patch.object(connector, "aiohappyeyeballs", dialling),
            # The simulated clients connect again at once, and a simulated minute is short; they also end at once.
            patch.object(reach, "RECONNECT_SECONDS", 2.0),
            patch.object(reach, "let_go", lambda end: end()),
            # A killed process closes nothing; there is to be no warning about that.
            patch.object(connector.Connection, "__del__", _closes_nothing),
            patch.object(connector.BaseConnector, "__del__", _closes_nothing),
        ):
            try:
                yield
            finally:  # the last run ends here, and not in whichever test the garbage is collected
                threads.forget()
                clients.forget()
                gc.collect()
    finally:
        for each in reversed(undo):
            each()


def _closes_nothing(_: object) -> None:
    """Replaces a destructor."""


def _replace_all() -> Iterator[Undo]:
    for name in sorted(name for name in list(sys.modules) if name.startswith(OURS)):
        yield from _replace_in(sys.modules[name], name)


def _replace_in(module: ModuleType, name: str) -> Iterator[Undo]:
    for key, value in list(vars(module).items()):
        if (ours := _STAND_INS.get(id(value))) is not None:
            setattr(module, key, ours)
            yield partial(setattr, module, key, value)
        elif getattr(value, "__module__", None) == name:
            members = [value, *vars(value).values()] if isinstance(value, type) else [value]
            for member in members:
                yield from _replace_defaults(member)


def _replace_defaults(member: object) -> Iterator[Undo]:
    function = getattr(member, "__func__", member)
    if not isinstance(function, FunctionType):
        return
    if function.__defaults__:
        before = function.__defaults__
        function.__defaults__ = tuple(_STAND_INS.get(id(each), each) for each in before)
        yield partial(setattr, function, "__defaults__", before)
    if function.__kwdefaults__:
        named = function.__kwdefaults__
        function.__kwdefaults__ = {key: _STAND_INS.get(id(each), each) for key, each in named.items()}
        yield partial(setattr, function, "__kwdefaults__", named)
