"""The stage `search`: the nearest references of every query, and the best pairs over all queries."""
