"""What every data source returns: labelled uint8 images in memory, with a hash of their content."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """A training set and a test set of RGB images.

    Images are uint8 `(N, 3, H, W)`, labels int64 `(N,)` with values that index `classes`. `skipped` names the
    files that a source was told to pass over.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """The same pixels, labels and class names in the same order give the same hash on every machine."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data.cast("B"))
        return digest.hexdigest()
