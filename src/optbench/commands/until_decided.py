"""`-m seed=until_decided`: a sweep that adds seeds by a plan, until the question is decided.

The plan is made before the first run: all configurations train the seeds of the first look; then the look decides who
stops and whether anything is left to do; then the others train the seeds of the next look. looks.json in the sweep's
folder has the plan and every look, so the sweep resumes wherever it was stopped, and each report knows of the looks.
"""

from collections.abc import Callable, Sequence, Set
from itertools import pairwise
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from optbench.commands.hydra_internals import override_values
from optbench.commands.resume import SWEEP
from optbench.pool.devices import single_threaded
from optbench.records.configuration import key_of
from optbench.records.looks import LOOKS_JSON, UNTIL_DECIDED, Look, Plan, now
from optbench.records.wording import joined, names, paragraph, plural

EXAMPLE = "-m optimizer=adam,sgd seed=until_decided"


def wanted(arguments: Sequence[str]) -> bool:
    """Whether a sweep adds seeds until it is decided.

    Raises:
        ValueError: where it is also told which seeds.
    """
    seeds = [argument for argument in arguments if key_of(argument) == "seed"]
    values = [value for argument in seeds for value in override_values(argument)[1]]
    if UNTIL_DECIDED not in values:
        return False
    if len(values) > 1:
        raise ValueError(
            f"{' '.join(seeds)} cannot be given together: seed={UNTIL_DECIDED} chooses the seeds itself, 0, 1, 2, …. "
            f"Give it alone, or list the seeds, such as seed=0,1,2."
        )
    return True


def sweep(sweeper: BasicSweeper, arguments: Sequence[str]) -> list[Sequence[JobReturn]]:
    """All runs of the plan, look by look, with the sweeper's launcher.

    Raises:
        ValueError: where there is nothing to compare, or the folder has another plan.
    """
    assert sweeper.config is not None and sweeper.launcher is not None and sweeper.hydra_context is not None
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    others = parser.parse_overrides([argument for argument in arguments if key_of(argument) != "seed"])
    shared, jobs = by_difference(sweeper.split_arguments(others, None)[0])
    if len(jobs) < 2:
        raise ValueError(
            f"seed={UNTIL_DECIDED} compares configurations, and here is only one: give several, such as {EXAMPLE}, or "
            "give the seeds, such as seed=0,1,2."
        )
    folder = Path(sweeper.config.hydra.sweep.dir)
    plan = read_plan(folder, list(jobs))
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(sweeper.config, folder / SWEEP)
    looks = [0, *plan.levels]
    most = max(later - earlier for earlier, later in pairwise(looks)) * len(jobs)
    if hasattr(sweeper.launcher, "largest_batch"):  # hydra/launcher=pool
        sweeper.launcher.largest_batch = min(most, sweeper.max_batch_size or most)
    returns: list[Sequence[JobReturn]] = []
    number, launch = 0, sweeper.launcher.launch

    def train(running: Sequence[str], seeds: range) -> None:
        nonlocal number
        batch = [[*jobs[name], f"seed={seed}"] for name in running for seed in seeds]
        for part in sweeper.split_overrides_to_chunks(batch, sweeper.max_batch_size):
            sweeper.validate_batch_is_legal(part)
            done = launch(part, initial_job_idx=number)
            for job in done:
                job.return_value  # noqa: B018  # raises what the job raised: without all its runs there is no look
            returns.append(done)
            number += len(part)

    train_by_looks(plan, folder, shared, train)
    return returns


def by_difference(jobs: Sequence[Sequence[str]]) -> tuple[Set[str], dict[str, list[str]]]:
    """The overrides that all jobs share, and each job by the others: what a plan calls it."""
    shared = set.intersection(*map(set, jobs))
    return shared, {" ".join(override for override in job if override not in shared): list(job) for job in jobs}


def read_plan(folder: Path, configurations: Sequence[str], first_seed: int = 0) -> Plan:
    """The plan of a sweep that resumes, or a new one.

    Raises:
        ValueError: where the folder has the plan of another sweep.
    """
    plan = Plan.read(folder) or Plan(list(configurations), first_seed=first_seed)
    if (plan.configurations, plan.first_seed) != (list(configurations), first_seed):
        raise ValueError(
            f"hydra.sweep.dir={folder} has the plan of another sweep ({LOOKS_JSON}: {'; '.join(plan.configurations)}). "
            "Give another folder, or leave it out."
        )
    return plan


