"""What a batch adds to sums."""

from datetime import timedelta

from fakes import START

from gateway.store.tallies import Sum, Tallies, Tally

UNTIL = START + timedelta(hours=1)


def test_a_sum_tells_what_this_batch_has_added() -> None:
    tallies = Tallies()
    tallies.add(Tally(b"key", "a", 2, 1, UNTIL))
    tallies.add(Tally(b"key", "a", 3, 0, UNTIL))

    assert Sum(5, 1) == tallies.sum(b"key")
    assert Sum(0, 0) == tallies.sum(b"other")


def test_one_more_counts_what_is_known_and_tells_what_is_not() -> None:
    """Whoever gets a key back adds a tally of its own: counted twice or not at all otherwise."""
    tallies = Tallies()
    tallies.add(Tally(b"known", "a", 2, 1, UNTIL))

    assert (b"new",) == tallies.one_more((b"new", b"known"))
    assert Sum(3, 1) == tallies.sum(b"known")
    assert Sum(0, 0) == tallies.sum(b"new")
