"""An application like those of Flagpost's users: the real optimizely-sdk, visitors who come and go, a Publisher.

In: options (`python -m flagpost_consumer.demo.sample_app --help`). Out: events on Kafka, and on stdout a JSON line
at intervals (`"kind": "progress"`) and at the end (`"kind": "final"`) that says what the SDK decided, counted
independently of the publisher, and what the publisher did with it. With `--metrics-port`, the publisher's numbers for
Prometheus are at `/metrics` of that port.

The datafile is next to this file: an A/B and an A/B/C experiment, a rollout, a flag that is off, a holdout. Nothing
is sent to Optimizely.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from itertools import accumulate
from typing import Literal

import click
import orjson
from optimizely.decision.optimizely_decision import OptimizelyDecision
from optimizely.event.event_processor import BaseEventProcessor
from optimizely.event.user_event import UserEvent
from optimizely.helpers.sdk_settings import OptimizelySdkSettings
from optimizely.optimizely import Optimizely
from optimizely.optimizely_user_context import UserAttributes
from prometheus_client import CollectorRegistry, start_http_server

from flagpost_publisher import Publisher
from flagpost_publisher.metrics import PublisherCollector
from flagpost_settings.urls import authority

FLAGS = ("checkout_redesign", "search_ranking", "dark_mode", "legacy_banner")

_LONGEST_SLEEP_SECONDS = 0.05
"""A signal is noticed after this long at most."""
_ZIPF_EXPONENT = 1.1
"""A few visitors cause most of the traffic, as on real sites."""
_ACCOUNTS = 20
_TRACK_EVENT_SHARE = 0.1
"""The share of visits in which the visitor also does something."""


class _NothingLeaves(BaseEventProcessor):
    """Replaces the SDK's own processor, which would send each impression to Optimizely."""

    def process(self, user_event: UserEvent) -> None:
        """The SDK still counts the impression as dispatched."""


def optimizely_client() -> Optimizely:
    """A client with the local datafile that makes no requests."""
    return Optimizely(
        datafile=files(__package__).joinpath("sample_datafile.json").read_text("utf-8"),
        event_processor=_NothingLeaves(),
        settings=OptimizelySdkSettings(odp_disabled=True),
    )


def variation_as_sent(decision: OptimizelyDecision) -> str | None:
    """The variation's name at Pendo; written here independently, to check Flagpost's own rule."""
    return decision.variation_key if decision.enabled else "off"


@dataclass(slots=True)
class Decided:
    """What the SDK decided, counted where decide() returns."""

    decisions: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    """By flag and variation as sent."""
    visitors: dict[tuple[str, str | None], set[str]] = field(default_factory=dict)

    def note(self, visitor_id: str, flag_key: str, decision: OptimizelyDecision) -> None:
        """Count one decision."""
        row = flag_key, variation_as_sent(decision)
        self.decisions[row] += 1
        self.visitors.setdefault(row, set()).add(visitor_id)

    def rows(self) -> list[dict[str, object]]:
        """Decisions, and the visitors they were made for, by flag and variation as sent."""
        return [
            {
                "flag_key": flag,
                "variation_key": variation,
                "decisions": self.decisions[flag, variation],
                "visitors": len(self.visitors[flag, variation]),
            }
            for flag, variation in sorted(self.decisions, key=str)
        ]


class Crowd:
    """Visitors who come at random, some often and most rarely; the same seed gives the same visits."""

    def __init__(self, visitors: int, seed: int) -> None:
        """`visitors`: how many there are, at least 1."""
        self.random = random.Random(seed)  # noqa: S311  repeatable traffic, no secrets
        self._visitors = range(visitors)
        self._popularity = list(accumulate((rank + 1) ** -_ZIPF_EXPONENT for rank in self._visitors))

    def next(self) -> int:
        """The number of the visitor who comes next."""
        return self.random.choices(self._visitors, cum_weights=self._popularity)[0]


