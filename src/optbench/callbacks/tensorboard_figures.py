"""The pages of TensorBoard beside the curves: the model's graph, training images, where the test went wrong."""

import copy
import io
import logging
import warnings

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from optbench.data.datamodule import ImageDataModule
from optbench.records.wording import first_line
from optbench.training.classifier import Classifier
from optbench.training.plots import confidently_wrong, confusion, confusion_picture, image_grid

log = logging.getLogger(__name__)


class Figures(pl.Callback):
    """Writes to TensorBoard: training images and the graph after training, where they cost it no time; then the test's.

    Args:
        examples: images in each grid.
    """

    def __init__(self, examples: int) -> None:
        if not isinstance(examples, int) or examples < 1:
            raise ValueError(f"callbacks.figures.examples={examples} must be a whole number of at least 1.")
        self.examples = examples

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self._loggers(trainer):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule) and isinstance(pl_module, Classifier)
        images, labels, _ = data.train.__getitems__(self._spread(len(data.train)))
        titles = [data.classes[int(label)] for label in labels]
        # the step of the last curves: a run that resumes here with its test keeps them, and draws the test again
        self._show(trainer, "images/training", image_grid(images, titles), trainer.global_step - 1)
        self._add_graph(trainer, pl_module, data.normalize(images[:1]).to(pl_module.device))

    def _spread(self, count: int) -> list[int]:
        """Indices spread over a set that may be sorted by class."""
        return [count * k // self.examples for k in range(min(self.examples, count))]

    def _add_graph(self, trainer: pl.Trainer, classifier: Classifier, images: torch.Tensor) -> None:
        net = copy.copy(classifier.net)  # the same weights
        net._compiled_call_impl = None  # torch.jit.trace refuses a compiled network
        net.eval()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit.trace, which TensorBoard's graph needs, is deprecated
                traced = torch.jit.trace(net, images, check_trace=False)  # add_graph would trace it twice, to check
                for logger in self._loggers(trainer):
                    logger.experiment.add_graph(traced, images)
        except Exception as error:  # anything that a network may raise: a picture must not fail a run that has trained
            log.warning("TensorBoard has no graph of this network, which cannot be traced: %s", first_line(error))
        finally:
            net.train()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self._loggers(trainer):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule) and isinstance(pl_module, Classifier)
        logits, labels = pl_module.test_logits, pl_module.test_labels
        matrix = confusion(logits, labels, data.classes)
        self._show(trainer, "test/confusion_matrix", confusion_picture(matrix, data.classes), trainer.global_step)
        wrong = confidently_wrong(logits, labels, self.examples)
        if len(wrong):
            probability, predicted = logits[wrong].softmax(1).max(1)
            titles = [
                f"{data.classes[said]} {fraction:.0%}\nis {data.classes[true]}"
                for said, fraction, true in zip(predicted, probability, labels[wrong], strict=True)
            ]
            self._show(
                trainer, "test/most_confidently_wrong", image_grid(data.test.images[wrong], titles), trainer.global_step
            )

    @staticmethod
    def _loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
        return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]

    def _show(self, trainer: pl.Trainer, tag: str, picture: Image.Image, step: int) -> None:
        png = io.BytesIO()
        picture.save(png, "PNG", compress_level=1)  # add_image takes twice as long
        image = Summary.Image(
            width=picture.width, height=picture.height, colorspace=3, encoded_image_string=png.getvalue()
        )
        for logger in self._loggers(trainer):
            logger.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
