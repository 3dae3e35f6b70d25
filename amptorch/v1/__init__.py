"""Keep what exists for the users of AMPTorch v1.0: its trainer, data objects, files and pickles."""