class SampleApp:
    """Serves one visit after another."""

    def __init__(self, client: Optimizely, publisher: Publisher, crowd: Crowd) -> None:
        """The publisher is attached here."""
        publisher.attach(client)
        self._client, self._publisher, self._crowd = client, publisher, crowd
        self.decided = Decided()
        self.track_events = 0
        """Track events that the publisher accepted."""

    def visit(self) -> None:
        """One visitor comes, one flag is decided, and sometimes the visitor does something."""
        number = self._crowd.next()
        visitor_id, account_id = f"visitor-{number:05d}", f"account-{number % _ACCOUNTS}"
        flag_key = self._crowd.random.choice(FLAGS)
        user = self._client.create_user_context(visitor_id, UserAttributes({"account": account_id}))
        if user is None:
            raise RuntimeError("the SDK did not create a user context; is the datafile valid?")
        self.decided.note(visitor_id, flag_key, user.decide(flag_key))
        if self._crowd.random.random() < _TRACK_EVENT_SHARE:
            self._do_something(visitor_id, account_id)

    def _do_something(self, visitor_id: str, account_id: str) -> None:
        total = self._crowd.random.randint(5, 200)
        event, properties = self._crowd.random.choice(
            (
                ("page", {"url": "https://shop.example/search", "title": "Search"}),
                ("Product Viewed", {"product_id": f"p-{total}"}),
                ("Order Completed", {"order_id": f"o-{total}", "total": total, "products": [{"id": "p-1"}]}),
            )
        )
        self.track_events += self._publisher.track(visitor_id, event, properties, account_id=account_id)

    def report(self, kind: Literal["progress", "final"], seconds: float) -> None:
        """Write a JSON line on what happened so far; `seconds` since the start."""
        stats = self._publisher.stats()
        line = {
            "kind": kind,
            "seconds": round(seconds, 3),
            "decisions": self.decided.decisions.total(),
            "decisions_published": stats.accepted - self.track_events,
            "track_events": self.track_events,
            "rows": self.decided.rows(),
            "publisher": asdict(stats),
        }
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the application works, for how long, and how often it reports."""

    rate_per_second: float
    seconds: float
    report_seconds: float


def serve(app: SampleApp, pace: Pace, stopped: Callable[[], bool]) -> float:
    """Serve visits until the time is over or `stopped` returns True; returns the seconds that it took."""
    begin = time.monotonic()
    visits, report_at = 0, pace.report_seconds
    while (elapsed := time.monotonic() - begin) < pace.seconds and not stopped():
        if elapsed >= report_at:
            app.report("progress", elapsed)
            report_at = elapsed + pace.report_seconds
        due_in = visits / pace.rate_per_second - elapsed
        if due_in > 0:
            time.sleep(min(due_in, _LONGEST_SLEEP_SECONDS))
        else:
            app.visit()
            visits += 1
    return elapsed


class _Signals:
    """Notes a signal to stop. It raises no exception: a bare except in the SDK would swallow it."""

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self.came = True


def show_metrics(publisher: Publisher, host: str, port: int) -> None:
    """Serve the publisher's numbers at `/metrics`, from a thread that ends with the process.

    Raises:
        click.ClickException: the address cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(PublisherCollector(publisher))
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {authority(host, port)}: {error.strerror}; choose another address"
        ) from error


_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--bootstrap-servers", required=True, help="Kafka, HOST:PORT.")
@click.option("--topic", default="flagpost.events", show_default=True)
@click.option("--rate", type=_POSITIVE, default=50.0, show_default=True, help="Decisions per second.")
@click.option("--seconds", type=_POSITIVE, default=20.0, show_default=True, help="inf: until it is stopped.")
@click.option(
    "--report-seconds", type=_POSITIVE, default=0.2, show_default=True, help="Time between reports."
)
@click.option("--visitors", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--local-ttl",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Seconds within which the publisher removes duplicates of a decision; the consumer removes later ones.",
)
@click.option("--flush-seconds", type=_POSITIVE, default=10.0, show_default=True)
@click.option("--metrics-host", default="127.0.0.1", show_default=True)
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve /metrics on this port; default: not served."
)
def main(  # noqa: PLR0913  one for each option
    *,
    bootstrap_servers: str,
    topic: str,
    rate: float,
    seconds: float,
    report_seconds: float,
    visitors: int,
    seed: int,
    local_ttl: float,
    flush_seconds: float,
    metrics_host: str,
    metrics_port: int | None,
) -> None:
    """Make decisions for random visitors and publish them. Exits 1 when Kafka did not take all of them."""
    signals = _Signals()
    publisher = Publisher(
        bootstrap_servers=bootstrap_servers,
        topic=topic,
        service="sample-app",
        environment="demo",
        account_id="account",
        dedupe_ttl_seconds=local_ttl,
    )
    if metrics_port is not None:
        show_metrics(publisher, metrics_host, metrics_port)
    app = SampleApp(optimizely_client(), publisher, Crowd(visitors, seed))
    elapsed = serve(app, Pace(rate, seconds, report_seconds), lambda: signals.came)
    left = publisher.close(flush_seconds)
    app.report("final", elapsed)
    if left:
        raise click.ClickException(
            f"Kafka at {bootstrap_servers} did not take {left} events in {flush_seconds} s; is it running?"
        )


if __name__ == "__main__":
    main()
