"""A partition whose records are not read is reported, unless it is paused, empty or its position moves on."""

from __future__ import annotations

from flagpost_consumer.core.books.reading_watch import AWAY_SECONDS, STILL_SECONDS, ReadingWatch


def test_a_partition_with_unread_records_that_stands_still_is_reported_after_a_minute() -> None:
    watch = ReadingWatch()
    for second in range(0, 61, 2):
        watch.note({0: (5, 9), 1: (second, 100), 2: (7, 7), 3: (1, 9)}, {3}, float(second))
        assert watch.still(float(second)) == ({0} if second >= STILL_SECONDS else set())
    watch.note({0: (6, 9)}, (), 62.0)
    assert watch.still(62.0) == set()


def test_a_pause_resets_the_minute() -> None:
    watch = ReadingWatch()
    watch.note({0: (5, 9)}, (), 0.0)
    watch.note({0: (5, 9)}, {0}, 50.0)
    watch.note({0: (5, 9)}, (), 55.0)
    assert watch.still(100.0) == set()
    assert watch.still(115.0) == {0}


def test_a_partition_that_is_given_up_is_forgotten() -> None:
    watch = ReadingWatch()
    watch.note({0: (5, 9)}, (), 0.0)
    watch.note({}, (), 30.0)
    assert watch.still(90.0) == set()


def test_a_partition_that_a_new_client_does_not_read_either_stays_reported() -> None:
    """Otherwise each replacement of the client would reset the minute, and the alert's five minutes."""
    watch = ReadingWatch()
    for second in range(301):
        is_away = second % 40 < 5
        watch.note({} if is_away else {0: (5, 9)}, {0} if is_away else (), float(second))
        assert watch.still(float(second)) == ({0} if second >= 5 + STILL_SECONDS and not is_away else set())
    watch.note({0: (6, 9)}, (), 301.0)
    assert watch.still(301.0) == set()


def test_a_partition_that_comes_back_late_or_further_on_resets_the_minute() -> None:
    watch = ReadingWatch()
    watch.note({0: (5, 9), 1: (5, 9)}, (), 0.0)
    watch.note({}, (), 30.0)
    watch.note({0: (8, 9)}, (), 40.0)
    assert watch.still(99.0) == set()
    watch.note({0: (8, 9)}, (), 30.0 + AWAY_SECONDS)
    watch.note({0: (8, 9), 1: (5, 9)}, (), 31.0 + AWAY_SECONDS)
    assert watch.still(101.0) == {0}
