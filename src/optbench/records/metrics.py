"""The metrics of a run: their names, which direction is better, how they read. What a metric means is said only here.

metrics.csv itself is written by `callbacks.epoch_history`.

A metric's key is `<stage>/<name>`, or `<stage>/<name>/<class>` for one class alone: `val/loss`, `test/accuracy/cat`.
To add a metric, describe it in METRICS and compute it in `training.measurement.measure`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

STAGES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Metric:
    """What a number of this name means.

    Attributes:
        is_fraction: it is between 0 and 1, and a comparison shows it as per cent; any other is shown as it is.
        unit: of a number that is no fraction.
        margin: a difference below which a comparison calls two results equivalent, unless it is told another.
    """

    higher_is_better: bool = True
    is_fraction: bool = True
    unit: str = ""
    margin: float = 0.005  # half a point


METRICS = {
    "loss": Metric(higher_is_better=False, is_fraction=False, unit="nats", margin=0.01),  # cross-entropy
    "accuracy": Metric(),
    "top3_accuracy": Metric(),
    "f1": Metric(),  # the mean over classes
    "ece": Metric(higher_is_better=False),  # expected calibration error
}
AT_TEST = {"flip_accuracy": Metric()}  # with test_flips=true; `Classifier.on_test_epoch_end` computes it
# what other programs log: a comparison reads them, but `measure` does not compute them
OTHERS = {
    "error": Metric(higher_is_better=False),
    "perplexity": Metric(higher_is_better=False, is_fraction=False),
    "return": Metric(is_fraction=False),  # of an episode
}
KNOWN = METRICS | AT_TEST | OTHERS
SHOWN = ("loss", "accuracy")  # where there is room for two
OVER_CLASSES = ("accuracy",)  # also measured for each class
# what a comparison draws over the epochs; `lr` is no metric, but a column of metrics.csv
CURVES = ("val/accuracy", "val/loss", "train/loss", "lr")
# the columns of metrics.csv before the metrics
COLUMNS = ("epoch", "step", "seconds", "epoch_seconds", "lr")


def name_of(key: str) -> str:
    """`accuracy` of `val/accuracy/loss`, which is the accuracy on a class called `loss`; '' for `lr`."""
    return "".join(key.split("/")[1:2])


def metric(key: str) -> Metric:
    """What is known of a key. A name that is not in KNOWN counts as a fraction of which more is better."""
    name = name_of(key)
    return KNOWN.get(name, Metric()) if name else Metric(is_fraction=False)


def sign(key: str) -> int:
    """1 where a higher value is better, else -1."""
    return 1 if metric(key).higher_is_better else -1


def mode(key: str) -> str:
    """The same in the words of Lightning and PyTorch: `max` or `min`."""
    return "max" if metric(key).higher_is_better else "min"


def at(stage: str, key: str) -> str:
    """The same metric at another stage: `val/accuracy` for `test/accuracy`, by which that one is chosen."""
    return f"{stage}/{key.partition('/')[2]}"


def title(key: str) -> str:
    """In words: `validation accuracy`, `learning rate`."""
    if key == "lr":
        return "learning rate"
    stage, _, name = key.partition("/")
    return f"{STAGES.get(stage, stage)} {name.replace('/', ' ').replace('_', ' ')}".strip()


def is_logarithmic(key: str, smallest: float, largest: float) -> bool:
    """Whether only a logarithmic axis shows all values: a loss that explodes, a learning rate that decays."""
    return not metric(key).is_fraction and largest > 20 * smallest > 0


def monitorable(classes: Iterable[str]) -> list[str]:
    """The keys that `monitor` may name."""
    names = [*METRICS, *(f"{name}/{of}" for name in OVER_CLASSES for of in classes)]
    return [f"{stage}/{name}" for stage in ("val", "train") for name in names]


def column_order(key: str) -> tuple[int, int, str]:
    """The order of columns in metrics.csv: times and rate, then metrics, then metrics of single classes."""
    first = COLUMNS.index(key) if key in COLUMNS else len(COLUMNS)
    return first, key.count("/"), "" if key in COLUMNS else key
