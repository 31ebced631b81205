"""What is tuned, and with what budget: settings, contestants and their spaces, checked before anything runs."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optbench.commands.hydra_internals import Interval, compose_job, keys_below, override_values
from optbench.commands.resolvers import folder_name
from optbench.records import wording
from optbench.records.configuration import key_of
from optbench.records.files import PROJECT
from optbench.records.looks import UNTIL_DECIDED
from optbench.records.metrics import METRICS
from optbench.records.tuning import Axis, Contestant, Trial, Tuning
from optbench.records.wording import is_number, near, some
from optbench.tuning.space import EXAMPLE, ONE_MINUS, SAMPLERS, Dimension, read_dimension

SPACES = PROJECT / "configs" / "search"
NULL = ("null", "None")  # takes a key out of a space
# what a space may hold: what makes a method, not what it is measured by
SEARCHABLE = re.compile(
    r"(optimizer|scheduler|model|augmentation|averaging)\.|(data\.batch_size|weight_decay_on|label_smoothing|l1)$"
    r"|trainer\.(gradient_clip_val|accumulate_grad_batches)$"
)


@dataclass(frozen=True)
class Settings:
    """The keys of configs/hydra/sweeper/tune.yaml, but for `search`.

    Raises:
        ValueError: with a sentence for the first value that means nothing.
    """

    trials: int
    seeds: int | str
    shortlist: int
    shortlist_seeds: int
    epochs: int | None
    budget: str | float
    sampler: str
    widen: bool
    metric: str

    def __post_init__(self) -> None:
        words = {"seeds": UNTIL_DECIDED, "epochs": None}  # what these may be instead of a number
        for key in ("trials", "seeds", "shortlist", "shortlist_seeds", "epochs"):
            value = getattr(self, key)
            is_word = key in words and value == words[key]
            if not is_word and not (type(value) is int and value >= 1):
                word = f", or {wording.text(words[key])}" if key in words else ""
                raise ValueError(f"{key}={value} must be a whole number of at least 1{word}.")
        if self.budget != "trials" and not (is_number(self.budget) and float(self.budget) > 0):
            raise ValueError(
                f"budget={self.budget} must be trials, so that every optimizer has as many, or a number of seconds "
                "above 0 that the trials of each optimizer may train, for example budget=600."
            )
        if self.budget == "trials" and self.shortlist > self.trials:
            raise ValueError(
                f"shortlist={self.shortlist} is longer than trials={self.trials}: use at most shortlist={self.trials}."
            )
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler={self.sampler} is not known: use {' or '.join(SAMPLERS)}.")
        if type(self.widen) is not bool:
            raise ValueError(f"widen={self.widen} must be true or false.")
        known = [f"val/{name}" for name in METRICS]
        if self.metric not in known:
            raise ValueError(
                f"metric={self.metric} cannot choose a trial{near(str(self.metric), known)} Validation does: "
                f"{', '.join(known)}."
            )


@dataclass(frozen=True)
class Plan:
    """A tuning that can begin: its record without a trial but the defaults, and for each contestant its space."""

    tuning: Tuning
    settings: Settings
    spaces: dict[str, list[Dimension]]
    configs: dict[str, DictConfig]


def make_plan(
    settings: Settings, search: Sequence[str], arguments: Sequence[str], config: DictConfig, loader: ConfigLoader
) -> Plan:
    """Everything that can be known before the first run.

    Args:
        search: lines of spaces from the command, such as `adam.optimizer.lr=interval(0.1, 1)`.
        arguments: what was typed for the runs, such as `optimizer=adam,sgd`.

    Raises:
        ValueError: for the first mistake, before anything has run.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    seed = first_seed(arguments)
    rest = [override for override in parsed if override.key_or_group != "seed"]
    for override in rest:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ValueError(
                f"{override.input_line} is a range to search: put it into a space, "
                f"search.<optimizer>.{override.key_or_group}='{str(override.input_line).partition('=')[2]}'."
            )
    varied = [override.get_key_element().lstrip("+") for override in rest if override.is_sweep_override()]
    (combinations,) = BasicSweeper.split_arguments(rest, None)
    contestants, spaces, configs = [], {}, {}
    given = read_lines(search)
    for overrides in combinations:
        cfg = compose_job(config, overrides, 0, loader)
        check_tests(cfg, settings)
        contestant, space = make_contestant(overrides, varied, cfg, given)
        contestants.append(contestant)
        spaces[contestant.name], configs[contestant.name] = space, cfg
    check_contestants(contestants, given, settings)
    check_shared(configs)
    cfg = next(iter(configs.values()))
    epochs = cfg.trainer.max_epochs
    tuning = Tuning(
        settings={**asdict(settings), "seed": seed},
        epochs={"trial": settings.epochs or epochs, "final": epochs},
        last_weights=cfg.test_weights == "last",
        contestants=contestants,
    )
    return Plan(tuning, settings, spaces, configs)


