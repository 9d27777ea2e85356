"""One delivery measured: a sender and a receiver, each a process of its own, from start to end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from delivery.receiving import Receiver

START_SECONDS = 60.0
WORK_SECONDS = 300.0
CALL_SECONDS = 20.0


def run_sender(
    command: Sequence[str], environment: Mapping[str, str], receiver: Receiver, log: Path
) -> dict[str, float]:
    """Start the sender, wait until the receiver has all, and stop it; returns what it used.

    Raises:
        SystemExit: it ended too early, or took too long; with the end of its log.
    """
    try:
        with _started(command, environment, log) as process:
            return _watched(process, receiver)
    except (RuntimeError, TimeoutError) as error:
        raise SystemExit(f"{command[0]}: {error}\n{log.read_text(errors='replace')[-2000:]}") from error


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _watched(process: subprocess.Popen[bytes], receiver: Receiver) -> dict[str, float]:
    def look() -> None:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with code {process.returncode}")

    receiver.wait_for("first", look, START_SECONDS)
    at_first = cpu_seconds(process.pid)
    receiver.wait_for("done", look, WORK_SECONDS)
    at_done, peak = cpu_seconds(process.pid), peak_mb(process.pid)
    process.send_signal(signal.SIGTERM)
    return {"cpu_seconds": _reap(process), "working_cpu_seconds": at_done - at_first, "peak_mb": peak}


def cpu_seconds(pid: int) -> float:
    """What a process has used until now."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def peak_mb(pid: int) -> float:
    """The most memory that it ever held. (What wait4 tells would count the memory of the process that forked it.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def committed(bootstrap_servers: str, group: str, topic: str, partitions: int) -> int:
    """How many records of a topic a group has committed."""
    asked = [TopicPartition(topic, number) for number in range(partitions)]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    answers = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)])
    found = answers[group].result(CALL_SECONDS).topic_partitions
    return sum(max(partition.offset, 0) for partition in found)


def _reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for its end; returns the CPU time of its whole life, start and end included."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime
