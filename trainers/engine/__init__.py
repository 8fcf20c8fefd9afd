"""The training graph, the loop that runs it, and what it counts."""
