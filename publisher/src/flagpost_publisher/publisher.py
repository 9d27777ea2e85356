"""The Publisher: what an application service uses.

In: an Optimizely client's decisions, events and metadata. Out: records on Flagpost's events topic, and counts and
errors that say what became of each. After construction nothing here raises or blocks.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple

from flagpost_publisher.arguments import Options, arguments_from, checked, seconds_of
from flagpost_publisher.attachment import Attachment
from flagpost_publisher.complaints import say_where_nobody_logs
from flagpost_publisher.duplicates import Claim, claim_of
from flagpost_publisher.errors import EventRefused, PublisherError
from flagpost_publisher.event_bodies import event_body
from flagpost_publisher.listener import DecisionReader, claim_in, consent_of, exposure_in, now_ms
from flagpost_publisher.per_process import OwnedHere, PerProcess
from flagpost_publisher.processes import enrol
from flagpost_publisher.producer import producer_config, require_usable
from flagpost_publisher.stats import PublisherStats
from flagpost_schemas import (
    AccountMetadata,
    DecisionEvent,
    EncodeError,
    MetadataGroup,
    Source,
    TrackEvent,
    VisitorMetadata,
    flatten,
    new_event_id,
    partition_key,
)
from flagpost_schemas.edge_rules import DEFAULT_MAX_EVENT_BYTES, too_large
from flagpost_schemas.exposures import exposure_of
from flagpost_schemas.wire import CONFLUENT_HEADER_BYTES, SINGLE_OBJECT_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType
    from typing import Self

    from flagpost_publisher.arguments import Attributes, ConsentSource, IdSource
    from flagpost_publisher.impressions import Fate
    from flagpost_publisher.rule_types import RuleTypes
    from flagpost_schemas import Context, Event, MetadataValue
    from flagpost_schemas.exposures import Exposure

Arguments = TypeVarTuple("Arguments")


class Publisher:
    """Publishes Optimizely's decisions, and other events, for Flagpost.

        publisher = Publisher(bootstrap_servers="localhost:9092", service="checkout")
        publisher.attach(optimizely_client)  # before the first decide()

    Threads may share it, and a process that forks may go on using it in parent and children. A context
    manager: leaving it closes it.
    """

    def __init__(  # noqa: PLR0913 - each has a default but one, and is given by name
        self,
        *,
        bootstrap_servers: str,
        topic: str = "flagpost.events",
        service: str | None = None,
        environment: str | None = None,
        schema_registry_url: str | None = None,
        visitor_id: IdSource | None = None,
        account_id: IdSource | None = None,
        attributes: Collection[str] = (),
        dedupe_ttl_seconds: float = 60,
        dedupe_max_entries: int = 100_000,
        queue_max_messages: int = 100_000,
        consent: ConsentSource | None = None,
        properties: Mapping[str, Any] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        impressions_topic: str | None = None,
    ) -> None:
        """Check the arguments; connect to nothing. Raises TypeError or ValueError naming the argument.

        Args:
            bootstrap_servers: Kafka's addresses, `host:port,…`.
            topic: Flagpost's events topic.
            service: this service's name, for `source`.
            environment: this service's environment, such as production, for `source`.
            schema_registry_url: publish in Confluent's wire format, with schema ids from this registry.
            visitor_id: Pendo's visitor id: a user attribute's name, or a callable `(user_id, attributes)`; without it
            Optimizely's user id. A decision for which it returns None is refused.
            account_id: Pendo's account id, in the same way; None is no account.
            attributes: names of the user attributes to include; by default none, because they may be personal data.
            dedupe_ttl_seconds: how long an unchanged decision is not published again; 0: it always is.
            dedupe_max_entries: how many (visitor, flag) are remembered for that.
            queue_max_messages: how many events may wait for Kafka; further ones are refused.
            consent: a map of category to bool, or a callable `(user_id, attributes)` that returns one.
            properties: librdkafka properties, such as TLS and SASL; those that Flagpost sets itself are refused, and
            callables other than `oauth_cb`.
            on_error: called about refused and lost events: an exception with `kind`, `count` and a message, at most
            every ten seconds for each kind, from the publisher's own thread. Its exceptions are ignored, and it may
            close the publisher.
            max_event_bytes: the largest event, key and value together; a larger one is refused. Use the value of the
            consumer's `kafka.max_event_bytes`.
            impressions_topic: the topic to which the Publisher writes, once a minute, how many impressions the SDK
            has sent; `flagpost reconcile` compares them. Without it nothing is counted.
        """
        self._options = checked(
            Options(
                bootstrap_servers=bootstrap_servers,
                topic=topic,
                service=service,
                environment=environment,
                schema_registry_url=schema_registry_url,
                visitor_id=visitor_id,
                account_id=account_id,
                attributes=attributes,
                dedupe_ttl_seconds=dedupe_ttl_seconds,
                dedupe_max_entries=dedupe_max_entries,
                queue_max_messages=queue_max_messages,
                consent=consent,
                properties={} if properties is None else properties,
                on_error=on_error,
                max_event_bytes=max_event_bytes,
                impressions_topic=impressions_topic,
            )
        )
        require_usable(producer_config(self._options))
        self._sdk_source = self._source("optimizely-sdk")
        self._own_source = self._source("flagpost-publisher")
        self._header_bytes = (
            SINGLE_OBJECT_HEADER_BYTES if schema_registry_url is None else CONFLUENT_HEADER_BYTES
        )
        self._attached: list[Attachment] = []
        self._reader = DecisionReader(self._options, self._sdk_source, self._complain)
        self._here = PerProcess(lambda: OwnedHere(self._options, self._sdk_source, self._undelivered))
        enrol(self)

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:  # noqa: ANN401 - the constructor's
        """A Publisher configured by the environment (FLAGPOST_KAFKA__BOOTSTRAP_SERVERS, …); `arguments` win.

        Raises ValueError naming the variable, and what the constructor raises.
        """
        return cls(**{**arguments_from(os.environ), **arguments})

    def attach(self, client: Any) -> int:  # noqa: ANN401 - optimizely is an extra
        """Publish the decisions of an Optimizely `client` from now on.

        Returns the listener's id; -1, which the SDK also uses, if it could not be added: `on_error` gets the reason,
        or the log; if nobody has set up logging, stderr.
        """
        known = next((each for each in self._attached if each.client is client), None)
        on_impressions = None if self._options.impressions_topic is None else self._on_impressions
        attachment = known or Attachment(client, self._on_decision, on_impressions, self._complain)
        try:
            listener_id = attachment.listen()
        except Exception as error:  # noqa: BLE001 - nothing raises into the application
            attachment.leave()
            self._complain_of_setup(_not_attached(_why_no_client(error, client)))
            return -1
        if listener_id == -1:
            self._complain_of_setup(_not_attached(_REFUSES if known is None else _ATTACHED_ALREADY))
        elif known is None:
            self._attached.append(attachment)
        return listener_id

    def detach(self, client: Any) -> None:  # noqa: ANN401 - optimizely is an extra
        """Stop publishing the decisions of `client`."""
        for attachment in [each for each in self._attached if each.client is client]:
            self._attached.remove(attachment)
            attachment.leave()

    def publish(self, event: Event) -> bool:
        """Publish `event` unchanged. Returns False if it is refused. A duplicate decision returns True: nothing is
        missing.
        """
        return self._attempt(self._take, event)

    def track(
        self,
        visitor_id: str,
        event: str,
        properties: Mapping[str, Any] | None = None,
        *,
        account_id: str | None = None,
        occurred_at: int | None = None,
        context: Context | None = None,
    ) -> bool:
        """Publish that a visitor did something. Returns False if it is refused.

        Nested `properties` are flattened (see `flagpost_schemas.flatten`). `occurred_at`: epoch milliseconds, default
        now.
        """
        return self._attempt(
            lambda: self._send(
                TrackEvent(
                    **self._shared(visitor_id, occurred_at, context),
                    account_id=account_id,
                    visitor_id=_required(visitor_id, "visitor_id"),
                    event=event,
                    properties=flatten(properties or {}),
                )
            )
        )

    def visitor(
        self,
        visitor_id: str,
        values: Mapping[str, MetadataValue],
        *,
        group: str = MetadataGroup.CUSTOM,
        account_id: str | None = None,
        occurred_at: int | None = None,
        context: Context | None = None,
    ) -> bool:
        """Publish values of a visitor's metadata fields, scalars or lists of strings. Returns False if they are
        refused.

        `group`: `custom` or `agent`, Pendo's groups. `occurred_at`: epoch milliseconds, default now.
        """
        return self._attempt(
            lambda: self._send(
                VisitorMetadata(
                    **self._shared(visitor_id, occurred_at, context),
                    account_id=account_id,
                    visitor_id=_required(visitor_id, "visitor_id"),
                    group=MetadataGroup(group),
                    values=dict(values),
                )
            )
        )

    def account(
        self,
        account_id: str,
        values: Mapping[str, MetadataValue],
        *,
        group: str = MetadataGroup.CUSTOM,
        occurred_at: int | None = None,
        context: Context | None = None,
    ) -> bool:
        """Publish values of an account's metadata fields, like `visitor`. Returns False if they are refused."""
        return self._attempt(
            lambda: self._send(
                AccountMetadata(
                    **self._shared(None, occurred_at, context),
                    account_id=_required(account_id, "account_id"),
                    group=MetadataGroup(group),
                    values=dict(values),
                )
            )
        )

    def flush(self, timeout_seconds: float = 10) -> int:
        """Wait until Kafka has acknowledged everything, at most `timeout_seconds`. Returns how many events
        are left.
        """
        return self._here().output.flush(seconds_of(timeout_seconds))

    def close(self, timeout_seconds: float = 10) -> int:
        """Detach from all clients, flush, and stop. Returns how many events were left: they count as failed."""
        for attachment in list(self._attached):
            self.detach(attachment.client)
        timeout_seconds = seconds_of(timeout_seconds)
        deadline = monotonic() + timeout_seconds
        here = self._here()
        left = here.output.close(timeout_seconds - here.reporting.seconds_to_finish(timeout_seconds))
        here.reporting.finish(deadline - monotonic())
        return left

    def stats(self) -> PublisherStats:
        """What became of this process's events so far."""
        here = self._here()
        return replace(here.output.stats(), duplicates=here.tally.duplicates, refused=here.tally.refused)

    def __enter__(self) -> Self:
        """Enter the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the publisher."""
        self.close()

    # Called by `processes`.

    def prepare_fork(self) -> None:
        """Before a fork: let connection attempts end that must not be forked."""
        self._here().output.let_connect()
        self._here().reporting.let_connect()

    def begin_anew(self) -> None:
        """In a forked child: leave the parent's connection to the parent, count from 0.

        The first event would do it as well. It is done here before the child can drop the publisher, and with it the
        parent's producer.
        """
        self._here()

    def end(self, timeout_seconds: float) -> None:
        """At the end of the process: send what can be sent in time."""
        deadline = monotonic() + timeout_seconds
        self._here().output.end(timeout_seconds)
        self._here().reporting.finish(deadline - monotonic())

    # Inside.

    def _source(self, distribution: str) -> Source:
        try:
            installed = version(distribution)
        except PackageNotFoundError:
            installed = None
        return Source(
            service=self._options.service,
            environment=self._options.environment,
            sdk=distribution,
            sdk_version=installed,
        )

    def _shared(
        self, visitor_id: str | None, occurred_at: int | None, context: Context | None
    ) -> dict[str, Any]:
        """The fields of every event that is made here, whatever its kind."""
        consent = self._options.consent
        has_consent = visitor_id is not None or not callable(
            consent
        )  # an account has no user for the callable
        return {
            "event_id": new_event_id(),
            "occurred_at": now_ms() if occurred_at is None else occurred_at,
            "context": context,
            "consent": consent_of(self._options, visitor_id or "", {}) if has_consent else None,
            "source": self._own_source,
        }

    def _on_decision(
        self,
        user_id: str,
        attributes: Attributes,
        decision_info: Mapping[str, Any],
        rule_type: str | None,
    ) -> None:
        """An attached client has decided; called within decide()."""
        try:
            known = attributes or {}
            visitor_id = self._reader.visitor_id(user_id, known)
            claim = claim_in(visitor_id, decision_info, rule_type)
            here = self._here()
            bits, body = here.random_bits(74), self._reader.body
            self._send_once(here, claim, body, bits, visitor_id, user_id, known, decision_info, rule_type)
        except Exception as error:  # noqa: BLE001 - nothing raises into the application
            reason = self._refuse(error).kind
            with contextlib.suppress(Exception):
                claim, exposure = claim_in("", decision_info, rule_type), exposure_in(user_id, decision_info)
                self._note_lost("refused", reason, claim, exposure)

    def _on_impressions(self, impressions: Mapping[str, Any], rules: RuleTypes) -> None:
        """An attached client sends impressions to Optimizely; may be called within decide()."""
        self._here().impressions.hear(impressions, rules)

    def _note_lost(self, fate: Fate, reason: str, claim: Claim, exposure: Exposure) -> None:
        """A decision with this `claim` is not on the topic, and Optimizely may know of it."""
        if self._options.impressions_topic is not None:
            self._here().impressions.note_lost(fate, reason, claim[0][1], claim[1], exposure)

    def _take(self, event: Event) -> None:
        if not isinstance(event, DecisionEvent):
            self._send(event)
            return
        try:
            self._send_once(self._here(), claim_of(event), event_body, event)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._note_lost("refused", _refusal(error).kind, claim_of(event), _exposure(event))
            raise

    def _attempt(self, action: Callable[[*Arguments], None], *arguments: *Arguments) -> bool:
        """Run something that may refuse an event; returns False if it did."""
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001 - nothing raises into the application
            self._refuse(error)
            return False
        return True

    def _refuse(self, error: Exception) -> PublisherError:
        self._here().tally.add_refused()
        refusal = _refusal(error)
        self._complain(refusal)
        return refusal

    def _send_once(
        self, here: OwnedHere, claim: Claim, body: Callable[[*Arguments], bytes], *arguments: *Arguments
    ) -> None:
        """Send a decision with this `claim` and the body `body(*arguments)`, unless it is a duplicate."""
        if not here.duplicates.is_news(claim):
            here.tally.add_duplicate()
            if self._options.impressions_topic is not None:
                here.impressions.note_duplicate(claim[0][1], claim[1])
            return
        try:
            written = body(*arguments)
            self._hand_over(here, DecisionEvent, claim[0][0].encode(), written)
        except BaseException:  # also what interrupts: gevent.Timeout, KeyboardInterrupt
            here.duplicates.forget(claim)
            raise

    def _send(self, event: Event) -> None:
        self._hand_over(self._here(), type(event), partition_key(event), event_body(event))

    def _hand_over(self, here: OwnedHere, event_type: type[Event], key: bytes | None, body: bytes) -> None:
        wrong = too_large(key, self._header_bytes + len(body), self._options.max_event_bytes)
        if wrong is not None:
            raise EventRefused("too_large", f"an event {wrong}; publish a smaller event: see max_event_bytes")
        self._output(here, event_type, key, body)

    def _output(self, here: OwnedHere, event_type: type[Event], key: bytes | None, body: bytes) -> None:
        """Where an accepted event goes; the Publisher for tests records it instead."""
        here.output.send(event_type, key, body)

    def _undelivered(self, event: Event | None, reason: str) -> None:
        here = self._here()
        if event is None:  # some are not remembered, so what is known of all others is no longer certain
            here.forget_duplicates(self._options)
        elif isinstance(event, DecisionEvent):
            here.duplicates.forget(claim_of(event))
            self._note_lost("failed", reason, claim_of(event), _exposure(event))

    def _complain(self, error: PublisherError) -> None:
        """Have `error` reported by the thread, which may not run yet."""
        here = self._here()
        here.complaints.note(error)
        with contextlib.suppress(Exception):
            here.output.start()

    def _complain_of_setup(self, error: PublisherError) -> None:
        """The same for a mistake in the program, which its author should see at once."""
        self._complain(error)
        if self._options.on_error is None:
            say_where_nobody_logs(error)


def _exposure(event: DecisionEvent) -> Exposure:
    return exposure_of(event.experiment_id, event.variation_id, event.visitor_id)


def _required(identity: str | None, name: str) -> str:
    if identity is None:
        raise EventRefused("no_" + name, f"{name} is None; give an id")
    return identity


_ATTACHED_ALREADY: Final = "the client is attached already; attach it once"
_REFUSES: Final = "the client's notification center did not accept the listener; the SDK's log says why"


def _not_attached(why: str) -> PublisherError:
    return PublisherError("attach", f"attach() has added no listener: {why}")


def _why_no_client(error: Exception, client: object) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "optimizely":
        return "the Optimizely SDK is not installed; pip install 'flagpost-publisher[optimizely]'"
    return (
        f"{type(error).__name__} was raised, because the given client is of type {type(client).__name__}; "
        "give an optimizely.optimizely.Optimizely"
    )


def _refusal(error: Exception) -> PublisherError:
    if isinstance(error, PublisherError):
        return error
    if isinstance(error, EncodeError):
        return EventRefused("invalid", f"an event does not fit its schema: {error}")
    refusal = EventRefused(
        "raised", f"{type(error).__name__} was raised while an event was created; see __cause__"
    )
    refusal.__cause__ = error
    return refusal
