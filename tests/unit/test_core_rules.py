"""Pendo's property rules, bodies, verdicts and the smaller parts of the engine."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flagpost_consumer.core
from engine_world import START_MS, decision
from flagpost_consumer.core.backoff import next_probe_delay, retry_delay
from flagpost_consumer.core.books.offsets import Offsets
from flagpost_consumer.core.metadata.answers import read_errors
from flagpost_consumer.core.pendo.budget import Budget
from flagpost_consumer.core.pendo.verdict import Answer, Failure, Verdict, judge, retry_after_seconds
from flagpost_consumer.core.planning import pendo_rules
from flagpost_consumer.core.planning.mapping import Track, metadata_body, track_body, track_properties
from flagpost_consumer.core.planning.partitioner import murmur2, partition_of
from flagpost_consumer.core.planning.pendo_rules import MAX_PROPERTIES_BYTES, Rule, size_bytes, trim
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.policy import DecisionsSettings, MappingSettings, Policy
from flagpost_schemas import Context, Scalar, TrackEvent

CORE = Path(flagpost_consumer.core.__file__).parent
FORBIDDEN = {
    "aiohttp", "asyncio", "confluent_kafka", "http", "io", "logging", "os", "pathlib", "prometheus_client",
    "random", "requests", "select", "signal", "socket", "ssl", "structlog", "subprocess", "sys", "threading",
    "time", "urllib", "uvloop", "datetime.now",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_imports_nothing_that_does_io_or_tells_the_time(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            measures = node.module == "sys" and [alias.name for alias in node.names] == ["getsizeof"]
            imported |= set() if measures else {node.module.split(".")[0]}
            if node.module.startswith("flagpost_consumer"):
                assert node.module.startswith("flagpost_consumer.core"), node.module
    assert not imported & FORBIDDEN


# Properties


@pytest.mark.parametrize(
    ("name", "repaired", "rules"),
    [
        ("plan", "plan", []),
        ("_plan_", "_plan_", []),
        ("plan name", "plan_name", [Rule.NAME_CHARACTERS]),
        ("prénom", "pr_nom", [Rule.NAME_CHARACTERS]),
        ("", "_", [Rule.NAME_CHARACTERS]),
        ("2nd", "_2nd", [Rule.NAME_DIGIT]),
        ("__plan", "_plan", [Rule.NAME_UNDERSCORES]),
        ("plan____", "plan_", [Rule.NAME_UNDERSCORES]),
        ("p" * 32, "p" * 31, [Rule.NAME_LENGTH]),
        ("p" * 31, "p" * 31, []),
        ("p" * 29 + "__x", "p" * 29 + "_", [Rule.NAME_LENGTH]),
        ("error", "error_", [Rule.NAME_RESERVED]),
        ("2nd plan", "_2nd_plan", [Rule.NAME_CHARACTERS, Rule.NAME_DIGIT]),
    ],
)
def test_a_name_is_repaired_rule_by_rule(name: str, repaired: str, rules: list[Rule]) -> None:
    properties, repairs = trim({name: 1})
    assert properties == {repaired: 1}
    assert [repair.rule for repair in repairs] == rules
    assert all(repair.field == name for repair in repairs)


def test_names_that_become_one_are_numbered() -> None:
    properties, repairs = trim({"a b": 1, "a-b": 2, "a.b": 3})
    assert properties == {"a_b": 1, "a_b_2": 2, "a_b_3": 3}
    assert [repair.rule for repair in repairs].count(Rule.NAME_COLLISION) == 2


def test_a_number_that_another_name_already_has_is_skipped() -> None:
    properties, repairs = trim({"a_b_2": 1, "a b": 2, "a-b": 3, "a.b": 4})
    assert properties == {"a_b_2": 1, "a_b": 2, "a_b_3": 3, "a_b_4": 4}
    assert [repair.rule for repair in repairs].count(Rule.NAME_COLLISION) == 2


def test_a_number_at_the_end_keeps_a_long_name_short() -> None:
    properties, _ = trim({"p" * 31: 1, "p" * 40: 2})
    assert list(properties) == ["p" * 31, "p" * 29 + "_2"]


def test_a_property_that_collides_with_a_decisions_own_name_is_renamed() -> None:
    properties, _ = trim({"flag-key": "attribute", "flag_key": "checkout"}, fixed_names=("flag_key",))
    assert properties == {"flag_key_2": "attribute", "flag_key": "checkout"}


def test_over_512_bytes_the_last_properties_are_dropped_first_but_never_flag_and_variation() -> None:
    given_properties: dict[str, Scalar] = {
        "flag_key": "f",
        "variation_key": "v",
        "a": "x" * 400,
        "b": "y" * 400,
        "c": 1,
    }
    properties, repairs = trim(given_properties)
    assert properties == {"flag_key": "f", "variation_key": "v", "a": "x" * 400}
    assert [(repair.rule, repair.field) for repair in repairs] == [(Rule.SIZE, "c"), (Rule.SIZE, "b")]


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", '"', "\u0001"])
def test_when_nothing_is_left_to_drop_the_longest_text_is_cut(letter: str) -> None:
    properties, repairs = trim({"flag_key": letter * 600, "variation_key": "treatment"})
    assert properties["variation_key"] == "treatment"
    assert isinstance(properties["flag_key"], str)
    assert (letter * 600).startswith(properties["flag_key"])
    assert MAX_PROPERTIES_BYTES - 6 < size_bytes(properties) <= MAX_PROPERTIES_BYTES
    assert [repair.rule for repair in repairs] == [Rule.SIZE]


@pytest.mark.parametrize(
    "properties",
    [{"flag_key": "x" * 1_000_000}, {f"2nd {number}": "" for number in range(200_000)}],
    ids=["a long text", "many properties"],
)
def test_the_cost_of_repairing_does_not_grow_with_what_is_left_out(
    properties: dict[str, Scalar], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0

    def dumps(value: object) -> bytes:
        nonlocal looked_at
        looked_at += 1
        return orjson.dumps(value)

    monkeypatch.setattr(pendo_rules, "orjson", SimpleNamespace(dumps=dumps))
    trimmed, _ = trim(properties)
    assert MAX_PROPERTIES_BYTES - 20 < size_bytes(trimmed) <= MAX_PROPERTIES_BYTES
    assert looked_at < 1_000


def test_as_many_properties_as_fit_are_kept() -> None:
    letters = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"]
    names = [*letters, *(f"a{letter}" for letter in letters)]
    trimmed, repairs = trim(dict.fromkeys(names, 1))
    assert list(trimmed) == names[: len(trimmed)]
    assert size_bytes({**trimmed, names[len(trimmed)]: 1}) > MAX_PROPERTIES_BYTES
    assert [repair.field for repair in repairs if repair.field in trimmed] == []
    assert {repair.field for repair in repairs} == set(names[len(trimmed) :])


def test_511_bytes_pass_and_512_do_not() -> None:
    fits = {"a": "x" * (511 - len(b'{"a":""}'))}
    assert size_bytes(fits) == 511
    assert trim(fits) == (fits, ())
    assert trim({"a": fits["a"] + "x"}) != (fits, ())


NAMES = st.text(st.characters(codec="utf-8"), max_size=45) | st.sampled_from(
    ["error", "__a__", "1", "flag_key"]
)
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(NAMES, VALUES | st.floats(allow_nan=False, allow_infinity=False), max_size=12))
def test_trimmed_properties_keep_every_rule(
    properties: dict[str, str | int | bool | None],
) -> None:
    trimmed, repairs = trim(properties)
    assert size_bytes(trimmed) <= 511
    for name in trimmed:
        assert name.isascii()
        assert name.replace("_", "a").isalnum()
        assert 0 < len(name) < 32
        assert not name[0].isdigit()
        assert not name.startswith("__")
        assert not name.endswith("__")
        assert name != "error"
    assert trim(trimmed) == (trimmed, ())
    assert bool(repairs) == (trimmed != properties)


# Bodies


def test_a_decisions_track_body_is_that_of_the_contract_byte_for_byte() -> None:
    event = decision(
        "visitor-1",
        "checkout",
        "treatment",
        account_id="acme",
        context=Context(ip="203.0.113.7", user_agent="UA", url="https://x/", title="T", locale="de"),
        attributes={"plan": "pro", "age": 30, "secret": "no", "empty": None},
    )
    policy = Policy(decisions=DecisionsSettings(attribute_properties=["age", "plan", "empty"]))
    track = Planner(policy).plan(event, START_MS)[0].track
    assert track is not None
    assert track_body(track) == (
        b'{"type":"track","event":"Experiment Viewed","visitorId":"visitor-1","accountId":"acme",'
        b'"timestamp":1800000000000,"properties":{"flag_key":"checkout","variation_key":"treatment",'
        b'"rule_key":"rule","enabled":true,"age":30,"plan":"pro"},'
        b'"context":{"ip":"203.0.113.7","userAgent":"UA","url":"https://x/","title":"T"}}'
    )


@pytest.mark.parametrize(
    ("rule_type", "expected"),
    [
        ("delivery", {"enabled": True, "rule_type": "delivery", "rule_type_2": "mine", "plan": "pro"}),
        (None, {"enabled": True, "rule_type_2": "mine", "plan": "pro"}),
    ],
)
def test_the_rule_s_type_is_a_property_if_set_and_an_attribute_of_its_name_gets_a_number(
    rule_type: str | None, expected: dict[str, object]
) -> None:
    event = decision("v", rule_type=rule_type, attributes={"plan": "pro", "rule_type": "mine"})
    own = {"flag_key": "checkout", "variation_key": "a", "rule_key": "rule"}
    asked = DecisionsSettings(rule_type_property=True, attribute_properties=["rule_type", "plan"])
    for decisions, properties in (
        (asked, own | expected),
        (DecisionsSettings(), own | {"enabled": True}),
    ):
        track = Planner(Policy(decisions=decisions)).plan(event, START_MS)[0].track
        assert track is not None
        assert list(track.properties.items()) == list(properties.items())


def test_attributes_with_the_names_of_a_decisions_own_properties_get_numbers_that_are_free() -> None:
    """docs/contract.md#requests-to-pendo: every attribute that is listed is sent; before, such a one was left out."""
    event = decision("v", attributes={"enabled": "mine", "enabled_2": "too", "flag_key": 1})
    asked = DecisionsSettings(attribute_properties=["enabled", "enabled_2", "flag_key", "variation_key"])
    track = Planner(Policy(decisions=asked)).plan(event, START_MS)[0].track

    assert track is not None
    assert list(track.properties.items())[4:] == [
        ("enabled_3", "mine"),
        ("enabled_2", "too"),
        ("flag_key_2", 1),
    ]
    assert track.properties["enabled"] is True


