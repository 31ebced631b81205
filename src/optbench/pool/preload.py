"""What the runs of a pool have in common, loaded once: a run that is forked from this process has it at once."""

import gc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optbench.commands.hydra_internals import resolved_group
from optbench.pool.devices import single_threaded
from optbench.records.trust import entries

COMMON = (
    "optbench.run",
    # what a run imports only when it comes to it
    "fsspec.implementations.chained",
    "tensorboard.plugins.hparams.api_pb2",
    "tensorboard.plugins.hparams.plugin_data_pb2",
    "torch.utils.tensorboard",
)


def preload(configs: Sequence[DictConfig]) -> str:
    """Import what these runs will import, and read the images that they share.

    Neither a thread nor CUDA survives a fork. Where an import starts one, every run needs a fresh process.

    Returns:
        Why no run can be forked from this process; empty where it can.

    Raises:
        Exception: what reading the images raises, where all runs have the same images.
    """
    if sys.platform != "linux":
        return "Only Linux can safely start a run from a process that has loaded everything."
    if there := not_forkable():
        return f"This process has {there} already, which a forked run would lack."
    targets = {target for cfg in configs for target in targets_of(cfg)}
    modules = [*COMMON, *sorted({target.rpartition(".")[0] for target in targets})]
    with single_threaded():
        for module in modules:
            with suppress(Exception):  # the run that needs it will say what is wrong
                import_module(module)
            if started := not_forkable():
                return f"Importing {module} starts {started}, which a forked run would lack."
        look_up_provenance()
        read_images([resolved_group(cfg, "data") for cfg in configs])
        if started := not_forkable():
            return f"Reading the images starts {started}, which a forked run would lack."
    return ""


def import_common() -> None:
    """What `preload` would import for any runs, before it is known which."""
    with single_threaded():
        for module in COMMON:
            with suppress(Exception):  # the runs will say what is wrong
                import_module(module)


@contextmanager
def shared_objects() -> Iterator[None]:
    """The collector leaves alone what there is: it would write to memory that the runs share."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # or libraries tell at the exit what they have not been given back


def targets_of(cfg: DictConfig) -> Iterator[str]:
    """The classes and functions that this run will build."""
    for key, value in entries(OmegaConf.to_container(cfg, resolve=False)):
        if key.endswith("_target_") and isinstance(value, str) and not key.startswith("hydra."):
            yield value


def look_up_provenance() -> None:
    """What every run records, and this process keeps: the hash of the code, versions, the commit."""
    from optbench.training import provenance

    provenance.own_code_sha256(), provenance.versions(), provenance.describe_git()


def not_forkable() -> str:
    """What this process has that a fork loses: `CUDA`, `a thread`, or nothing."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return "CUDA"
    end = time.monotonic() + 1  # a thread that was joined still has to leave
    while (several := len(list(Path("/proc/self/task").iterdir())) > 1) and time.monotonic() < end:
        time.sleep(0.001)
    return "a thread" if several else ""


def read_images(sources: Sequence[dict[str, Any]]) -> None:
    """Read what several runs will read: in memory it is there once for all of them."""
    from optbench.training.build import read_ahead, source_of

    keys = [source_of(source) for source in sources]
    for key, source in dict(zip(keys, sources, strict=True)).items():
        if keys.count(key) > 1:
            try:
                read_ahead(source)
            except Exception:
                if len(set(keys)) == 1:
                    raise
                # the runs of this source will say it, and not stop the others
