"""`hydra/sweeper=tune`. Hydra imports this file whenever it starts: the rest loads later."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class TuneSweeper(BasicSweeper):
    """Each optimizer at its best, instead of each combination of values; see configs/hydra/sweeper/tune.yaml."""

    def __init__(self, search: list[str], **settings: Any) -> None:
        super().__init__(max_batch_size=None)
        self.search, self.settings = search, settings

    def sweep(self, arguments: list[str]) -> Any:
        from optbench.pool.devices import single_threaded

        with single_threaded():  # or no run could be forked from this process
            from optbench.tuning.phases import tune
        assert self.config is not None and self.hydra_context is not None and self.launcher is not None
        loader, launch = self.hydra_context.config_loader, self.launcher.launch
        return tune(self.settings, list(self.search), arguments, self.config, loader, launch)
