"""What the process of typed.py imports: all that a command may need, and no thread."""

import os

from optbench.pool.devices import THREADS

os.environ.update(dict.fromkeys(THREADS, "1"))

import optbench.comparison.report.write
import optbench.evaluation
import optbench.pool.launch
import optbench.run  # noqa: F401
