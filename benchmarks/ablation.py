"""What each single measure does for the class exercise's network: an ablation, with the comparison's verdicts.

    python benchmarks/ablation.py data=image_folder data.root=<folder>      again: resumes what was cut off
    python benchmarks/ablation.py --epochs 1 --output logs/try data=shapes data.train_size=1000

Every configuration is the base with one measure more or less: a recipe (`experiment=`) in a folder of its own, which
`--config-dir` adds to configs/. All run as one sweep. Overrides are those of train.py. docs/results.md has the table.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
LAYERS = [layer.replace(" batchnorm", "") for layer in OmegaConf.load(ROOT / "configs" / "model" / "mlp.yaml").layers]
BASE = """# @package _global_
defaults:
  - override /optimizer: sgd
  - override /scheduler: cosine
{measure}
trainer: {{max_epochs: {epochs}}}
callbacks: {{early_stopping: null}}
"""
MEASURES = {  # the name of a recipe: the value, or the choice of a group, that it changes
    "base": "",
    "label_smoothing": "label_smoothing: 0.1",
    "l2": "optimizer: {weight_decay: 0.001}",
    "no_dropout": "model: {dropout: 0.0}",
    "no_batchnorm": f"model: {{layers: {LAYERS}}}",
    "longer": "",  # three times as many epochs
    "crop_flip": "  - override /augmentation: crop_flip",
    "mixup": "  - override /augmentation: mixup",
    "ema": "  - override /averaging: ema",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--epochs", type=int, default=10, help="of each configuration but `longer`, which has three times as many"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of each configuration, from 0")
    parser.add_argument("--output", type=Path, default=ROOT / "logs" / "ablation", help="a folder")
    arguments, overrides = parser.parse_known_args()
    recipes, sweep = arguments.output.resolve() / "recipes", arguments.output.resolve() / "sweep"
    (recipes / "experiment").mkdir(parents=True, exist_ok=True)
    for name, measure in MEASURES.items():
        text = BASE.format(measure=measure, epochs=arguments.epochs * (3 if name == "longer" else 1))
        (recipes / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")
    seeds = ",".join(map(str, range(arguments.seeds)))
    grid = [f"experiment={','.join(MEASURES)}", f"seed={seeds}", "compare=false", f"hydra.sweep.dir={sweep}"]
    what = [f"resume={sweep}"] if (sweep / "multirun.yaml").is_file() else [*overrides, *grid]
    train = [sys.executable, str(ROOT / "src" / "train.py"), "--config-dir", str(recipes), "-m"]
    subprocess.run([*train, *what], check=True)
    subprocess.run(
        [sys.executable, str(ROOT / "src" / "compare.py"), f"runs={sweep}", "baseline='experiment=base'"], check=True
    )


if __name__ == "__main__":
    main()