def check_contestants(
    contestants: Sequence[Contestant], given: Mapping[str, Mapping[str, str]], settings: Settings
) -> None:
    """Refuse an optimizer named twice, a space that belongs to none, and seeds=until_decided with one contestant."""
    names = Counter(contestant.name for contestant in contestants)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{twice[0]} is named {names[twice[0]]} times: name each optimizer once.")
    optimizers = {contestant.optimizer for contestant in contestants}
    if unknown := [name for name in given if name not in optimizers]:
        raise ValueError(
            f"search.{unknown[0]} is the space of no optimizer here{near(unknown[0], sorted(optimizers))} Tuned are: "
            f"{', '.join(sorted(optimizers))}."
        )
    if settings.seeds == UNTIL_DECIDED and len(contestants) < 2:
        raise ValueError(
            f"seeds={UNTIL_DECIDED} compares winners, and here is only one: give several optimizers, or a number of "
            "seeds, such as seeds=5."
        )


def check_shared(configs: Mapping[str, DictConfig]) -> None:
    """Refuse contestants that train for different times, or test different weights."""
    for key in ("trainer.max_epochs", "test_weights"):
        values = {str(OmegaConf.select(its, key)) for its in configs.values()}
        if len(values) > 1:
            raise ValueError(
                f"{key} is {' and '.join(sorted(values))}: all that one tuning compares has the same. Give {key} one "
                "value, and start a tuning for each."
            )


def first_seed(arguments: Sequence[str]) -> int:
    """The seed of the search, 0 unless one was typed.

    Raises:
        ValueError: for several seeds, or what is none.
    """
    typed = [argument for argument in arguments if key_of(argument) == "seed"]
    if not typed:
        return 0
    _, values = override_values(typed[-1])
    if len(values) != 1 or type(values[0]) is not int or values[0] < 0:
        raise ValueError(
            f"{typed[-1]}: a tuning takes one number, at least 0, with which its search runs; the seeds of the final "
            "follow it. seeds=5 says how many those are."
        )
    return int(values[0])


def check_tests(cfg: DictConfig, settings: Settings) -> None:
    """Refuse what would read the test set in the search, or never."""
    if cfg.test_weights not in ("best", "last"):
        raise ValueError(
            f"test_weights={cfg.test_weights}: the final tests its winners once, so use best or last. Search and "
            "shortlist never read the test set."
        )
    if type(cfg.trainer.max_epochs) is not int or cfg.trainer.max_epochs < 1:
        raise ValueError(f"trainer.max_epochs={cfg.trainer.max_epochs} must be a whole number of at least 1.")
    if settings.epochs and settings.epochs > cfg.trainer.max_epochs:
        raise ValueError(
            f"epochs={settings.epochs} of a trial are more than the final has: use at most "
            f"epochs={cfg.trainer.max_epochs}, or raise trainer.max_epochs."
        )


def make_contestant(
    overrides: Sequence[str], varied: Sequence[str], cfg: DictConfig, given: Mapping[str, Mapping[str, str]]
) -> tuple[Contestant, list[Dimension]]:
    """One combination of what the command varies, with its space and its defaults.

    Raises:
        ValueError: where nothing is left to search, or a default has no place in the space.
    """
    choices = cfg.hydra.runtime.choices
    optimizer = str(choices["optimizer"])
    groups = {*choices, "augmentation"}  # Hydra keeps no list of choices
    others = [text for text in overrides if key_of(text) in varied and key_of(text) != "optimizer"]
    name = folder_name("_".join([optimizer, *(word_of(text, groups) for text in others)])) or optimizer
    typed = {key_of(text) for text in overrides} - groups
    space = [
        dimension
        for dimension in read_space(optimizer, given.get(optimizer, {}))
        if not any(dimension.key == key or dimension.key.startswith(f"{key}.") for key in typed)  # it is fixed
    ]
    if not space:
        raise ValueError(f"{name}: every setting of its space is fixed by this command, so there is nothing to search.")
    defaults = {dimension.key: default(dimension, optimizer, cfg) for dimension in space}
    lines = {dimension.name: dimension.text for dimension in space}
    which = [override for override in overrides if key_of(override) in varied]
    return Contestant(name, optimizer, list(overrides), which, lines, axes_of(space), trials=[Trial(defaults)]), space


def word_of(override: str, groups: Collection[str]) -> str:
    """`cosine` of scheduler=cosine, `dropout-0.25` of model.dropout=0.25: as +tuned= can have."""
    key, (_, _, value) = key_of(override), override.partition("=")
    value = re.sub(r"[\[\]'\" ]", "", value).replace(",", "+").replace("=", "-")
    return value if key in groups else f"{key.rpartition('.')[2]}-{value}"


def axes_of(space: Sequence[Dimension]) -> list[Axis]:
    """Its intervals, as tuning.json has them."""
    found = [(dimension, dimension.values) for dimension in space if isinstance(dimension.values, Interval)]
    return [Axis(d.key, values.low, values.high, values.log, d.one_minus) for d, values in found]


