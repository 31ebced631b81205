"""What `import optbench` offers: finished runs as objects and tables. Nothing here writes a file.

torch is imported only where a net is asked for: tables and comparisons do without it.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd

from optbench.comparison.factors import NEUTRAL, find_factors
from optbench.comparison.read import metric_of, read_any_runs, read_metrics, read_record
from optbench.records import wording
from optbench.records.configuration import as_list
from optbench.records.record import METRICS_CSV, SUMMARY, RunRecord

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from optbench.comparison.analysis import Comparison

TESTED = "test/accuracy"
Weights = Literal["best", "last"]  # of the best epoch by `monitor`, or of the last epoch
Sources: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | pd.DataFrame


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """One run, as its folder was when it was loaded.

    Attributes:
        folder: of the run, absolute.
        record: the content of summary.json: status, metrics, times, configuration, hashes, versions.
        trust: classes that its networks may be built from, besides those that `records.trust` allows.
    """

    folder: Path
    record: RunRecord
    trust: Sequence[str] | str = ()

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the net's logits."""
        return self.record.classes

    @cached_property
    def history(self) -> pd.DataFrame:
        """metrics.csv: one row per epoch, all columns numbers.

        `epoch` and `step` (both counted from 1), `seconds` of training so far, `epoch_seconds`, `lr`, then the metrics:
        `train/loss`, `val/accuracy`, `val/accuracy/<class>` and so on. The `test/` columns have numbers only in the row
        of the epoch whose weights were tested. A torn row, and what comes after it, is left out with a warning.

        Raises:
            ValueError: where metrics.csv has no complete row.
        """
        path = self.folder / METRICS_CSV
        rows, damage = read_metrics(path)
        if not rows:
            raise ValueError(
                f"{self.folder} has no complete row in {METRICS_CSV} (its status is {self.record.status}). A run "
                "writes a row as each epoch ends, unless it was started with logger=none."
            )
        if damage is not None:
            warnings.warn(f"{self.folder}: {damage.note(len(rows))}.", stacklevel=3)  # the line that reads run.history
        columns = pd.read_csv(path, nrows=0).columns  # a cell may be empty in every row
        return pd.DataFrame(rows, columns=columns, dtype=float).astype({"epoch": int, "step": int})

    def net(self, weights: Weights = "best") -> "nn.Module":
        """The network with the weights of the best or the last epoch: a new copy, on the CPU, in evaluation mode.

        It takes float images `(N, 3, H, W)`, scaled as `record.input` says, and gives logits `(N, classes)`; `predict`
        takes uint8 images and does the scaling.

        Raises:
            ValueError: where `weights` is neither, the run has no such checkpoint that can be read, or its record names
                a class that may not be built.
        """
        from optbench.evaluation import find_checkpoint, restore
        from optbench.recovery.checkpoint import read_checkpoint

        path = find_checkpoint(self.folder, self.record, weights, "weights")
        return restore(self.record, read_checkpoint(path, "weights"), path, self.trust)

    def predict(
        self,
        images: "Tensor | np.ndarray | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
        weights: Weights = "best",
    ) -> pd.DataFrame:
        """What the network says of images: one row per image, `class` and then one probability for each class.

        Args:
            images: uint8 pixels `(N, 3, H, W)` of the size that the run trained on, as a tensor or an array; or a
                picture file, a folder of pictures, or a list of files, which are scaled to that size.

        Returns:
            `class` (the likeliest) and a column for each of `classes` (between 0 and 1; a row adds up to 1). The index
            counts the images from 0; of picture files it is their paths. A file that is no picture is left out with a
            warning.

        Raises:
            ValueError: for images of another shape or type, or no picture; and as `net` does.
        """
        from optbench.evaluation import find_pictures, logits_of, read_pictures

        net = self.net(weights)
        if is_files(images):
            pixels, readable, unreadable = read_pictures(find_pictures(images), self.record.input["shape"][1])
            names: Sequence[Any] = [str(picture) for picture in readable]
            for reason in unreadable:
                warnings.warn(f"Left out: {reason}", stacklevel=2)
        else:
            pixels = as_pixels(images, self.record.input["shape"])
            names = range(len(pixels))
        probabilities = logits_of(net, pixels, self.record).double().softmax(1)  # (N, classes)
        table = pd.DataFrame(probabilities.numpy(), pd.Index(names, name="image"), pd.Index(self.classes))
        likeliest = [self.classes[k] for k in probabilities.argmax(1).tolist()]
        table.insert(0, "class", likeliest, allow_duplicates=True)  # a class may be called class
        return table

    def __repr__(self) -> str:
        parts = [self.record.status, wording.plural(self.record.epochs, "epoch")]
        if self.record.test:
            parts.append(f"{TESTED} {wording.value(TESTED, metric_of(self.record, TESTED))}")
        return f"<Run {self.folder.name}: {', '.join(parts)}>"


def load_run(folder: str | os.PathLike[str], trust: Sequence[str] | str = ()) -> Run:
    """One run, also one that failed or is still running.

    Args:
        trust: a class, or several, that only the run's record names: `mypackage.MyNet`. Without it, a network is built
            from classes of this checkout and of torch alone, so a folder from someone else executes nothing.

    Raises:
        ValueError: where the folder is no run, or its record cannot be read.
    """
    place = Path(folder).expanduser().resolve()
    inside = [] if (place / SUMMARY).exists() else sorted(place.glob(f"*/{SUMMARY}"))
    if inside:
        raise ValueError(
            f"{place} is no run, but holds {wording.plural(len(inside), 'run')}. load_runs reads all of them; load_run "
            f"takes one, for example {inside[0].parent}."
        )
    return Run(place, read_record(place), trust)


