"""Keras' constants, so that a network starts and normalises as the class exercise's did."""

from typing import Any

from torch import nn

BATCHNORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}  # Keras' momentum .99 weighs the old value


def keras_dense(layer: nn.Linear) -> nn.Linear:
    """Glorot-uniform weights (Glorot & Bengio 2010), zero biases: Keras' defaults for Dense."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
