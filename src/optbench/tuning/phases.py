"""Search, shortlist, final: each a batch of runs, and a decision from what they left.

Every decision follows from the settings and the records of runs. So a tuning that was stopped, however it was, decides
the same again: runs that have ended are skipped, and what is left follows.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from optbench.commands import until_decided
from optbench.commands.hydra_internals import Interval
from optbench.commands.resume import SWEEP, quoted
from optbench.records import metrics, wording
from optbench.records.configuration import key_of
from optbench.records.files import write_atomically
from optbench.records.looks import LEVELS, UNTIL_DECIDED
from optbench.records.record import RunRecord, has_result
from optbench.records.tuning import (
    FINAL,
    SEARCH,
    SHORTLIST,
    TUNED,
    TUNING,
    Contestant,
    Edge,
    Trial,
    Tuning,
    final_folder,
    search_folder,
    shortlist_folder,
)
from optbench.records.wording import plural, text
from optbench.tuning import decisions
from optbench.tuning.plan import SEARCHABLE, Plan, Settings, axes_of, make_plan
from optbench.tuning.space import Dimension, draw, overrides_of, settings_of

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]
MOST_WIDENINGS = 2
MOST_TRIALS = 1000  # of a search by seconds: trials that diverge at once use up next to none
WIDER = 0.5  # the budget of a widened search, as a share of the first


def tune(
    settings: Mapping[str, Any],
    search: Sequence[str],
    arguments: Sequence[str],
    config: DictConfig,
    loader: ConfigLoader,
    launch: Launch,
) -> list[Sequence[JobReturn]]:
    """The whole procedure, from wherever it stopped; returns what the launcher returned for each batch of runs.

    Raises:
        ValueError: for settings or spaces that mean nothing, or that are not those with which the folder began.
    """
    folder = Path(config.hydra.sweep.dir)
    plan = make_plan(Settings(**settings), search, arguments, config, loader)
    if (folder / TUNING).exists():
        refuse_other_plan(Tuning.read(folder), plan.tuning, folder)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / SWEEP)  # what resume=<folder> reads
    tuner = Tuner(plan, folder, launch)
    tuner.search()
    tuner.shortlist()
    tuner.final()
    return tuner.returns


def refuse_other_plan(before: Tuning, now: Tuning, folder: Path) -> None:
    """Raises ValueError, with the first difference, unless a tuning that began is the one that is asked for."""

    def parts(tuning: Tuning) -> dict[str, Any]:
        found = {**tuning.settings, "trainer.max_epochs": tuning.epochs["final"]}
        found["optimizer"] = [contestant.name for contestant in tuning.contestants]
        for its in tuning.contestants:
            found |= {f"the space of {its.name}": its.space, f"what was typed for {its.name}": its.overrides}
            found[f"the defaults of {its.name}"] = its.trials[0].values
        return found

    old, new = parts(before), parts(now)
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{folder} holds a tuning that began otherwise: {key} was {old.get(key)}, now it is {new.get(key)}. "
                "Undo the change to resume it, or start a new tuning."
            )


class Tuner:
    """A tuning in its folder. tuning.json is written before each batch of runs and after each decision."""

    def __init__(self, plan: Plan, folder: Path, launch: Launch) -> None:
        self.plan, self.tuning, self.folder, self.launch = plan, plan.tuning, folder, launch
        self.settings, self.contestants = plan.settings, plan.tuning.contestants
        self.sign = metrics.sign(self.settings.metric)
        self.spaces = dict(plan.spaces)
        self.points = {its.name: self.points_of(its) for its in self.contestants}
        self.started = 0
        self.allowed = 0.0  # seconds for each search, where the budget is seconds
        self.returns: list[Sequence[JobReturn]] = []

    # the search

    def search(self) -> None:
        """Run points of every space until the budget is used; then widen spaces, where that is asked."""
        size = plural(self.settings.trials, "trial")
        budget = size if self.settings.budget == "trials" else f"{text(self.settings.budget)} s of training"
        names = wording.joined([its.name for its in self.contestants])
        say(
            f"Search: {budget} for {'each of ' if len(self.contestants) > 1 else ''}{names}; "
            f"{plural(self.tuning.epochs['trial'], 'epoch')} each, seed {self.tuning.search_seed}. The first trial has "
            "the defaults. The test set is not read."
        )
        self.spend(1)
        for _ in range(MOST_WIDENINGS if self.settings.widen else 0):
            wide = [its for its in self.contestants if its.edges]
            if not wide:
                break
            edges = "; ".join(self.describe_edges(its) for its in wide)
            say(f"On an edge: {edges}. Their spaces widen, and every search has half of its budget more.")
            for its in wide:
                self.widen(its)
            self.spend(WIDER)
        self.end(SEARCH)
        for its in self.contestants:
            say(self.describe_search(its))

    def spend(self, share: float) -> None:
        """Run more trials of every contestant, worth a share of the budget."""
        if self.settings.budget == "trials":
            for its in self.contestants:
                its.counted += max(1, round(share * self.settings.trials))
                self.extend(its, its.counted)
            self.run_trials(self.contestants)
        else:
            self.spend_seconds(share * float(self.settings.budget))
        for its in self.contestants:
            its.edges = {name: str(edge) for name, edge in self.edges(its).items()}

    def spend_seconds(self, more: float) -> None:
        """Run trials until `more` seconds are used: each time as many as should fit, by what those before them took.

        What is drawn follows from the records alone. A trial beyond the budget stays, and counts once a widened search
        has more budget. So the folder of a trial never gets another point, also where a tuning resumes.
        """
        self.allowed += more
        # before the first batch, the only trial (the defaults) has not run yet
        ran = {its.name: len(its.trials) if its.counted else 0 for its in self.contestants}

        def spent(its: Contestant) -> list[float]:
            return [self.seconds(its, trial) for trial in range(ran[its.name])]

        def has_room(its: Contestant) -> bool:
            return sum(spent(its)) < self.allowed and ran[its.name] < MOST_TRIALS

        while left := [its for its in self.contestants if has_room(its)]:
            for its in left:
                took = spent(its)
                room = (self.allowed - sum(took)) / max(mean(took), 1e-3) if took else 2  # two to begin with
                goal = len(its.trials) + max(1, min(int(room), self.settings.trials))
                self.extend(its, min(goal, MOST_TRIALS))
            self.run_trials(left)
            ran = {its.name: len(its.trials) for its in self.contestants}
        for its in self.contestants:
            its.counted = decisions.within(spent(its), self.allowed)

    def points_of(self, its: Contestant, outside: Sequence[Dimension] = ()) -> Iterator[dict[str, Any]]:
        seed = f"{self.tuning.search_seed} {its.name} {its.widened}"
        return draw(self.spaces[its.name], self.settings.sampler, seed, outside)

    def extend(self, its: Contestant, goal: int) -> None:
        """Draw points until there are `goal` trials."""
        config = self.plan.configs[its.name]
        for values in islice(self.points[its.name], max(0, goal - len(its.trials))):
            its.trials.append(Trial(values, overrides_of(values, config)))

    def run_trials(self, contestants: Sequence[Contestant]) -> None:
        seed = self.tuning.search_seed
        runs = {
            search_folder(its.name, trial): self.without_test(its.command(trial), seed)
            for trial in range(max(len(its.trials) for its in contestants))
            for its in contestants
            if trial < len(its.trials)
        }
        self.run(runs)

    def scores(self, its: Contestant) -> list[float | None]:
        """Of the trials within the budget."""
        return [self.tuning.score(self.trial_folder(its, trial)) for trial in range(its.counted)]

    def seconds(self, its: Contestant, trial: int) -> float:
        return float(RunRecord.read(self.trial_folder(its, trial)).seconds.get("training", 0.0))

    def trial_folder(self, its: Contestant, trial: int) -> Path:
        return self.folder / search_folder(its.name, trial)

    def edges(self, its: Contestant) -> dict[str, Edge]:
        """Axis -> on which edge of it the best trials are, where there is room beyond it."""
        scores, found = self.scores(its), {}
        for dimension in self.spaces[its.name]:
            places = [dimension.place(trial.values[dimension.key]) for trial in its.trials[: its.counted]]
            edge = decisions.edge(places, scores, self.sign) if isinstance(dimension.values, Interval) else None
            if edge is not None and dimension.widened(edge) != dimension:
                found[dimension.name] = edge
        return found

    def widen(self, its: Contestant) -> None:
        """Give a space more room where its best trials are on an edge; its next points are in the new part."""
        old = self.spaces[its.name]
        self.spaces[its.name] = [
            dimension.widened(Edge(its.edges[dimension.name])) if dimension.name in its.edges else dimension
            for dimension in old
        ]
        its.widened += 1
        its.axes = axes_of(self.spaces[its.name])
        outside = [dimension for dimension in old if dimension.name in its.edges]
        self.points[its.name] = self.points_of(its, outside)

    # the shortlist and the final

    def shortlist(self) -> None:
        """Run the best of each search again at seeds of which it knew nothing; the best mean wins."""
        runs: dict[str, list[str]] = {}
        for its in self.contestants:
            its.shortlist = decisions.best_first(self.scores(its), self.sign)[: self.settings.shortlist]
            if len(its.shortlist) > 1:
                for seed in self.tuning.shortlist_seeds:
                    for trial in its.shortlist:
                        runs[shortlist_folder(its.name, trial, seed)] = self.without_test(its.command(trial), seed)
        if runs:
            seeds = wording.joined([f"seed {seed}" for seed in self.tuning.shortlist_seeds])
            say(f"Shortlist: the best {self.settings.shortlist} trials of each, again with {seeds}.")
        self.run(runs)
        for its in self.contestants:
            scores = {trial: self.scores_at_every_seed(its, trial) for trial in its.shortlist}
            its.winner = decisions.winner(scores, self.sign)
        self.end(SHORTLIST)

    def scores_at_every_seed(self, its: Contestant, trial: int) -> list[float | None]:
        """The score of the search, then those of the shortlist's seeds; a trial that is alone on it ran only once."""
        seeds = self.tuning.shortlist_seeds if len(its.shortlist) > 1 else []
        again = [self.folder / shortlist_folder(its.name, trial, seed) for seed in seeds]
        return [self.tuning.score(folder) for folder in (self.trial_folder(its, trial), *again)]

    def final(self) -> None:
        """Run each winner at fresh seeds, to the end, and test it once."""
        seeds = self.tuning.final_seeds
        winners = [its for its in self.contestants if its.winner is not None]
        by_looks = self.settings.seeds == UNTIL_DECIDED and len(winners) > 1
        if self.settings.seeds == UNTIL_DECIDED and not by_looks:
            seeds = seeds[: min(LEVELS)]  # nothing is left to decide
        for its in winners:
            self.write_tuned(its)
        if winners:
            most = f"up to {len(seeds)} fresh seeds from {seeds[0]} on, until it is decided"
            some = f"{'fresh seed' if len(seeds) == 1 else 'fresh seeds'} {', '.join(map(str, seeds))}"
            say(
                f"Final: the winner of each, {plural(self.tuning.epochs['final'], 'epoch')}, with "
                f"{most if by_looks else some}; tested once."
            )
        if by_looks:
            self.train_by_looks(winners)
        else:
            self.train(winners, seeds)
        self.end(FINAL)
        for its in winners:
            say(f"{its.name} at its best: python src/train.py {shlex.join(its.command(its.winner or 0))}")
        if winners:
            say(f"The same in short: {self.short_command(winners[0])}")

    def train(self, winners: Sequence[Contestant], seeds: Sequence[int]) -> None:
        self.run(
            {
                final_folder(its.name, seed): unique([*its.command(its.winner or 0), f"seed={seed}"])
                for seed in seeds
                for its in winners
            }
        )

    def train_by_looks(self, winners: Sequence[Contestant]) -> None:
        """Add seeds by the plan of seed=until_decided."""
        shared, commands = until_decided.by_difference([unique(its.command(its.winner or 0)) for its in winners])
        called = dict(zip(commands, winners, strict=True))
        folder = self.folder / FINAL
        folder.mkdir(exist_ok=True)
        plan = until_decided.read_plan(folder, list(called), self.tuning.final_seeds[0])
        until_decided.train_by_looks(
            plan, folder, shared, lambda names, seeds: self.train([called[name] for name in names], seeds)
        )

    def write_tuned(self, its: Contestant) -> None:
        """tuned/<name>.yaml: the winner as a configuration that train.py takes with `+tuned=<name>`."""
        assert its.winner is not None
        trial = its.trials[its.winner]
        config = self.plan.configs[its.name]
        groups, settings = {"optimizer": its.optimizer}, {}
        for override in its.overrides:
            key = key_of(override)
            if in_tuned(its, override) and key in config.hydra.runtime.choices:
                groups[key] = override.partition("=")[2]
            elif in_tuned(its, override):
                settings[key] = OmegaConf.select(config, key)
        content = OmegaConf.create({"defaults": [{f"override /{group}": choice} for group, choice in groups.items()]})
        for key, value in {**settings, **settings_of(trial.values, config)}.items():
            OmegaConf.update(content, key, value, force_add=True)
        its_run = shlex.join(unique([*its.command(its.winner), f"seed={self.tuning.final_seeds[0]}"]))
        folder = self.folder / TUNED
        folder.mkdir(exist_ok=True)
        write_atomically(
            folder / f"{its.name}.yaml",
            "# @package _global_\n"
            f"# {its.name} at its best: trial {its.winner} of a tuning with {plural(its.counted, 'trial')}.\n"
            f"# {self.short_command(its)}\n"
            f"# Its first final run: python src/train.py {its_run}\n" + OmegaConf.to_yaml(content),
        )

    def short_command(self, its: Contestant) -> str:
        """What trains a winner by its file, with the rest of what was typed."""
        rest = [override for override in its.overrides if not in_tuned(its, override)]
        return shlex.join(["python", "src/train.py", "--config-dir", str(self.folder), f"+{TUNED}={its.name}", *rest])

    # runs

    def without_test(self, overrides: Sequence[str], seed: int) -> list[str]:
        """A run of the search or the shortlist, which must not know the test set."""
        epochs = [f"trainer.max_epochs={self.settings.epochs}"] if self.settings.epochs else []
        return unique([*overrides, *epochs, "test_weights=none", f"seed={seed}"])

    def run(self, runs: Mapping[str, Sequence[str]]) -> None:
        """Launch the runs that have no result yet: folder -> overrides.

        Raises:
            Exception: what a run raised that failed.
        """
        left = {folder: its for folder, its in runs.items() if not has_result(self.folder / folder)}
        if len(left) < len(runs):
            say(f"{len(runs) - len(left)} of {plural(len(runs), 'run')} have their results already.")
        if not left:
            return
        self.tuning.write(self.folder)
        jobs = [[*its, f"hydra.sweep.subdir={quoted(Path(folder))}"] for folder, its in left.items()]
        results = self.launch(jobs, self.started)
        self.started += len(jobs)
        self.returns.append(results)
        for result in results:
            result.return_value  # noqa: B018  # raises what the run raised

    def end(self, phase: str) -> None:
        self.tuning.ended.append(phase)
        self.tuning.write(self.folder)

    # in words

    def describe_search(self, its: Contestant) -> str:
        """What a search found: one line."""
        scores, metric = self.scores(its), self.settings.metric
        diverged = sum(score is None for score in scores)
        ranked = decisions.best_first(scores, self.sign)
        trials = plural(len(scores), "trial")
        if not ranked:
            return f"{its.name}: all {trials} diverged. It has no winner; the others go on."
        best, default = scores[ranked[0]], scores[0]
        point = ", ".join(f"{key}={text(value)}" for key, value in its.trials[ranked[0]].values.items())
        found = f"{its.name}: {metric} {wording.value(metric, best or 0.0)} with {point}"
        defaults = "the defaults diverged" if default is None else f"the defaults {wording.value(metric, default)}"
        edge = f" Provisional: {self.describe_edges(its)}." if its.edges else ""
        return f"{found} ({trials}; {defaults}; {diverged} diverged).{edge}"

    def describe_edges(self, its: Contestant) -> str:
        edges = [f"{name} at its {edge}" for name, edge in its.edges.items()]
        return f"{its.name} is best with {wording.joined(edges)} values"


def in_tuned(its: Contestant, override: str) -> bool:
    """Whether tuned/<name>.yaml has it: what differs between contestants, and settings of the method that are fixed."""
    key = key_of(override)
    is_setting = bool(SEARCHABLE.match(key)) and not override.startswith("~")
    return key == "optimizer" or override in its.varied or is_setting


def unique(overrides: Sequence[str]) -> list[str]:
    """Each key once, with its last value."""
    return list({key_of(override): override for override in overrides}.values())


def say(sentence: str) -> None:
    print(sentence, flush=True)
