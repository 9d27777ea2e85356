"""Produces records that confluent-kafka's own producer cannot: with header names that are not UTF-8.

In: a topic, key, value, and headers with names as bytes. Out: records in Kafka, through librdkafka's C interface;
clients in other languages may write such records.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

from flagpost_consumer.demo.embedded_kafka import library_path

PRODUCER = 0  # rd_kafka_type_t
TOPIC, KEY, VALUE, FLAGS, HEADER = 1, 5, 4, 7, 9  # rd_kafka_vtype_t
COPY = 2  # RD_KAFKA_MSG_F_COPY
REASON_BYTES = 512


class _Memory(ctypes.Structure):
    _fields_: ClassVar = [("pointer", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_char_p),
        ("size", ctypes.c_ssize_t),
    ]


class _Union(ctypes.Union):
    _fields_: ClassVar = [
        ("text", ctypes.c_char_p),
        ("number", ctypes.c_int),
        ("memory", _Memory),
        ("header", _Header),
        ("room", ctypes.c_char * 64),
    ]


class _Argument(ctypes.Structure):
    """rd_kafka_vu_t."""

    _fields_: ClassVar = [("kind", ctypes.c_int), ("u", _Union)]


class RawProducer:
    """A producer that takes header names as bytes."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._library = ctypes.CDLL(str(library_path()))
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("rd_kafka_conf_new", pointer, ()),
            ("rd_kafka_conf_set", ctypes.c_int, (pointer, text, text, text, ctypes.c_size_t)),
            ("rd_kafka_new", pointer, (ctypes.c_int, pointer, text, ctypes.c_size_t)),
            ("rd_kafka_produceva", pointer, (pointer, ctypes.POINTER(_Argument), ctypes.c_size_t)),
            ("rd_kafka_flush", ctypes.c_int, (pointer, ctypes.c_int)),
            ("rd_kafka_destroy", None, (pointer,)),
        ):
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        reason = ctypes.create_string_buffer(REASON_BYTES)
        settings = self._library.rd_kafka_conf_new()
        for key, value in ((b"bootstrap.servers", bootstrap_servers.encode()), (b"log_level", b"0")):
            self._library.rd_kafka_conf_set(settings, key, value, reason, REASON_BYTES)
        self._client = self._library.rd_kafka_new(PRODUCER, settings, reason, REASON_BYTES)
        assert self._client, reason.value

    def produce(
        self, topic: str, key: bytes | None, value: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Pass a record to librdkafka."""
        arguments = [_Argument(TOPIC, _Union(text=topic.encode())), _Argument(FLAGS, _Union(number=COPY))]
        arguments.append(_Argument(VALUE, _Union(memory=_Memory(value, len(value)))))
        if key is not None:
            arguments.append(_Argument(KEY, _Union(memory=_Memory(key, len(key)))))
        arguments += [
            _Argument(HEADER, _Union(header=_Header(name, data, len(data)))) for name, data in headers
        ]
        error = self._library.rd_kafka_produceva(
            self._client, (_Argument * len(arguments))(*arguments), len(arguments)
        )
        assert not error, "librdkafka took no record"

    def close(self) -> None:
        """Wait until Kafka has acknowledged every record."""
        left = self._library.rd_kafka_flush(self._client, 30_000)
        self._library.rd_kafka_destroy(self._client)
        assert left == 0, f"{left} records were not written"
