"""A search from start to end, or from where it was left: chooses trials by those before, and lets whatever launcher
there is run them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from thaw.config.faults import Fault, UserFault
from thaw.config.search import Dimension, SearchSettings, settings_of, space_of
from thaw.sweep.space import next_values
from thaw.training.run import ENDED, status_in
from thaw.training.trials import Search, Trial, read_search, runs_of, write_search


def search(config: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]) -> None:
    """Runs the trials that `arguments` ask for, in place of a sweeper of Hydra's: these have to lie in a package of
    another name. `config` is what they share.

    Raises:
        UserFault: where the directory of the sweep holds a search of another space.
    """
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    space, fixed = space_of(overrides)
    settings = SearchSettings.model_validate(settings_of(config))
    under_way = _UnderWay(Path(config.hydra.sweep.dir), space, fixed, launcher)
    found = under_way.to_the_end(settings, settings.batch or _side_by_side(config))
    from thaw.sweep.found import tell

    tell(under_way.directory, found, space, fixed)


def _side_by_side(config: DictConfig) -> int:
    """How many trials the launcher runs at once, as far as it says."""
    count = int(config.hydra.launcher.get("n_jobs") or 1)
    return count if count > 0 else max(1, (os.cpu_count() or 1) + 1 + count)  # as joblib counts


@dataclass(frozen=True)
class _UnderWay:
    directory: Path
    space: Sequence[Dimension]
    fixed: Sequence[str]
    launcher: Launcher

    def to_the_end(self, settings: SearchSettings, together: int) -> Search:
        """Chooses and runs `together` trials after another. Those of before are not chosen again, and those of them
        that are done or pruned not run again."""
        search = self._begun(settings)
        for known, batch in groupby(search.trials, lambda trial: trial.known):
            self._run(list(batch), known)
        while (known := len(search.trials)) < settings.trials:
            for _ in range(min(together, settings.trials - known)):
                search = search.with_trial(Trial(next_values(self.directory, search, known, self.space), known))
            write_search(self.directory, search)  # before they start: a killed search goes on with the same ones
            self._run(search.trials[known:], known)
        return search

    def _begun(self, settings: SearchSettings) -> Search:
        words = {one.key: one.words for one in self.space}
        before = read_search(self.directory)
        if before and before.space != words:
            got, valid = (" ".join(f"{key}={value}" for key, value in one.items()) for one in (words, before.space))
            raise UserFault("the search has begun otherwise.", [Fault(str(self.directory), got, valid)])
        return before or Search(
            seed=settings.seed,
            random_trials=settings.random_trials,
            pruner=settings.pruner,
            spared_trials=settings.spared_trials,
            spared_epochs=settings.spared_epochs,
            space=words,
        )

    def _run(self, trials: Sequence[Trial], first: int) -> None:
        runs = runs_of(self.directory)
        if all(one in runs and status_in(runs[one]) in ENDED for one in range(first, first + len(trials))):
            return
        jobs = [[*self.fixed, *(one.line(trial.values[one.key]) for one in self.space)] for trial in trials]
        for result in self.launcher.launch(jobs, initial_job_idx=first):
            _ = result.return_value  # raises what the launcher has caught
