"""Training: `prepare` makes the data, `fit` the potential; restarts, ranks, callbacks."""
