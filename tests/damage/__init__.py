"""Seeded damage to every kind of input: each module makes the cases of one kind."""
