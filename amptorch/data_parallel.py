"""v1.0's place for training on several GPUs."""

from amptorch.trainer.parallel import DataParallel, ParallelCollater

__all__ = ["DataParallel", "ParallelCollater"]