def test_unknown_fields_are_left_out_and_properties_and_context_are_always_there() -> None:
    body = track_body(Track("v", None, "e", 5, {}, None))
    expected = b'{"type":"track","event":"e","visitorId":"v","timestamp":5,"properties":{},"context":{}}'
    assert body == expected


@pytest.mark.parametrize(
    ("enabled", "variation", "expected"),
    [
        (True, "a", '"variation_key":"a"'),
        (False, "a", '"variation_key":"off"'),
        (True, None, '"flag_key":"f","rule_key"'),
    ],
)
def test_the_variation_as_sent(enabled: bool, variation: str | None, expected: str) -> None:
    planned = Planner(Policy()).plan(decision("v", "f", variation, enabled=enabled), START_MS)
    assert planned[0].track is not None
    assert expected in track_body(planned[0].track).decode()
    metadata = [plan.metadata.values for plan in planned[1:] if plan.metadata]
    sent = "off" if not enabled else variation
    assert metadata == ([{"[Optimizely] f": sent}] if sent else [])


def track_event(name: str, **properties: Scalar) -> TrackEvent:
    return TrackEvent(
        event_id="e", occurred_at=START_MS, visitor_id="v", anonymous_id="anon", event=name,
        properties=properties, context=Context(url="https://c/", title="C", locale="fr"),
    )  # fmt: skip