def load_runs(runs: Sources) -> pd.DataFrame:
    """Many runs as a table: one row per run, numbers as numbers, nan for what a run does not have.

    Args:
        runs: a folder with runs in it or below, a table such as `results.csv`, a glob such as
            `logs/train/multiruns/*`, or a list of them; or rows of a table that `load_runs` returned, whose runs are
            read anew.

    Returns:
        The columns, in this order:
        `folder`, `status`, `seed`;
        the choice of each configuration group: `optimizer`, `model`, `data`, …;
        each setting that differs between the runs, by its key: `optimizer.lr`, `model.dropout`, …;
        `test/loss`, `test/accuracy`, … with the weights that were tested;
        `val/loss`, `val/accuracy`, … of the best epoch by `monitor`;
        `epochs` and `steps` completed, `best_epoch`, and seconds: `seconds` of training with validation,
        `total_seconds` with start and test.
        Metrics of single classes are in `load_run(folder).record.test`. A folder that began as a run and has no record
        that can be read is left out with a warning.

    Raises:
        ValueError: where there is no run.
    """
    found = read_any_runs(sources_of(runs), TESTED)
    for sentence in found.skipped:
        warnings.warn(sentence, stacklevel=2)
    records, frame = found.records, found.frame
    groups = dict.fromkeys(group for record in records for group in record.choices if not NEUTRAL.match(group))
    logged = dict.fromkeys(key for record in records for key in (*record.test, *record.best) if key.count("/") == 1)
    measured = [key for stage in ("test/", "val/") for key in logged if key.startswith(stage)]
    first: dict[str, Any] = {key: frame[key] for key in ("folder", "status", "seed")}
    first |= {group: [record.choices.get(group) for record in records] for group in groups}
    last: dict[str, Any] = {key: [metric_of(record, key) for record in records] for key in measured}
    last |= {key: frame[key] for key in ("epochs", "steps", "best_epoch", "seconds", "total_seconds")}
    settings = {  # `+status=…`, a key of one's own, is the column `status=`
        f"{key}=" if key in (*first, *last) else key: values
        for key, values in find_factors(records).varying.items()
        if key not in groups
    }
    return pd.DataFrame({**first, **settings, **last})


def compare(
    runs: Sources,
    by: str | Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str = TESTED,
    pairs: Literal["all"] | None = None,
    margin: float | None = None,
    gap: float | None = None,
) -> "Comparison":
    """Which configuration is better, by how much, and how sure that is: what `python src/compare.py` reports.

    Args:
        runs: a folder with runs in it or below, a table such as `results.csv`, a glob, or a list of them; or rows of
            a table that `load_runs` returned.
        by: the keys that make a configuration, such as `optimizer`; None: all that varies, except the seed.
        baseline: the configuration that all others are compared with; None: each pair.
        metric: a key such as `test/accuracy`, `test/loss` or `val/accuracy`.
        pairs: `all` compares also the configurations of a grid that were not chosen; None: what the question is about.
        margin: a difference of the metric that does not matter; None: 0.005 (half a point), of a loss 0.01.
        gap: the difference for which seeds are planned; None: the margin.

    Returns:
        What the runs say, what follows from it, and that in sentences: `facts` has the tables `runs` and `curves`,
        `judgement` has `ranking`, `differences` and `targets`, `words` has `answer`, `violations` (what makes the
        comparison unfair) and `skipped` (folders that were left out).

    Raises:
        ValueError: where there are no runs, or `by`, `baseline` or `metric` name what the runs do not have, or
            `pairs`, `margin` or `gap` is not allowed.
    """
    from optbench.comparison import analysis

    return analysis.compare(sources_of(runs), as_list(by), baseline, metric, pairs=pairs, margin=margin, gap=gap)


def sources_of(runs: Sources) -> list[str]:
    """Folders and globs as a list.

    Raises:
        ValueError: for a table without the folders, or no folder at all.
    """
    if isinstance(runs, pd.DataFrame):
        if "folder" not in runs:
            raise ValueError("runs is a table without a column folder. Give rows of the table that load_runs returned.")
        runs = runs["folder"]
    sources = [os.fspath(source) for source in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    if not sources:
        raise ValueError("runs is empty. Give a run's folder, a sweep's, a table (CSV), a glob, or a list of them.")
    return sources


def is_files(images: Any) -> bool:
    """Whether `images` are paths, not pixels."""
    if isinstance(images, str | os.PathLike):
        return True
    return isinstance(images, list | tuple) and all(isinstance(image, str | os.PathLike) for image in images)


def as_pixels(images: Any, shape: Sequence[int]) -> "Tensor":
    """A uint8 tensor `(N, 3, H, W)` of a tensor or an array of this shape.

    Raises:
        ValueError: for anything else.
    """
    import numpy as np
    import torch

    expected = f"uint8 pixels of shape (N, {', '.join(map(str, shape))})"
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise ValueError(
            f"images is a {type(images).__name__}. Give {expected} as a tensor or an array, a picture file, a folder "
            "of pictures, or a list of files."
        )
    dtype = str(images.dtype).removeprefix("torch.")
    if dtype != "uint8":
        raise ValueError(f"images has {dtype} pixels. Give {expected}, from 0 to 255: predict does the scaling.")
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(shape):
        given = tuple(images.shape)
        advice = ""
        if given == tuple(shape):
            advice = " Of a single image, give images[None]."
        elif images.ndim == 4 and (given[3], *given[1:3]) == tuple(shape):
            permute = "permute" if isinstance(images, torch.Tensor) else "transpose"
            advice = f" Put the channels first: images.{permute}(0, 3, 1, 2)."
        raise ValueError(f"images has the shape {given}. Give {expected}.{advice}")
    return images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images, order="C"))
