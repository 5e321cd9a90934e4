"""Many images at once: where they come from, what is done with each, and where the results go."""
