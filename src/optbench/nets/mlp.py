"""A multilayer perceptron whose layers are spelt out as a list."""

import math

from torch import Tensor, nn

from optbench.nets.initialization import BATCHNORM, keras_dense

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,  # exact, as Keras has it
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


class MLP(nn.Module):
    """Images `(B, C, H, W)` in, logits `(B, classes)` out; the softmax lives in the loss.

    Args:
        layers: one entry a hidden layer: its width, then what follows the linear map, in that order, for example
            `"1024 gelu dropout batchnorm"` or just `512`.
        dropout: the rate of every `dropout` in `layers`.

    Raises:
        ValueError: for an empty list, a word or a width that is not known, a rate outside [0, 1).
    """

    def __init__(
        self, image_shape: tuple[int, int, int], classes: int, layers: list[str | int], dropout: float
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(
                f"model.dropout={dropout} must be in [0, 1): it is the fraction of the units that is dropped."
            )
        if not isinstance(layers, list) or not layers:
            raise ValueError(
                f"model.layers={layers} must be a list of at least one hidden layer, for example "
                "'model.layers=[512 relu dropout, 256 relu]'. model=linear has none."
            )
        features = math.prod(image_shape)
        modules: list[nn.Module] = []
        for layer in layers:
            width, *words = str(layer).split() or [""]
            if not width.isdecimal() or int(width) < 1:
                raise ValueError(f"model.layers: {layer!r} must begin with its width, a whole number of at least 1.")
            modules.append(keras_dense(nn.Linear(features, int(width))))
            features = int(width)
            modules += [self._module(word, features, dropout, layer) for word in words]
        self.layers = nn.Sequential(*modules)
        self.head = keras_dense(nn.Linear(features, classes))

    @staticmethod
    def _module(word: str, width: int, dropout: float, layer: str | int) -> nn.Module:
        if word == "batchnorm":
            return nn.BatchNorm1d(width, **BATCHNORM)
        if word == "dropout":
            return nn.Dropout(dropout)
        if word in ACTIVATIONS:
            return ACTIVATIONS[word]()
        raise ValueError(
            f"model.layers: {word!r} in {layer!r} is not known. After its width a layer may have, in any order: "
            f"{', '.join(ACTIVATIONS)} (activations), dropout, batchnorm."
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(images.flatten(1)))
