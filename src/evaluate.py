"""A finished run, again: metrics on the test set, or what the network says of your own pictures.

python src/evaluate.py run=logs/train/runs/<run>                        # the best weights
python src/evaluate.py run=logs/train/runs/<run> checkpoint=last
python src/evaluate.py run=logs/train/runs/<run> images=<file, folder or [list]>
"""

import hydra
from omegaconf import DictConfig

from optbench.commands import resolvers  # noqa: F401  # configs/ needs them
from optbench.commands.errors import report_errors


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from optbench.evaluation import evaluate_run

    evaluate_run(cfg.run, cfg.checkpoint, cfg.images, cfg.overrides, cfg.trust)


if __name__ == "__main__":
    with report_errors():
        main()
