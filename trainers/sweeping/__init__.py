"""A grid of settings and seeds: what became of its cells, as tables and pictures."""
