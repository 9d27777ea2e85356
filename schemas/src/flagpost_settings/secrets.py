"""Secrets: values that no log and no repr shows, from the settings or from a file that may change.

In: a value, or the path of a file. Out: `SecretSource.current()`, the text to use now, and `changed()`, whether the
file's content has changed. Files are opened by path each time, so that the symlink swaps by which Kubernetes updates
a mounted secret are noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from flagpost_settings.problems import Problem, SettingsError


@dataclass(frozen=True, slots=True)
class SecretForm:
    """The form of a secret's text."""

    pattern: re.Pattern[str]
    """What the whole text must match."""
    otherwise: str
    """What is wrong with a text of another form, and what to do."""


HEADER_TEXT: Final = SecretForm(
    re.compile(r"[\x21-\x7e]+"),
    "holds more than one line, spaces, or characters other than plain ASCII; give only the secret, on one line",
)
"""Possible values of an HTTP header: visible ASCII."""

ANY_TEXT: Final = SecretForm(
    re.compile(r"[^\0]+"), "holds a NUL character; write the secret there as UTF-8 text"
)
"""Any non-empty text: passwords, and keys of several lines. librdkafka would cut them off at a NUL."""

LONG_TEXT: Final = SecretForm(
    re.compile(r"[^\0]{32,}", re.DOTALL),
    "has fewer than 32 characters; make one: openssl rand -hex 32",
)
"""A key that cannot be guessed."""


@final
class Secret:
    """A text that is shown only by `reveal`: never by repr, str, format, JSON or pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keeps `value`."""
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        """Always three stars."""
        return "Secret('***')"

    def __str__(self) -> str:
        """Always three stars."""
        return "***"

    def __eq__(self, other: object) -> bool:
        """Compares by value."""
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        """Consistent with `__eq__`."""
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled: that would put the secret in a file.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Secret is not pickled; pass its source instead")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Created from a non-empty text; dumped as three stars."""
        return core_schema.no_info_plain_validator_function(
            cls._parse,
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    @classmethod
    def _parse(cls, value: object) -> Secret:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError("a secret should be a text; put it in quotes")  # noqa: TRY004 (pydantic's contract)
        if not value:
            raise ValueError("it is empty; leave it out, or set it to the secret")
        return cls(value)


class SecretSource:
    """Where a secret is read from: the settings themselves, or a file."""

    def __init__(self, key: str, given: Secret | Path, form: SecretForm = ANY_TEXT) -> None:
        """Reads nothing yet.

        Args:
            key: the setting, for error texts; a file's ends in `_file`.
            given: the secret, or the path of the file with it.
            form: the form of the text.
        """
        self._key = key
        self._given = given
        self._form = form
        self._last_seen: str | None = None

    def __repr__(self) -> str:
        """The setting's name; never its value."""
        return f"SecretSource({self._key!r})"

    @property
    def key(self) -> str:
        """The setting's name."""
        return self._key

    def current(self) -> str:
        """The present secret.

        Raises:
            SettingsError: the file cannot be read, is empty, or has another form.
        """
        text = self._read()
        self._last_seen = text
        return text

    def changed(self) -> bool:
        """Whether the content differs from what `current` last returned; False while the file is unreadable.

        It reads one small file: cheap enough for every few seconds.
        """
        try:
            return self._read() != self._last_seen
        except SettingsError:
            return False

    def _read(self) -> str:
        text = self._given.reveal() if isinstance(self._given, Secret) else self._read_file(self._given)
        if not self._form.pattern.fullmatch(text):
            wrong = self._form.otherwise if text else "is empty; set it"
            raise self._error(f"the secret {wrong}")
        return text

    def _read_file(self, path: Path) -> str:
        try:
            text = self._read_bytes(path).decode()
        except UnicodeDecodeError:
            raise self._error("is not UTF-8 text; write the secret there as text") from None
        return text.removesuffix("\n").removesuffix("\r")

    def _read_bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise self._error(
                f"cannot be read ({error.strerror}); mount it, or fix its path or rights"
            ) from None
        except ValueError:
            raise self._error("is not a path: it holds a NUL character; give the file's path") from None

    def _error(self, text: str) -> SettingsError:
        origin = "" if isinstance(self._given, Secret) else str(self._given)
        return SettingsError([Problem(self._key, origin, text)])


class SecretListSource(SecretSource):
    """Where several secrets are read from, one a line, of which some may be invalid."""

    def lines(self) -> tuple[str, ...]:
        """Each line that is not empty, in its place; an empty text if it cannot be a secret.

        Raises:
            SettingsError: the file cannot be read, or has no such line.
        """
        given = self._given
        # A byte that is not UTF-8 spoils only its own line: no secret contains the replacement character.
        text = (
            given.reveal() if isinstance(given, Secret) else self._read_bytes(given).decode(errors="replace")
        )
        lines = [line for line in (each.removesuffix("\r") for each in text.split("\n")) if line]
        if not lines:
            raise self._error("the secret is empty; set it")
        return tuple(line if self._form.pattern.fullmatch(line) else "" for line in lines)

    @property
    def otherwise(self) -> str:
        """What is wrong with a line that is not a secret, and what to do."""
        return self._form.otherwise

    def _read(self) -> str:
        usable = [line for line in self.lines() if line]
        if not usable:
            raise self._error(f"the secret {self._form.otherwise}")
        return "\n".join(usable)


def source_of(key: str, value: Secret | None, path: str | None, form: SecretForm) -> SecretSource | None:
    """Where the secret `key` is read from: its own setting, or the file of `<key>_file`; None: it is not set."""
    if value is not None:
        return SecretSource(key, value, form)
    return None if path is None else SecretSource(f"{key}_file", Path(path), form)


def list_source_of(
    key: str, value: Secret | None, path: str | None, form: SecretForm
) -> SecretListSource | None:
    """The same for several secrets, one a line; `form` is that of each."""
    if value is not None:
        return SecretListSource(key, value, form)
    return None if path is None else SecretListSource(f"{key}_file", Path(path), form)
