from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from flagpost_consumer.settings import Secret, SecretSource, SettingsError
from flagpost_settings.secrets import HEADER_TEXT

HUNTER = "hunter2-hunter2"


class Holder(BaseModel):
    secret: Secret


def _kubernetes_mount(directory: Path, content: str) -> Path:
    """Mount a secret as kubelet does: key -> ..data/key, ..data -> a directory that is replaced as a whole."""
    _kubernetes_swap(directory, content)
    key = directory / "key"
    key.symlink_to(Path("..data") / "key")
    return key


def _kubernetes_swap(directory: Path, content: str) -> None:
    version = directory / f"..version-{len(list(directory.iterdir()))}"
    version.mkdir()
    (version / "key").write_text(content)
    link = directory / "..new"
    link.symlink_to(version.name)
    link.replace(directory / "..data")


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        lambda secret: json.dumps({"secret": secret}, default=str),
        lambda secret: repr(Holder(secret=secret)),
        lambda secret: Holder(secret=secret).model_dump_json(),
        lambda secret: str(Holder(secret=secret).model_dump()),
    ],
)
def test_a_secret_shows_its_value_nowhere(show: Callable[[object], str]) -> None:
    assert HUNTER not in show(Secret(HUNTER))
    assert "***" in show(Secret(HUNTER))


def test_a_logged_secret_is_three_stars(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flagpost_consumer").warning("with %s and %r", Secret(HUNTER), Secret(HUNTER))
    assert caplog.messages == ["with *** and Secret('***')"]


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(HUNTER))
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(Secret(HUNTER))


def test_secrets_are_equal_by_value() -> None:
    assert Secret(HUNTER) == Secret(HUNTER)
    assert Secret(HUNTER) != Secret("other")
    assert Secret(HUNTER) != HUNTER
    assert len({Secret(HUNTER), Secret(HUNTER)}) == 1


def test_a_source_of_a_value_returns_it_and_never_changes() -> None:
    source = SecretSource("pendo.track_secret", Secret(HUNTER), HEADER_TEXT)
    assert source.current() == HUNTER
    assert not source.changed()
    assert HUNTER not in repr(source)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_one_final_newline_is_not_part_of_the_secret(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes((HUNTER + ending).encode())
    assert SecretSource("pendo.track_secret_file", file, HEADER_TEXT).current() == HUNTER


def test_a_change_is_noticed_through_a_symlink_swap(tmp_path: Path) -> None:
    source = SecretSource("pendo.track_secret_file", _kubernetes_mount(tmp_path, "old\n"))
    assert source.current() == "old"
    assert not source.changed()
    _kubernetes_swap(tmp_path, "new\n")
    assert source.changed()
    assert source.current() == "new"
    assert not source.changed()


def test_a_swap_that_keeps_the_content_is_not_a_change(tmp_path: Path) -> None:
    source = SecretSource("pendo.track_secret_file", _kubernetes_mount(tmp_path, "same\n"))
    source.current()
    _kubernetes_swap(tmp_path, "same")
    assert not source.changed()


def test_a_file_that_is_missing_for_a_moment_is_not_a_change(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one")
    source = SecretSource("pendo.track_secret_file", file)
    source.current()
    file.unlink()
    assert not source.changed()
    file.write_text("two")
    assert source.changed()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"two\nlines\n", "more than one line"),
        (b"a space", "spaces"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=says) as caught:
        SecretSource("pendo.track_secret_file", file, HEADER_TEXT).current()
    assert "pendo.track_secret_file" in str(caught.value)
    assert str(file) in str(caught.value)


def test_an_invalid_path_is_named() -> None:
    with pytest.raises(SettingsError, match="NUL character"):
        SecretSource("pendo.track_secret_file", Path("a\0b")).current()


def test_keys_of_several_lines_are_kept_whole(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("-----BEGIN-----\nabc\n-----END-----\n")
    source = SecretSource("kafka.properties_files.ssl.key.pem", file)
    assert source.current() == "-----BEGIN-----\nabc\n-----END-----"