def default(dimension: Dimension, optimizer: str, cfg: DictConfig) -> Any:
    """The value of a setting without a search.

    Raises:
        ValueError: where the configuration has no such key, or no number where one is searched.
    """
    key = dimension.key
    if not SEARCHABLE.match(key):
        raise ValueError(
            f"{dimension.source}: {key} cannot be searched. A space has keys of optimizer, scheduler, model, "
            "augmentation and averaging, data.batch_size, weight_decay_on, label_smoothing, l1, "
            "trainer.gradient_clip_val and trainer.accumulate_grad_batches: what makes a method, not what it is "
            "measured by."
        )
    missing = object()
    try:
        value = OmegaConf.select(cfg, key, default=missing, throw_on_missing=False)
    except OmegaConfBaseException:  # such as betas.first: a list has numbers
        value = missing
    if value is missing:
        group = key.partition(".")[0]
        known = list(keys_below(cfg[group], group)) if cfg[group] is not None else []
        there = (
            f"There are: {some(known, 12)}." if known else f"{group} has no keys here: give {group} a choice that has."
        )
        choice = cfg.hydra.runtime.choices.get(group, "none")
        raise ValueError(f"{dimension.source}: {key} is no key of {group}={choice}{near(key, known)} {there}")
    if (isinstance(dimension.values, Interval) or dimension.one_minus) and not (value is None or is_number(value)):
        raise ValueError(f"{dimension.source}: {key} is {value}, no number, so it can't be searched in an interval.")
    if isinstance(dimension.values, Interval) and type(value) is int and not dimension.values.whole:
        low, high = (wording.text(end) for end in (dimension.values.low, dimension.values.high))
        raise ValueError(
            f"{dimension.source}: {key} is {value}, a whole number, and {dimension.text} also has others. Write "
            f"int(interval({low}, {high})), or tag(log, int(interval({low}, {high})))."
        )
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def read_space(optimizer: str, given: Mapping[str, str]) -> list[Dimension]:
    """The space in configs/search/<optimizer>.yaml, with the lines that the command gives.

    Raises:
        ValueError: where there is none, or a line cannot be read.
    """
    path = SPACES / f"{optimizer}.yaml"
    lines: dict[str, Any] = {}
    if path.is_file():
        try:
            lines = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
        if not isinstance(lines, dict):
            raise ValueError(f"{path} must be lines such as {EXAMPLE}.")
    elif not given:
        known = sorted(file.stem for file in SPACES.glob("*.yaml"))
        raise ValueError(
            f"optimizer={optimizer} has no search space{near(optimizer, known)} There are spaces for: "
            f"{', '.join(known)}. To write one, make {path.relative_to(PROJECT)} with a line for each key, for example "
            f"{EXAMPLE}; or type search.{optimizer}.optimizer.lr='tag(log, interval(1e-4, 1e-2))'."
        )
    sources = dict.fromkeys(lines, str(path.relative_to(PROJECT)))
    for name, text in given.items():
        keys = {searched_key(line): line for line in lines}
        same = keys.get(searched_key(name), name)  # `optimizer.momentum` also replaces `1 - optimizer.momentum`
        if same not in lines and text in NULL:
            known = list(map(str, lines))
            raise ValueError(
                f"search.{optimizer}.{name}={text} takes out what the space of {optimizer} does not have"
                f"{near(name, known)} It has: {', '.join(known)}."
            )
        lines = {name if line == same else line: old for line, old in lines.items()} | {name: text}
        sources[name] = f"search.{optimizer}"
    space = [read_dimension(str(name), text, sources[name]) for name, text in lines.items() if str(text) not in NULL]
    for part in space:
        if inner := [other.key for other in space if other.key.startswith(f"{part.key}.")]:
            raise ValueError(
                f"{part.source}: {part.key} and {inner[0]} would set the same value: search one of them, and take the "
                f"other one out with null."
            )
    return space


def searched_key(line: Any) -> str:
    """`optimizer.momentum` of `1 - optimizer.momentum`."""
    return ONE_MINUS.sub("", str(line)).strip()


def read_lines(search: Sequence[str]) -> dict[str, dict[str, str]]:
    """Lines of spaces from the command: optimizer -> key -> what it may be. `null` takes a key out of the space."""
    found: dict[str, dict[str, str]] = {}
    for line in search:
        left, _, text = str(line).partition("=")
        optimizer, _, name = left.partition(".")
        if not (optimizer and name and text):
            raise ValueError(
                f"search.{line} cannot be read. Write search.<optimizer>.<key>='<range>', for example "
                "search.adam.optimizer.lr='tag(log, interval(1e-4, 1e-2))'; null takes the key out of the space."
            )
        found.setdefault(optimizer, {})[name] = text.strip("'\"")
    return found
