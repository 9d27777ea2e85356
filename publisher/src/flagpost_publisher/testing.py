"""For the tests of services that publish: a Publisher that records, with assertions. It needs no Kafka.

    from flagpost_publisher.testing import RecordingPublisher

    publisher = RecordingPublisher(service="checkout")
    publisher.attach(optimizely_client)
    ...
    publisher.assert_decided("new_checkout", visitor_id="visitor-1", variation_key="treatment")

What it does until an event would go to Kafka is what `Publisher` does: it makes the same events, refuses the same,
and removes the same duplicates. It starts no thread and opens no connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from flagpost_publisher.publisher import Publisher
from flagpost_publisher.registry import event_headers
from flagpost_publisher.stats import PublisherStats
from flagpost_schemas import AccountMetadata, DecisionEvent, Decoder, TrackEvent, VisitorMetadata
from flagpost_schemas import variation_as_sent as _as_sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flagpost_publisher.errors import PublisherError
    from flagpost_publisher.per_process import OwnedHere
    from flagpost_schemas import Event

    Kind = TypeVar("Kind", bound=Event)

_NOBODY = "127.0.0.1:9"  # the port of "discard"; nothing connects


class RecordingPublisher(Publisher):
    """Accepts what `Publisher` accepts, and keeps it for the test."""

    def __init__(self, *, on_error: Callable[[Exception], object] | None = None, **arguments: Any) -> None:  # noqa: ANN401 - the Publisher's
        """`arguments`: any of `Publisher`'s; none is required. `on_error` is called at once."""
        self.events: list[Event] = []
        """What would have gone to Kafka, in order."""
        self.errors: list[PublisherError] = []
        """The errors passed to `on_error`."""
        self._tell = on_error
        super().__init__(**{"bootstrap_servers": _NOBODY, **arguments})

    @property
    def decisions(self) -> list[DecisionEvent]:
        """The decisions about flags."""
        return self._of(DecisionEvent)

    @property
    def tracks(self) -> list[TrackEvent]:
        """What visitors did."""
        return self._of(TrackEvent)

    @property
    def visitors(self) -> list[VisitorMetadata]:
        """Values of visitors' metadata."""
        return self._of(VisitorMetadata)

    @property
    def accounts(self) -> list[AccountMetadata]:
        """Values of accounts' metadata."""
        return self._of(AccountMetadata)

    def clear(self) -> None:
        """Forget what was recorded, but keep what duplicates are recognised by."""
        self.events.clear()
        self.errors.clear()

    # Assertions

    def assert_decided(
        self, flag_key: str, *, visitor_id: str | None = None, variation_key: str | None = None
    ) -> DecisionEvent:
        """The first published decision about the flag, for this visitor, with this variation as Pendo gets it.

        `variation_key`: `off` if the flag is not enabled. None matches anything.

        Raises:
            AssertionError: there is none; it lists those that there are.
        """
        for each in self.decisions:
            wanted: list[tuple[str | None, str | None]] = [
                (flag_key, each.flag_key),
                (visitor_id, each.visitor_id),
                (variation_key, _as_sent(each)),
            ]
            if all(asked in (None, has) for asked, has in wanted):
                return each
        wish = f"{flag_key!r} for {visitor_id or 'anybody'}: {variation_key or 'any variation'}"
        there = (f"{each.flag_key!r} for {each.visitor_id}: {_as_sent(each)}" for each in self.decisions)
        raise AssertionError(_missing(f"no decision {wish} was published", there))

    def assert_tracked(
        self, event: str, *, visitor_id: str | None = None, properties: Mapping[str, object] | None = None
    ) -> TrackEvent:
        """The first published track event of this name, for this visitor, with at least these properties.

        Raises:
            AssertionError: there is none; it lists those that there are.
        """
        wanted = {} if properties is None else properties
        for each in self.tracks:
            fits = wanted.items() <= each.properties.items()
            if each.event == event and visitor_id in (None, each.visitor_id) and fits:
                return each
        wish = f"{event!r} of {visitor_id or 'anybody'} with {dict(wanted)}"
        there = (f"{each.event!r} of {each.visitor_id} with {each.properties}" for each in self.tracks)
        raise AssertionError(_missing(f"no event {wish} was published", there))

    def assert_nothing_published(self) -> None:
        """Raise AssertionError if anything was published, and say what."""
        if self.events:
            raise AssertionError(
                _missing(f"{len(self.events)} events were published", map(repr, self.events))
            )

    def assert_no_errors(self) -> None:
        """Raise AssertionError if anything was refused or went wrong, and say what."""
        if self.errors:
            raise AssertionError(_missing(f"{len(self.errors)} errors were reported", map(str, self.errors)))

    # Instead of Kafka

    def flush(self, timeout_seconds: float = 10) -> int:
        """Nothing is left: 0."""
        del timeout_seconds
        return 0

    def close(self, timeout_seconds: float = 10) -> int:
        """Detach from all clients. Nothing is left: 0."""
        del timeout_seconds
        for attachment in list(self._attached):
            self.detach(attachment.client)
        return 0

    def stats(self) -> PublisherStats:
        """The counts of a Publisher after Kafka has acknowledged everything."""
        tally, count = self._here().tally, len(self.events)
        return PublisherStats(
            accepted=count,
            delivered=count,
            failed=0,
            queued=0,
            duplicates=tally.duplicates,
            refused=tally.refused,
        )

    def _output(self, here: OwnedHere, event_type: type[Event], key: bytes | None, body: bytes) -> None:
        del here, key
        self.events.append(Decoder().decode(event_headers(None)[event_type] + body))

    def _complain(self, error: PublisherError) -> None:
        self.errors.append(error)
        if self._tell is not None:
            self._tell(error)

    def _of(self, kind: type[Kind]) -> list[Kind]:
        return [each for each in self.events if isinstance(each, kind)]


def _missing(what: str, there: Iterable[str]) -> str:
    listed = "".join(f"\n  {each}" for each in there)
    return f"{what}; published were:{listed or ' none'}"
