"""Helpers of the training that scripts for AMPTorch v1.0 import."""

import json
import os
import sys
from pathlib import Path

from skorch.callbacks import Callback


def target_extractor(y):
    """Targets as arrays: a tensor, or tensors in a tuple or list."""
    if isinstance(y, (tuple, list)):
        return type(y)(target_extractor(target) for target in y)
    return y.detach().cpu().numpy()


def save_normalizers(normalizers, path):
    """Write {"target": TargetScaler, "feature": FeatureScaler} as JSON, as checkpoints do."""
    states = {name: scaler.state() for name, scaler in normalizers.items()}
    Path(path).write_text(json.dumps(states, indent=1), encoding="utf8")


class train_end_load_best_loss(Callback):
    """Loads `params.pt` of a checkpoint folder when training ends.

    filename: the folder, or the name of one under `./checkpoints`.
    """

    def __init__(self, filename):
        self.filename = filename

    def on_train_end(self, net, **kwargs):
        folder = Path(self.filename)
        if not folder.is_dir():
            folder = Path("checkpoints") / folder
        net.load_params(f_params=os.fspath(folder / "params.pt"))


def check_memory():
    """Largest memory that this process has had so far, MB."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
