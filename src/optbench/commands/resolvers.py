"""The words that configs/ may use in `${...}`. Importing this module registers them."""

import re
import secrets
import warnings

from omegaconf import OmegaConf

from optbench.commands import caller
from optbench.commands.hydra_internals import in_sweep
from optbench.records import metrics
from optbench.records.files import PROJECT


def folder_name(text: str) -> str:
    """Overrides as part of a folder's name: `optimizer=adam,seed=0` stays, separators and quotes do not."""
    return re.sub(r"[^\w.,=+-]+", "-", text)[:120].rstrip(".,-")


OmegaConf.register_new_resolver("project", lambda: str(PROJECT), replace=True)
OmegaConf.register_new_resolver("metric_mode", lambda key: metrics.mode(str(key)), replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_new_resolver("in_sweep", in_sweep, replace=True)
OmegaConf.register_new_resolver("caller", caller.describe, replace=True)
# Two runs that start in the same second still get folders of their own.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(4), replace=True, use_cache=True)
# Our file of that name is found first, and the plugin's own entry checks its keys: as it should be.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/ray' is validated against ConfigStore schema")
