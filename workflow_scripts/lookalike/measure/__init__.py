"""The measure stage: the metrics of one model with one index."""
