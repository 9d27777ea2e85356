"""examples/connect in a real Kafka Connect worker: a stock sink gets the ledger's settlements."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from examples_running import ROOT, connect_plugin
from ledger_writing import History, entry
from real_kafka.processes import JavaProcess, free_port
from running import eventually
from scenes import Scene

pytestmark = [pytest.mark.kafka]

SCHEMA = ROOT / "schemas" / "avro" / "Settlements.avsc"


def properties(place: Path, /, **values: object) -> str:
    """Write a Java properties file, with two underscores for each dot of a name; returns its path."""
    place.write_text("".join(f"{name.replace('__', '.')}={value}\n" for name, value in values.items()))
    return str(place)


async def test_a_stock_sink_gets_every_settlement_with_its_fields(scene: Scene, tmp_path: Path) -> None:
    target = await asyncio.to_thread(connect_plugin)
    history, sunk = History(scene), tmp_path / "sunk"
    history.write(0, [entry(1, visitor_id="v1", flag_key="f"), entry(2, dedupe_key=bytes(range(16)))])
    history.write(1, [entry(3, "track", "dropped", reason="no_consent", visitor_id="ü", occurred_at=0)])
    worker = properties(
        tmp_path / "worker.properties",
        bootstrap__servers=scene.kafka.bootstrap_servers,
        listeners=f"http://127.0.0.1:{free_port()}",
        plugin__path=target / "plugins",
        offset__storage__file__filename=tmp_path / "offsets",
        offset__flush__interval__ms=500,
        key__converter="org.apache.kafka.connect.converters.ByteArrayConverter",
        value__converter="io.flagpost.connect.SingleObjectConverter",
        value__converter__schema__files=SCHEMA,
    )
    sink = properties(
        tmp_path / "sink.properties",
        name="settlements",
        connector__class="org.apache.kafka.connect.file.FileStreamSinkConnector",
        topics=scene.ledger,
        file=sunk,
    )
    command = [
        "-cp",
        f"{target / 'worker'}/*",
        "org.apache.kafka.connect.cli.ConnectStandalone",
        worker,
        sink,
    ]
    process = await asyncio.to_thread(JavaProcess, command, tmp_path / "log", lambda: True)
    try:
        await eventually(
            lambda: sunk.exists() and sunk.read_text().count("\n") == 2, 90.0, what="both records"
        )
    finally:
        await asyncio.to_thread(process.end, signal.SIGTERM)
    first, second = sorted(sunk.read_text().splitlines(), key=lambda line: "no_consent" in line)
    assert f"group={scene.settings['kafka.group_id']}" in first
    assert "offset=1,kind=track,outcome=delivered,reason=ok,visitor_id=v1,flag_key=f" in first
    assert "offset=2,kind=track" in first
    assert "dedupe_key=java.nio.HeapByteBuffer[pos=0 lim=16 cap=16]" in first
    assert (
        "offset=3,kind=track,outcome=dropped,reason=no_consent,visitor_id=ü,occurred_at=Thu Jan 01" in second
    )
