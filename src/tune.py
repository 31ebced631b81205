"""Tune each optimizer with an equal budget, run the winners on fresh seeds, and compare them: docs/tuning.md.

python src/tune.py optimizer=adam,sgd,rmsprop,adamw                        # 20 trials each, the final, the report
python src/tune.py optimizer=adam,sgd trials=50 seeds=10 hydra/launcher=slurm
python src/tune.py optimizer=sgd search.sgd.optimizer.lr='tag(log, interval(0.01, 1))'
python src/tune.py resume=<folder>                                         # resume a tuning that stopped
python src/train.py --config-dir <folder> +tuned=sgd                       # a run with what was found
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from optbench.commands import resolvers  # noqa: F401  # configs/ needs them
from optbench.commands.errors import report_errors
from optbench.commands.sweep import conclude_sweep
from optbench.pool.processes import die_with_parent
from optbench.tuning.command import command


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    from optbench.run import run  # torch and Lightning load only once the configuration is complete

    return run(cfg)


def compare(folder: Path) -> None:
    from optbench.comparison.report.write import compare_runs

    compare_runs(str(folder))


if __name__ == "__main__":
    die_with_parent()
    with conclude_sweep(compare, "python src/tune.py"), report_errors():
        sys.argv[1:] = command(sys.argv[1:])
        main()
