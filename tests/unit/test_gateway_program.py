"""The gateway as a process: how it starts, loads new keys and stops, and its errors when it cannot start."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher.gateway import command, program
from flagpost_publisher.gateway.kafka_writer import writer_config
from flagpost_publisher.gateway.settings import load_settings
from gateway_running import GATEWAY, RunningGateway, on_free_ports, standing_still
from hostile_clients import head
from running import environment, eventually

EVENT = {"type": "track", "visitor_id": "v", "event": "Clicked"}


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"flagpost.events": 4, "flagpost.pendo-webhooks": 4}) as running:
        yield running


def started(kafka: EmbeddedKafka, **settings: object) -> RunningGateway:
    ours = {f"gateway.{key}": value for key, value in settings.items()}
    return RunningGateway({"kafka.bootstrap_servers": kafka.bootstrap_servers, **ours})


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends by itself; returns its exit code and output."""
    return subprocess.run(
        [str(GATEWAY), *arguments],
        env=environment({key.replace("__", "."): value for key, value in settings.items()}),
        capture_output=True,
        text=True,
        timeout=stretched(60),
        check=False,
    )


@asynccontextmanager
async def in_this_process(
    kafka: EmbeddedKafka, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[tuple[program.Gateway, asyncio.Task[int], int]]:
    """A gateway that listens, its `run`, and its port."""
    told = on_free_ports({"kafka.bootstrap_servers": kafka.bootstrap_servers})
    settings = load_settings(None, environment(told))
    gateway = program.Gateway(settings, writer_config(settings.kafka))
    running = asyncio.create_task(gateway.run())
    said = ""

    def listens() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "admin http" in said

    await eventually(listens)
    yield gateway, running, int(said.partition("gateway http://127.0.0.1:")[2].splitlines()[0])


async def test_no_request_comes_on_an_open_connection_once_the_gateway_hands_its_last_records_to_kafka(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the fix, such a request was given up when the process ended, and the exit code was 1."""
    async with in_this_process(kafka, capsys) as (gateway, running, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        received: list[bytes] = []

        stop = gateway._kafka.stop

        async def ask_again(seconds: float) -> bool:
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: gateway\r\n\r\n")
            received.append(await reader.read())
            return await stop(seconds)

        monkeypatch.setattr(gateway._kafka, "stop", ask_again)
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"404"
        await reader.readuntil(b"\r\n\r\n")
        gateway.stop()
        assert await running == 0
        assert b"HTTP/1.1" not in received[0]
        writer.close()


async def test_a_request_that_is_cut_off_at_the_end_makes_the_exit_code_1(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the fix, the code was 0, and nothing said that a request had begun just before the end."""
    async with in_this_process(kafka, capsys) as (gateway, running, port):

        async def until_idle() -> None:
            """It was, and then one more request came."""

        monkeypatch.setattr(gateway._admissions, "until_idle", until_idle)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("POST", "/v1/track", content_length="30000"))
        await eventually(lambda: gateway._admissions.requests == 1)
        gateway.stop()
        assert await running == 1
        assert await reader.read() == b""
        writer.close()
        assert "requests were cut off" in capsys.readouterr().out


async def test_a_stop_waits_for_the_request_in_flight_and_a_second_signal_does_not(
    kafka: EmbeddedKafka,
) -> None:
    async with started(kafka) as gateway:
        await gateway.ready()
        async with standing_still(kafka):
            waiting = asyncio.create_task(gateway.post("/v1/events", EVENT))
            await queued(gateway)
            gateway.signal(signal.SIGTERM)
            await eventually(lambda: any('"event":"stopping"' in line for line in gateway.lines))
            assert await gateway.probe("/readyz") == 503
            assert not waiting.done()
        assert (await waiting)[0] == 202
        assert await gateway.wait() == 0

    async with started(kafka) as gateway:
        await gateway.ready()
        async with standing_still(kafka):
            waiting = asyncio.create_task(gateway.post("/v1/events", EVENT))
            await queued(gateway)
            gateway.signal(signal.SIGINT)
            await eventually(lambda: any('"event":"stopping"' in line for line in gateway.lines))
            gateway.signal(signal.SIGINT)
            assert await gateway.wait() == 1
            with pytest.raises(aiohttp.ClientError):
                await waiting


async def queued(gateway: RunningGateway) -> None:
    """Wait until a record is on its way to Kafka."""
    async with asyncio.timeout(stretched(30)):
        while await gateway.value("flagpost_gateway_kafka_queued") == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_an_event_larger_than_kafka_takes_is_413_with_its_index(kafka: EmbeddedKafka) -> None:
    async with started(kafka) as gateway:
        await gateway.ready()
        large = {**EVENT, "properties": {"text": "x" * 70_000}}
        status, answer, _ = await gateway.post("/v1/events", [EVENT, large])
        assert (status, answer["index"]) == (413, 1)
        assert await gateway.value("flagpost_gateway_kafka_acknowledged_total") == 0


async def test_write_keys_of_a_kubernetes_mount_are_loaded_again_without_a_restart(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    mount(tmp_path, "the-old-write-key\n")
    keys = tmp_path / "keys"
    keys.symlink_to(Path("..data") / "keys")
    async with started(kafka, write_keys_file=str(keys)) as gateway:
        await gateway.ready()
        assert await status_with(gateway, "the-old-write-key") == 202
        mount(tmp_path, "the-old-write-key\nthe-new-write-key\n")
        await until_status(gateway, "the-new-write-key", 202)
        assert await status_with(gateway, "the-old-write-key") == 202
        mount(tmp_path, "the-new-write-key\n")
        await until_status(gateway, "the-old-write-key", 401)
        assert await status_with(gateway, "the-new-write-key") == 202
        mount(tmp_path, "not a key\n")
        mount(tmp_path, "the-newest-write-key\n")
        await until_status(gateway, "the-newest-write-key", 202)
        assert not [line for line in gateway.lines if "the-newest-write-key" in line]


async def test_a_missing_file_of_keys_lets_nobody_in_and_is_counted(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    keys, named = tmp_path / "keys", tmp_path / "named"
    keys.write_text("the-first-write-key\nshort\n")
    named.write_text("the-named-write-key\n")
    settings = {"write_keys_file": str(keys), "keys": {"checkout": {"key_file": str(named)}}}
    async with started(kafka, **settings) as gateway:
        await gateway.ready()
        wrong = "flagpost_gateway_secrets_wrong"
        assert await gateway.value(wrong, setting="gateway.write_keys_file") == 1
        assert await status_with(gateway, "the-first-write-key") == 202
        keys.unlink()
        named.write_text("")
        await until_status(gateway, "the-first-write-key", 401)
        await until_status(gateway, "the-named-write-key", 401)
        assert await gateway.value(wrong, setting="gateway.keys.checkout.key_file") == 1
        assert [
            line for line in gateway.lines if '"level":"error"' in line and "gateway.keys.checkout" in line
        ]
        named.write_text("the-named-write-key\n")
        await until_status(gateway, "the-named-write-key", 202)
        assert await gateway.value(wrong, setting="gateway.keys.checkout.key_file") == 0
        assert not [line for line in gateway.lines if "-write-key" in line]


async def test_a_keys_types_and_rate_are_limited_and_it_is_counted_by_name(kafka: EmbeddedKafka) -> None:
    keys = {
        "slow": {"key": "the-slow-write-key", "events_per_second": 0.01},
        "narrow": {"key": "the-narrow-write-key", "types": ["track"]},
    }
    async with started(kafka, keys=keys) as gateway:
        await gateway.ready()
        assert await status_with(gateway, "the-slow-write-key") == 202
        status, answer, headers = await gateway.post(
            "/v1/events", EVENT, headers=bearer("the-slow-write-key")
        )
        assert (status, answer["index"]) == (429, None)
        assert 0 < int(headers["retry-after"]) <= 100
        visitor = {"type": "visitor", "visitor_id": "v", "values": {"plan": "gold"}}
        status, answer, _ = await gateway.post(
            "/v1/events", [EVENT, visitor], headers=bearer("the-narrow-write-key")
        )
        assert (status, answer["index"], answer["field"]) == (403, 1, "type")
        batch = [{**EVENT, "userId": "v"}, {"type": "identify", "userId": "v", "traits": {"plan": "gold"}}]
        status, _, _ = await gateway.post(
            "/v1/batch", {"batch": batch}, headers=bearer("the-narrow-write-key")
        )
        assert status == 200
        events = "flagpost_gateway_key_events_total"
        assert [await gateway.value(events, key=key, outcome="accepted") for key in ("slow", "narrow")] == [
            1,
            1,
        ]
        assert await gateway.value("flagpost_gateway_key_limited_total", key="slow") == 1
        assert await gateway.value("flagpost_gateway_set_aside_total", reason="not_allowed") == 1


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def mount(directory: Path, content: str) -> None:
    """Replace a secret as kubelet does: `..data` is a link to a directory, and is replaced as a whole."""
    version = directory / f"..version-{len(list(directory.iterdir()))}"
    version.mkdir()
    (version / "keys").write_text(content)
    (directory / "..new").symlink_to(version.name)
    (directory / "..new").replace(directory / "..data")


async def status_with(gateway: RunningGateway, key: str) -> int:
    return (await gateway.post("/v1/events", EVENT, headers=bearer(key)))[0]


async def until_status(gateway: RunningGateway, key: str, status: int) -> None:
    async with asyncio.timeout(stretched(30)):
        while await status_with(gateway, key) != status:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)


# The start, and its errors


def test_permanent_objects_are_excluded_from_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, the collector checked them while a long document was parsed: ten times the parsing time."""

    class Counting:
        def __init__(self, *_: object) -> None:
            pass

        async def run(self) -> int:
            return gc.get_freeze_count()

    monkeypatch.setattr(program, "Gateway", Counting)
    monkeypatch.setattr(program, "configure_logging", lambda *_: None)
    try:
        given = {"kafka.bootstrap_servers": "127.0.0.1:1", "gateway.write_keys": ["a-key-of-some-length"]}
        assert program.run(None, environment(given)) > 10_000
    finally:
        gc.unfreeze()


def test_settings_that_cannot_be_used_end_it_with_2() -> None:
    done = run(gateway__port="x", kafka__topik="t")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "The settings cannot be used."
    assert {line.split(" ")[0] for line in done.stderr.splitlines()[1:]} == {"gateway.port", "kafka.topik"}


def test_properties_that_librdkafka_refuses_end_it_with_2_and_are_not_shown() -> None:
    properties = {"security.protocol": "hunter2"}
    done = run(
        kafka__bootstrap_servers="k:1", kafka__properties=properties, gateway__write_keys=["key-4711-4711"]
    )
    assert done.returncode == 2
    assert "kafka.properties: librdkafka refuses them" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_proxy_of_the_environment_that_cannot_be_used_ends_it_with_2(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://u:hunter2@p:1080")
    needed = {"kafka__bootstrap_servers": "127.0.0.1:1", "gateway__write_keys": ["key-4711-4711"]}
    done = run(kafka__schema_registry__url="https://registry:8081", **needed)
    assert done.returncode == 2
    assert "HTTPS_PROXY: is not a proxy that can be used" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("key", ["port", "admin_port"])
def test_a_port_that_is_taken_ends_it_with_1(key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"gateway__port": 0, "gateway__admin_port": 0, f"gateway__{key}": taken.getsockname()[1]}
        needed = {"kafka__bootstrap_servers": "127.0.0.1:1", "gateway__write_keys": ["key-4711-4711"]}
        done = run(gateway__host="127.0.0.1", **needed, **ports)
    assert done.returncode == 1
    assert "set gateway.host, gateway.port and gateway.admin_port" in done.stderr


def test_a_file_of_settings_is_named_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "flagpost.yaml"
    path.write_text("gateway: {prot: 1}\n")
    done = run("--config", str(path))
    assert f"gateway.prot ({path}): there is no such setting; did you mean gateway.port?" in done.stderr


@pytest.mark.parametrize("missing", ["aiohttp", "prometheus_client", "pydantic", "yaml", "structlog"])
def test_without_its_extra_it_says_in_a_line_what_to_install(missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from flagpost_publisher.gateway import command
command.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=stretched(60), check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"flagpost-gateway needs {missing}: pip install 'flagpost-publisher[gateway]'\n"


def test_ctrl_c_before_it_listens_for_signals_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["flagpost-gateway"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == "Aborted!", "which Python prints, and exits with 1"


def test_help_and_version_need_nothing() -> None:
    assert "--config PATH" in run("--help").stdout
    assert run("--version").stdout.startswith("flagpost-gateway ")
