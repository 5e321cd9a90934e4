"""Replays recorded outputs of the official classes against converted checkpoints: `python -m
tests.parity DIR...`."""