def test_identity_properties_are_sent_if_they_are_set() -> None:
    settings = MappingSettings(identity_properties=["anonymous_id", "locale"])
    event = TrackEvent(
        event_id="e",
        occurred_at=START_MS,
        event="Step",
        visitor_id="v",
        anonymous_id="a",
        properties={"own": 1},
    )
    told = {"own": 1, "anonymous_id": "a", "locale": None}
    assert track_properties(event, "Step", settings) == told
    event = replace(event, context=Context(locale="de"), properties={"locale": "own"})
    assert track_properties(event, "Step", settings) == {"locale": "own", "anonymous_id": "a"}
    event = replace(event, properties={})
    assert track_properties(event, "Step", settings) == {"anonymous_id": "a", "locale": "de"}
    assert track_properties(event, "Step", MappingSettings()) == {}


def test_a_page_gets_its_url_and_title_from_the_event_else_from_the_context() -> None:
    event = track_event("page", path="/x", title="Own", url=None)
    properties = track_properties(event, "page_view", MappingSettings())
    assert list(properties.items()) == [
        ("url", "https://c/"), ("title", "Own"), ("referrer", None), ("path", "/x")
    ]  # fmt: skip


def test_a_purchase_gets_revenue_order_and_number_of_items_first() -> None:
    event = track_event("Order Completed", coupon="C", total=9.5, order_id="o", products_count=3)
    properties = track_properties(event, "purchase", MappingSettings(identity_properties=["locale"]))
    assert list(properties.items()) == [
        ("revenue", 9.5), ("order_id", "o"), ("items", 3), ("coupon", "C"), ("total", 9.5),
        ("products_count", 3), ("locale", "fr"),
    ]  # fmt: skip


