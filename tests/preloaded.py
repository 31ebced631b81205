"""What the process of typed.py imports: all that a command may need, and no thread."""

import gc
import logging
import os

from optbench.pool.devices import THREADS

os.environ.update(dict.fromkeys(THREADS, "1"))

import optbench.comparison.report.write
import optbench.evaluation
import optbench.pool.launch
import optbench.run  # noqa: F401
import typed

for library in ("pytorch_lightning", "lightning_fabric"):  # a command imports them after Hydra has set up logging
    logging.getLogger(library).handlers.clear()
    logging.getLogger(library).propagate = True

typed.draw_images()
os.fsync = lambda fd: None  # tests kill processes, but cut no power
gc.freeze()  # what is here stays, so a fork need not look through it
