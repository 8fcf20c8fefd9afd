"""The training graph, the loop that runs it, and its measurements."""
