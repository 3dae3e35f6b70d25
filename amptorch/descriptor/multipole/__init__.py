"""What the schemes `gmp` and `gmpordernorm` have in common."""
