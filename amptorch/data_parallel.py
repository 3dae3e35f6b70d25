"""v1.0's place for training on several GPUs."""

from amptorch.v1.parallel import DataParallel, ParallelCollater

__all__ = ["DataParallel", "ParallelCollater"]
