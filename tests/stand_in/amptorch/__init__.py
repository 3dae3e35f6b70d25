"""What drives AMPTorch v1.0 from outside sees of it: names, arguments, and what it insists on.

Nothing is computed. Written after the project's own notes on v1.0's interface, without its code.
"""

import os
import time

import numpy as np
from ase.calculators.calculator import Calculator


class Net:
    """What is used of skorch's net."""

    def __init__(self):
        self.history, self.callbacks_ = [], []

    def fit(self, X, y=None):
        self.fit_loop(X, y, 1)

    def fit_loop(self, X, y=None, epochs=None):
        assert len(X) > 0
        self.history += epochs * [{}]


class AtomsTrainer:
    def __init__(self, config=None):
        self.config = config

    def load(self, load_dataset=True):
        cmd, dataset = self.config["cmd"], self.config["dataset"]
        os.chdir(cmd["run_dir"])
        images = dataset.pop("raw_data")
        if not cmd.get("debug", False):
            # One folder a second: the same again fails.
            os.makedirs(time.strftime("checkpoints/%Y-%m-%d-%H-%M-%S"))
            dataset["descriptor"], dataset["fp_length"] = "Gaussian", 36
        assert isinstance(dataset["fp_params"]["default"]["G2"]["etas"], np.ndarray)
        self.train_dataset, self.net = images, Net()

    def train(self, raw_data=None):
        self.load()
        self.net.fit(self.train_dataset, None)

    def predict(
        self, images, disable_tqdm=True, get_latent=None, get_descriptor=False, save_fps=False
    ):
        self.config["dataset"]["descriptor"], self.config["dataset"]["fp_length"]
        energies = [0.0] * len(images)
        return {"energy": energies, "forces": [np.zeros((len(image), 3)) for image in images]}


class AmpTorch(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, trainer):
        super().__init__()
        self.trainer = trainer

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        found = self.trainer.predict([atoms])
        self.results = {"energy": found["energy"][0], "forces": found["forces"][0]}
