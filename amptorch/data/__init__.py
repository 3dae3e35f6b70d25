"""Data sets: frames as flat arrays, in memory or in a store, scaled; and batches of them."""
