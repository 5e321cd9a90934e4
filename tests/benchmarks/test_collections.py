"""The benchmark of collections runs at toy size; speed itself is never asserted."""

from benchmarks import collections


def test_batches_are_measured(tiny_predictor):
    measured = collections.batches(tiny_predictor, count=4, rounds=1)
    assert [one.name.split(":")[0] for one in measured] == ["caption", "ground", "match"]
    assert all(one.ratio > 0 for one in measured)


def test_search_is_measured(tiny_predictor):
    (measured,) = collections.search(tiny_predictor, rounds=1)
    assert measured.ratio > 0 and "100,000" in measured.detail


def test_memory_is_measured(tiny_predictor):
    (measured,) = collections.memory(tiny_predictor, count=80)
    assert 0.5 < measured.ratio < 2
