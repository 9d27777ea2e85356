"""A program that starts as a fork does what it does when it starts as its users start it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

import psutil
import pytest

import warm_starts
from deadlines import stretched
from gateway_running import GATEWAY
from running import FLAGPOST, Begun, begin_cold, begin_warm, environment, flagpost
from warm_starts import run

NOWHERE = {"kafka.bootstrap_servers": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("program", "arguments", "settings"),
    [
        (FLAGPOST, ["--version"], {}),
        (FLAGPOST, ["reconcile", "--help"], {}),
        (FLAGPOST, ["reconcil"], {}),
        (FLAGPOST, ["consume"], {"delivery.max_pending": "many"}),
        (FLAGPOST, ["dead-letters", "show", "no place"], NOWHERE),
        (GATEWAY, [], {"gateway.port": "http"}),
    ],
)
def test_output_and_exit_code_are_the_same(
    program: str, arguments: list[str], settings: Mapping[str, object]
) -> None:
    environ = {**environment(settings), "COLUMNS": "70"}
    warm = run([program, *arguments], environ, stretched(60))
    cold = subprocess.run(
        [program, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=stretched(60)
    )
    assert cold.stdout + cold.stderr
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def await_line(process: Begun, said: bytes) -> None:
    assert process.stderr is not None
    assert any(said in line for line in process.stderr)


@pytest.mark.parametrize("begin", [begin_warm, begin_cold], ids=["warm", "cold"])
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGABRT, -6), (signal.SIGTERM, 0), (signal.SIGINT, 0)]
)
def test_signals_end_both_alike(
    begin: Callable[[Sequence[str], Mapping[str, str]], Begun], sent: signal.Signals, code: int
) -> None:
    secrets = {"pendo.track_secret": "secret", "pendo.integration_key": "secret", "admin.port": 0}
    with begin([str(FLAGPOST), "consume"], environment({**NOWHERE, **secrets})) as process:
        await_line(process, b"admin http")
        assert process.poll() is None
        process.send_signal(sent)
        assert process.wait(stretched(60)) == code
        process.send_signal(sent)  # it has ended: nobody gets it


def test_what_is_waited_for_too_long_is_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        flagpost(NOWHERE, "tail", seconds=0.2)
    server = next(
        each for each in psutil.Process().children() if "warm_starts.py" in " ".join(each.cmdline())
    )
    assert not [each for each in server.children() if each.status() != psutil.STATUS_ZOMBIE]


def test_what_is_imported_does_not_see_the_environment_of_the_test_that_starts_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise every gateway had metrics of several processes, because the first one's test wants them so."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    before = set(psutil.Process().children())
    server = warm_starts.Server()
    (started,) = set(psutil.Process().children()) - before
    assert "PROMETHEUS_MULTIPROC_DIR" not in started.environ()
    server.stop()


def test_a_command_reads_what_it_is_given_and_nothing_else() -> None:
    done = run(
        [FLAGPOST, "import", "-", "--format", "csv", "--type", "visitor", "--dry-run"],
        environment(NOWHERE),
        stretched(60),
        given="visitor_id,plan\nv1,free\n",
    )
    assert done.returncode == 0, done.stderr
    assert "1" in done.stdout
