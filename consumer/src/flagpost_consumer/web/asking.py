"""Questions that are answered from Kafka on request: one dead letter, one visitor.

In: a question. Out: its answer, or why there is none. Questions run in threads, a few at a time: however many people
ask at once, the page is not delayed and the connections are bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.commands.dead_letters.reading import NoSuchDeadLetter, find
from flagpost_consumer.commands.dead_letters.records import Place
from flagpost_consumer.commands.dead_letters.views import found_as_json
from flagpost_consumer.commands.explain.command import explanation_of
from flagpost_consumer.commands.explain.document import as_document
from flagpost_consumer.commands.explain.finding import Finder
from flagpost_consumer.commands.explain.subject import Subject
from flagpost_consumer.commands.reconcile.settled import LaterRelease
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.settings import Settings, ledger_ids
from flagpost_schemas import UnknownSchema

AT_ONCE: Final = 2
WAITING: Final = 8
ANSWER_SECONDS: Final = 30.0

NOT_ASKED: Final = (None, "")
"""The page has no key for Pendo, and asks it nothing."""

Answer = TypeVar("Answer")


class NotAnswered(Exception):  # noqa: N818 (a fact, told by an exception)
    """Why a question has no answer: an HTTP status, and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Asking:
    """Asks Kafka."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def dead_letter(self, place: str) -> dict[str, Any]:
        """One dead letter in full, like `flagpost dead-letters show --json`. Raises NotAnswered."""
        try:
            found = Place.parse(place)
        except ValueError as error:
            raise NotAnswered(400, str(error)) from None
        return await self.ask(lambda: self._read_letter(found))

    async def visitor(self, visitor_id: str) -> dict[str, Any]:
        """Everything that became of a visitor's events, like `flagpost explain --json`. Raises NotAnswered."""
        return await self.ask(lambda: self._explain(visitor_id))

    def _explain(self, visitor_id: str) -> dict[str, Any]:
        settings = self._settings
        subject = Subject.of(visitor_id, ledger_ids(settings), is_account=False)
        with TopicReader(settings.kafka) as reader:
            found = Finder(reader, settings, subject).find(None, everywhere=False)
        return as_document(explanation_of(settings, subject, found, settings.web.consumers, None, NOT_ASKED))

    def _read_letter(self, place: Place) -> dict[str, Any]:
        kafka = self._settings.kafka
        with TopicReader(kafka) as reader:
            found = find(reader, kafka.dead_letter_topic, place)
        return found_as_json(found, Values(kafka.schema_registry))

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """Run a blocking question in a thread. Raises NotAnswered."""
        if self._waiting >= WAITING:
            raise NotAnswered(503, "Too many questions at this moment; retry in a few seconds.")
        self._waiting += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._turns:
                return await asyncio.to_thread(question)
        except NoSuchDeadLetter as error:
            raise NotAnswered(404, str(error)) from None
        except (UnknownSchema, LaterRelease) as error:
            raise NotAnswered(503, str(error)) from None
        except KafkaUnavailable as error:
            raise NotAnswered(503, f"Kafka: {error}") from None
        except RegistryNotAnswering as error:
            raise NotAnswered(503, f"The schema registry does not answer: {error}") from None
        except TimeoutError:
            raise NotAnswered(
                504, f"Kafka did not answer within {ANSWER_SECONDS:g} s; retry later."
            ) from None
        finally:
            self._waiting -= 1
