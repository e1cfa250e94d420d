"""`make demo`: the walk of the README on real containers, with an engine of its own."""
