"""Train a network, or compare optimizers with -m.

python src/train.py                                                   # the class exercise's network on CIFAR-10
python src/train.py optimizer=rmsprop model.dropout=0.2               # one change each
python src/train.py -m optimizer=adam,sgd,rmsprop,adamw seed=0,1,2    # twelve runs, and their comparison
python src/train.py data=shapes                                       # nothing to download
python src/train.py -m optimizer=adam,sgd seed=until_decided          # adds seeds by a plan, until it is decided
python src/train.py resume=<run folder>                               # resume a run that stopped
python src/train.py -m resume=<sweep folder>                          # or a sweep
python src/train.py --help                                            # every group and its choices
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from optbench.commands import resolvers, resume  # noqa: F401  # configs/ needs the resolvers
from optbench.commands.errors import report_errors
from optbench.commands.sweep import conclude_sweep
from optbench.pool.processes import die_with_parent


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    from optbench.run import run  # torch and Lightning load only once the configuration is complete

    return run(cfg)


def compare(folder: Path) -> None:
    from optbench.comparison.report.write import compare_runs

    compare_runs(str(folder))


if __name__ == "__main__":
    die_with_parent()
    with conclude_sweep(compare), report_errors():
        sys.argv[1:] = resume.command(sys.argv[1:])
        main()
