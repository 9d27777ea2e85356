"""Logging: one line for each entry on stderr, as JSON or, on a terminal, for people.

In: the section `log`, and the log calls of this program and its libraries. Out: lines with a UTC timestamp, a level,
the logger's name and the event. Tracebacks never show local variables, because they contain ids and secrets.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable
from io import StringIO
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson
import structlog
from cachetools import TTLCache
from structlog.typing import EventDict, ExcInfo, Processor

from flagpost_settings.log_section import LogFormat, LogSettings
from flagpost_settings.plain_fields import plain
from flagpost_settings.visible import visible, visible_json, visible_lines

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

LIBRDKAFKA: Final = "librdkafka"
OURS: Final = (
    "flagpost_settings",
    "flagpost_schemas",
    "flagpost_kafka",
    "flagpost_publisher",
    "flagpost_consumer",
    LIBRDKAFKA,
)
"""The loggers to which `log.level` applies; other libraries are logged from warnings on."""

_EXCEPTION: Final = frozenset({"exc_info", "stack_info"})

REPEAT_SECONDS: Final = 30.0
"""The same text is logged again after this time at the earliest."""


def configure_logging(settings: LogSettings, stream: TextIO) -> None:
    """Send every log line of the process to the stream; may be called again."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    before: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderer(settings.format or _fitting(stream)),
            ],
        )
    )
    logging.basicConfig(level=_librarys(level), handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.getLogger(LIBRDKAFKA).filters = [Seldom()]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def kafka_logger() -> logging.Logger:
    """The logger for librdkafka clients: pass it as `Consumer(config, logger=kafka_logger())`."""
    return logging.getLogger(LIBRDKAFKA)


def say_loop_error(_: AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler. asyncio's own shows tasks and errors by repr(), with ids in them."""
    error = context.get("exception")
    told = {} if error is None else where(error)
    structlog.get_logger(__name__).error("the event loop reports an error", said=context["message"], **told)


def where(error: BaseException) -> dict[str, str]:
    """An error's kind, and where in the program it was raised. Its own text may contain what others sent."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    return {"error": type(error).__name__, "at": place}


class Lately:
    """Remembers what was logged in the last half minute, at most 256 different things. Threads may share it."""

    def __init__(self) -> None:
        self._said: TTLCache[Hashable, bool] = TTLCache(256, REPEAT_SECONDS)
        self._lock = Lock()

    def is_news(self, said: Hashable) -> bool:
        """Whether this was not logged lately; it counts as logged from now on."""
        with self._lock:
            if said in self._said:
                return False
            self._said[said] = True
            return True


class Seldom(logging.Filter):
    """Passes the same text only once in a while: librdkafka reports each attempt to connect, twenty a second."""

    _VARYING = re.compile(r"\(after \d+ms [^)]*\)")

    def __init__(self) -> None:
        super().__init__()
        self._lately = Lately()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record; called by whichever thread logs."""
        return self._lately.is_news((record.levelno, self._VARYING.sub("", record.getMessage())))


def _librarys(level: int) -> int:
    """Libraries log the payload at debug level, and every connection at info: these are kept out of our log."""
    return max(level, logging.WARNING)


def _fitting(stream: TextIO) -> LogFormat:
    return LogFormat.CONSOLE if stream.isatty() else LogFormat.JSON


def _renderer(log_format: LogFormat) -> list[Processor]:
    if log_format is LogFormat.CONSOLE:
        return [
            _plain_values,
            _visible_values,
            structlog.dev.ConsoleRenderer(exception_formatter=_visible_traceback),
        ]
    return [
        structlog.processors.format_exc_info,
        _plain_values,
        structlog.processors.JSONRenderer(serializer=_json),
    ]


def _json(entry: object, **_: object) -> str:
    return visible_json(orjson.dumps(entry))


def _plain_values(_: object, __: str, entry: EventDict) -> EventDict:
    """Exceptions are left to another renderer."""
    return {key: value if key in _EXCEPTION else plain(value) for key, value in entry.items()}


def _visible_values(_: object, __: str, entry: EventDict) -> EventDict:
    """Others' words in a log must not control the terminal; lists are shown by repr(), which escapes."""
    return {key: visible(value) if isinstance(value, str) else value for key, value in entry.items()}


def _visible_traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(visible_lines(text.getvalue()))
