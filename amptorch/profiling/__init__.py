"""Where the time and the memory of a training go: `amptorch profile`."""
