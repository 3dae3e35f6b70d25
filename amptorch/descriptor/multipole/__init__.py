"""Hold the common part of the schemes `gmp` and `gmpordernorm`."""
