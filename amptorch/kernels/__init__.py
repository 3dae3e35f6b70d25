"""numba kernels: arrays and scalars in, arrays out; no Atoms, no tensors."""