def test_a_metadata_body_has_one_record_an_id() -> None:
    body = metadata_body("account", [("a", {"plan": "pro", "seats": 3}), ("b", {"tags": ["x"]})])
    assert body == (
        b'[{"accountId":"a","values":{"plan":"pro","seats":3}},{"accountId":"b","values":{"tags":["x"]}}]'
    )


# Verdicts


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((200, 201, 202, 204, 299), Verdict.DELIVERED),
        ((300, 301, 302, 307, 308, 401, 403, 404), Verdict.SETUP),
        ((408, 425, 500, 502, 503, 504, 599), Verdict.TRANSIENT),
        ((429,), Verdict.THROTTLED),
        ((400, 402, 405, 409, 410, 413, 415, 422, 451), Verdict.REJECTED),
    ],
)
def test_what_a_status_means(statuses: tuple[int, ...], verdict: Verdict) -> None:
    assert {judge(Answer(status)) for status in statuses} == {verdict}


@pytest.mark.parametrize("failure", list(Failure))
def test_a_missing_answer_is_retried(failure: Failure) -> None:
    answer = Answer(failure=failure)
    assert judge(answer) is Verdict.TRANSIENT
    assert answer.unseen == (failure is not Failure.UNREACHABLE)
    assert answer.label == ("timeout" if failure is Failure.TIMEOUT else "connection")


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own time zone is nine hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("301", 300.0),
        ("9" * 400, 300.0),
        ("-3", None),
        ("soon", None),
        ("1.5", None),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Sat, 16 Jan 2027 08:00:00 GMT", 300.0),
    ],
)
@pytest.mark.usefixtures("_in_tokyo")
def test_retry_after_in_both_forms(text: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(text, START_MS) == seconds


# Smaller parts


@given(st.integers(1, 50), st.integers(0, 2**32))
def test_the_backoff_has_full_jitter_and_a_cap(failures: int, seed: int) -> None:
    assert 0 <= retry_delay(failures, Random(seed).random) <= min(60.0, 2.0**failures)
    assert retry_delay(failures, lambda: 0.0) == 0.0


def test_probes_double_to_thirty_seconds() -> None:
    delays = [0.0]
    for _ in range(7):
        delays.append(next_probe_delay(delays[-1]))
    assert delays[1:] == [1, 2, 4, 8, 16, 30, 30]


@given(st.integers(0, 2**32), st.sampled_from([30.0, 1000.0, 6000.0]), st.sampled_from([0.25, 1.0]))
def test_a_budget_is_never_exceeded_over_any_window(seed: int, per_minute: float, fraction: float) -> None:
    random, budget, now = Random(seed), Budget(per_minute), 0.0
    budget.share(fraction, now)
    spent: list[float] = []
    for _ in range(200):
        opens = budget.opens_at(now)
        assert opens is not None
        if opens <= now:
            budget.spend()
            spent.append(now)
        else:
            now = max(opens, now + random.choice((0.0, random.random())))
    rate = per_minute / 60 * fraction
    for first in range(0, len(spent), 7):
        for last in range(first, len(spent), 11):
            assert last - first + 1 <= max(1.0, rate) + rate * (spent[last] - spent[first]) + 1.001
    assert len(spent) > 50


def test_a_budget_without_a_share_stays_shut() -> None:
    budget = Budget(60)
    assert budget.opens_at(0.0) is None
    budget.share(1.0, 0.0)
    assert budget.opens_at(0.0) == pytest.approx(1.0)
    assert Budget(None).opens_at(3.0) == 3.0


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_only_a_settled_prefix_can_be_committed(gaps: list[int], random: Random) -> None:
    offsets: Offsets[int] = Offsets()
    assert offsets.committable() is None
    taken = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    for offset in taken:
        offsets.take(offset, offset)
    left = list(taken)
    while left:
        assert offsets.committable() == left[0] == offsets.oldest()
        gone = left.pop(random.randrange(len(left)))
        offsets.settle(gone)
    assert offsets.committable() == taken[-1] + 1


@pytest.mark.parametrize(
    ("key", "expected"),
    # From org.apache.kafka.common.utils.UtilsTest, as signed 32-bit values.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF
    assert 0 <= partition_of(key, 24) < 24


# Metadata answers


@pytest.mark.parametrize(
    ("answer", "refused", "unnamed"),
    [
        (b"", {}, 0),
        (b"[1]", {}, 0),
        (b"not json", {}, 0),
        ({"total": 3, "updated": 3, "failed": 0}, {}, 0),
        (
            {"failed": 2, "missing": ["v2"], "errors": [{"index": 2, "id": "v3", "error": "bad"}]},
            {"v2", "v3"},
            0,
        ),
        ({"failed": 1, "errors": [{"index": 0, "error": "bad"}]}, {"v1"}, 0),
        ({"errors": [{"visitorId": "v2", "message": "bad"}]}, {"v2"}, 0),
        ({"errors": [{"accountId": "v2"}]}, {"v2"}, 0),
        ({"failed": 2, "errors": ["something"]}, {}, 2),
        ({"failed": 3, "errors": [{"index": 9}, {"id": "unknown"}, {"id": "v1"}]}, {"v1"}, 2),
        ({"failed": True, "missing": "v1"}, {}, 0),
        ({"failed": 99}, {}, 3),
    ],
)
def test_answers_are_read_tolerantly(answer: object, refused: set[str], unnamed: int) -> None:
    body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    errors = read_errors(body, ["v1", "v2", "v3"])
    assert set(errors.refused) == set(refused)
    assert errors.unnamed == unnamed
