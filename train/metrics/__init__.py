"""Scores as pure functions over lists: no model, no files, no state."""
