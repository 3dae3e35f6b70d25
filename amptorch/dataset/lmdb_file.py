"""An import path of the development of 2.0.0; the module is `amptorch.v1.lmdb_file`."""

from amptorch.v1.lmdb_file import write_lmdb

__all__ = ["write_lmdb"]
