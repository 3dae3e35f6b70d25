"""The skorch net that trains a potential."""

from skorch import NeuralNetRegressor


class PotentialNet(NeuralNetRegressor):
    """skorch's net for batches of frames and targets [energy, forces].

    `target_scaler` turns errors of scaled targets into eV and eV/Å for the scores.
    """

    def __init__(self, module, *args, target_scaler=None, **kwargs):
        super().__init__(module, *args, **kwargs)
        self.target_scaler = target_scaler

    def infer(self, x, **fit_params):
        """(energy, forces) of a batch, scaled."""
        return self.module_(x.to(self.device), **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Loss of a batch; y_true is [energy, forces], scaled."""
        return self.criterion_(y_pred, [target.to(self.device) for target in y_true])
