"""Finished runs, side by side: which is better, by how much, and how sure that is.

python src/compare.py runs=logs/train/multiruns/<sweep>                     # what a sweep does at its end
python src/compare.py 'runs=[<sweep>,<sweep>]' by=optimizer baseline=sgd    # runs of several sweeps
python src/compare.py 'runs=logs/train/runs/*' metric=test/loss target=1.5
python src/compare.py runs=results.csv                                      # runs of any framework, as a table
"""

import hydra
from omegaconf import DictConfig, OmegaConf

from optbench.commands import resolvers  # noqa: F401  # configs/ needs them
from optbench.commands.errors import report_errors


@hydra.main(version_base="1.3", config_path="../configs", config_name="compare")
def main(cfg: DictConfig) -> None:
    from optbench.comparison.report.write import compare_runs

    settings = OmegaConf.to_container(cfg, throw_on_missing=True)
    assert isinstance(settings, dict)
    compare_runs(**{str(key): value for key, value in settings.items()})


if __name__ == "__main__":
    with report_errors():
        main()