def train_by_looks(plan: Plan, folder: Path, shared: Set[str], train: Callable[[Sequence[str], range], None]) -> None:
    """Train the seeds of a look, make the look, and so on, until the question is decided or the plan ends.

    Args:
        folder: of the runs, and of looks.json.
        shared: the overrides that all configurations share.
        train: runs some configurations with some seeds, but for the runs that have their results already.
    """
    plan.write(folder)
    before, running = 0, list(plan.configurations)
    for position, seeds in enumerate(plan.levels):
        train(running, range(plan.first_seed + before, plan.first_seed + seeds))
        if len(plan.looks) <= position or not plan.looks[position].complete:
            look(plan, folder, position, running, shared)
        print("\n" + paragraph(plan.looks[position].sentence) + "\n", flush=True)
        made = plan.looks[position]
        running = [] if made.decided else [name for name in running if name not in made.stopped]
        if not running:
            break
        before = seeds


def look(plan: Plan, folder: Path, position: int, running: Sequence[str], shared: Set[str]) -> None:
    """Make one look and record it.

    It is recorded before the runs are compared, so that a report after a kill at any moment knows of it. Resuming
    makes an incomplete look again, of the same runs.

    Args:
        running: the configurations that have trained for it, as in the plan; `shared`: overrides of all of them.
    """
    with single_threaded():  # or the next runs could not be forked from this process
        from optbench.comparison.analysis import compare
        from optbench.comparison.looks import conclude
        from optbench.comparison.verdicts import Family

    seeds, level = list(plan.levels.items())[position]
    made = Look(seeds, level, now())
    plan.looks[position:] = [made]
    plan.write(folder)
    with single_threaded():
        comparison = compare([str(folder)])
    facts, judgement = comparison.facts, comparison.judgement
    grid = judgement.family is Family.WINNERS
    found = conclude(judgement.ranking, judgement.tuned, grid, judgement.differences)
    called_by = {  # what was typed -> what the report calls it
        " ".join(text for text in record.overrides if key_of(text) != "seed" and text not in shared): name
        for record, name in zip(facts.records, facts.runs.configuration, strict=True)
    }
    made.stopped = [typed for typed in running if called_by.get(typed) in found.stopped]
    left = [typed for typed in running if typed not in made.stopped]
    made.decided = bool(found.leader)
    train, stop = ([called_by.get(typed, typed) for typed in some] for some in (left, made.stopped))
    made.sentence = sentence(plan, position, train, stop, found.claims)
    made.complete = True
    plan.write(folder)


def sentence(plan: Plan, position: int, left: Sequence[str], stopped: Sequence[str], claims: Sequence[str]) -> str:
    """What a look decides, what trains next, and how many runs are saved.

    Args:
        left: the configurations that have not stopped; `stopped`: those that stop at this look.
        claims: what is decided, in words.
    """
    looks, planned = plan.looks[: position + 1], list(plan.levels)
    seeds, most = planned[position], planned[-1]
    decided = looks[-1].decided
    trained = {name: look.seeds for look in reversed(looks) for name in look.stopped}
    if decided or not left:
        trained = dict.fromkeys(plan.configurations, seeds) | trained
    saved = sum(most - count for count in trained.values())
    said = f"Look {position + 1} of {len(planned)}, at {seeds} seeds each: "
    said += f"{'; '.join(claims)}. " if claims else "nothing is decided. "
    if decided:
        said += "The question is decided, and the sweep ends. "
    elif not left:
        said += "Nobody is left to train, and the sweep ends. "
    elif position + 1 == len(planned):
        said += "The plan ends here, and the question stays undecided. "
    else:
        if stopped:
            said += f"{names(stopped)} need{'s' if len(stopped) == 1 else ''} no more seeds. "
        first, last = plan.first_seed + seeds, plan.first_seed + planned[position + 1] - 1
        runs = plural(len(left) * (last - first + 1), "run")
        verb = "trains" if len(left) == 1 else "train"
        numbers = joined([str(seed) for seed in range(first, last + 1)])
        said += f"Next, {names(left)} {verb} with seed{'s' if last > first else ''} {numbers} ({runs}). "
    more = "" if decided or not left or position + 1 == len(planned) else " so far"
    verb = "is" if saved == 1 else "are"
    return f"{said}{saved} of {plural(len(plan.configurations) * most, 'run')} {verb} saved{more}."
