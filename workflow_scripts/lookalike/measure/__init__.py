"""The stage `measure`: one model's neighbors as numbers with intervals."""
