"""aiohttp's inner parts that the HTTP adapter uses are named in its two modules and exist.

Nothing else uses inner parts, except our HTTP server.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from itertools import chain
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage

from flagpost_consumer.adapters.http import answers as http_answers
from flagpost_consumer.adapters.http import client as http_client

ROOT = Path(__file__).parents[2]
MODULES = [http_client, http_answers]
PUBLIC = {"aiohttp", "aiohttp.web", "aiohttp.abc", "aiohttp.client_exceptions"}
PARTS: dict[type, dict[str, list[str] | None]] = {
    aiohttp.ClientRequest: {
        "headers": None,
        "url": None,
        "is_ssl": ["self"],
        "connection_key": None,
        "update_proxy": ["self", "proxy", "proxy_auth", "proxy_headers"],
    },
    aiohttp.TCPConnector: {"connect": ["self", "req", "traces", "timeout"]},
    Connection: {"protocol": None},
    ResponseHandler: {"set_parser": ["self", "parser", "payload", "data_received_cb"]},
    ConnectionKey: {},
    HttpResponseParser: {"feed_data": None, "feed_eof": None},
    RawResponseMessage: {"code": None, "headers": None, "should_close": None},
    aiohttp.StreamReader: {"total_bytes": None},
    BaseProtocol: {"pause_reading": ["self"], "resume_reading": ["self", "resume_parser"]},
}
"""The parts, the members that are used of each, and a member's arguments; None: these are not compared."""


def inner_imports(path: Path) -> set[str]:
    """The names that a file imports from aiohttp's modules that are not public."""
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aiohttp"
        for alias in node.names
        if node.module not in PUBLIC
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_names_the_inner_parts_that_it_uses(module: ModuleType) -> None:
    told = set(re.findall(r"`(?:\w+\.)*(\w+)`", module.__doc__ or ""))
    # aiohttp documents both: a payload's reader, and what connect() returns.
    documented = {"StreamReader", "Connection"}
    assert inner_imports(Path(str(module.__file__))) - documented <= told


def test_all_parts_that_are_named_exist_and_take_the_same_arguments() -> None:
    told = set()
    for module in MODULES:
        told |= set(re.findall(r"`([\w.]+)`", (module.__doc__ or "").partition("inner parts")[2]))
    for part, members in PARTS.items():
        mentioned = {part.__name__, *members, *(f"{part.__name__}.{member}" for member in members)} & told
        assert mentioned, part
        told -= mentioned
        for member, arguments in members.items():
            assert hasattr(part, member) or f"self.{member}" in inspect.getsource(part), (part, member)
            if arguments is not None:
                assert list(inspect.signature(getattr(part, member)).parameters) == arguments
    assert told == set(), "these are told, and not held here"


def test_nothing_else_uses_inner_parts() -> None:
    sources = (
        path
        for member in ("schemas", "publisher", "consumer")
        for path in (ROOT / member).rglob("src/**/*.py")
    )
    using = {"/".join(path.parts[-2:]) for path in sources if inner_imports(path)}
    assert using == {"http/client.py", "http/answers.py", "flagpost_http/connection.py"}


@pytest.mark.parametrize("member", ["consumer", "publisher"])
def test_aiohttp_is_pinned_to_a_minor_version(member: str) -> None:
    project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
    needed = chain(project["dependencies"], *project["optional-dependencies"].values())
    (pin,) = (each for each in needed if each.startswith("aiohttp"))
    bounds = re.fullmatch(r"aiohttp>=(\d+)\.(\d+)\.\d+,<(\d+)\.(\d+)", pin)
    assert bounds is not None, pin
    major, minor, next_major, next_minor = map(int, bounds.groups())
    assert (next_major, next_minor) == (major, minor + 1)
