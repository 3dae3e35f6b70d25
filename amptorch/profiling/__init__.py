"""Show where the time and the memory of a training go: `amptorch profile`."""
