"""Which connections are dropped when there are too many, the address of a request's client, and reports of drops."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from flagpost_http.addresses import Proxies, party_of
from flagpost_http.crowd import GRACE_SECONDS, Crowd, CrowdLimits
from flagpost_http.drops import LINE_SECONDS, Drop, Drops
from flagpost_settings.urls import authority

LIMITS = CrowdLimits(connections=10, known=8, strangers_at_once=8, strangers=6, strangers_a_party=3)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def crowd_of(*opened: tuple[int, str | None]) -> tuple[Crowd[int], Clock]:
    """A crowd with these connections (number, party), all older than the grace period; returns its clock, too."""
    clock = Clock()
    crowd = Crowd[int](LIMITS, clock)
    for number, party in opened:
        assert crowd.opened(number, party) == []
    clock.now += GRACE_SECONDS
    return crowd, clock


def test_a_party_that_opens_too_many_loses_its_own_oldest() -> None:
    crowd, _ = crowd_of((1, "other"), (2, "a"), (3, "a"), (4, "a"))
    assert crowd.opened(5, "a") == [2]
    assert len(crowd) == 4


def test_many_parties_together_lose_the_oldest_of_all() -> None:
    crowd, _ = crowd_of(*((number, f"p{number}") for number in range(6)))
    assert crowd.opened(6, "new") == [0]


def test_many_new_connections_are_left_alone_for_a_while() -> None:
    """A service opens a hundred connections when it starts, and uses each of them."""
    crowd, clock = crowd_of((1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a"))
    assert len(crowd) == 5
    assert crowd.opened(6, "a") == [1, 2, 3]
    clock.now += GRACE_SECONDS / 2
    assert crowd.opened(7, "a") == [4]
    assert crowd.opened(8, "a") == [5]
    assert crowd.opened(9, "a") == []


def test_connections_are_bounded_during_the_grace_period_too() -> None:
    crowd = Crowd[int](LIMITS, Clock())
    dropped = [crowd.opened(number, f"p{number}") for number in range(10)]
    assert dropped == [[]] * 8 + [[0], [1]]


def test_connections_that_have_shown_a_key_stay() -> None:
    crowd, _ = crowd_of((1, "a"), (2, "a"), (3, "a"))
    crowd.known(1, "k")
    assert crowd.opened(4, "a") == []
    assert crowd.opened(5, "a") == [2]
    assert len(crowd) == 4


def test_connections_of_a_proxy_are_not_counted_by_address() -> None:
    crowd, _ = crowd_of(*((number, None) for number in range(5)))
    assert crowd.opened(5, None) == []


def test_closing_twice_and_showing_a_key_too_late_change_nothing() -> None:
    crowd, _ = crowd_of((1, "a"))
    for _ in range(2):
        crowd.closed(1)
        crowd.known(1, "k")
    assert len(crowd) == 0


def test_a_key_with_very_many_connections_leaves_room_for_others_to_show_theirs() -> None:
    """Before the fix, 900 idle connections of one service shut out everybody else, and the service itself."""
    crowd = Crowd[int](LIMITS, Clock())
    for number in range(LIMITS.known):
        assert crowd.opened(number, None) == []
        assert crowd.known(number, "many" if number else "first") == []
    assert crowd.known(1, "many") == []  # used again: now 2 is the least recently used
    assert crowd.opened(20, None) == []
    assert crowd.known(20, "another") == [2]
    assert len(crowd) == LIMITS.known


# Addresses


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("0.0.0.0", "0.0.0.0:80"),  # noqa: S104
        ("localhost", "localhost:80"),
        ("::", "[::]:80"),
        ("::1", "[::1]:80"),
    ],
)
def test_an_ipv6_address_is_in_brackets(host: str, written: str) -> None:
    assert authority(host, 80) == written


@pytest.mark.parametrize(
    ("address", "party"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8:0:1:2:3:4:5]:4711", "2001:db8:0:1::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_a_party_is_an_address_or_an_ipv6_network(address: str, party: str) -> None:
    assert party_of(address) == party


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),  # not a trusted proxy: its header is ignored
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (
            "10.0.0.1",
            ["203.0.113.7, 198.51.100.1"],
            "198.51.100.1",
        ),  # the sender may have invented the first address
        ("10.0.0.1", ["203.0.113.7", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (
            "10.0.0.1",
            ["203.0.113.7, 198.51.100.1:4711, 10.0.0.2:443"],
            "198.51.100.1:4711",
        ),  # Azure adds ports
        (
            "10.0.0.1",
            ["203.0.113.7", "10.0.0.2," * 900 + "10.0.0.2"],
            "10.0.0.2",
        ),  # only the last few addresses are looked at
        ("10.0.0.1", ["what"], "what"),
    ],
)
def test_the_clients_address_is_the_one_that_trusted_proxies_report(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies((ip_network("10.0.0.0/8"),)).client(peer, forwarded) == client


# Drops


def test_each_drop_is_counted_and_drops_are_reported_once_a_second() -> None:
    clock, counted = Clock(), list[Drop]()
    drops = Drops("gateway", counted.append, clock)
    with capture_logs() as lines:
        for _ in range(500):
            drops.note(Drop.MALFORMED)
            clock.now += LINE_SECONDS / 128
        clock.now += LINE_SECONDS
        drops.note(Drop.TOO_MANY)
    assert len(counted) == 501
    assert [line["malformed"] for line in lines] == [1, 128, 128, 128, 115]
    assert lines[-1]["too_many"] == 1
    assert {line["log_level"] for line in lines} == {"warning"}
