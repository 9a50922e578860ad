"""`thaw inspect OVERRIDES`: what a recipe's network is made of and costs. Needs no weights and no data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thaw.commands.table import Column, console, print_table
from thaw.commands.verbs import asks_for_help
from thaw.commands.words import CONFIG_DIR, own_presets, sorted_words
from thaw.config.command import recipe_for
from thaw.config.faults import DONE
from thaw.config.schema import Captcha, Recipe

if TYPE_CHECKING:
    from thaw.network.cost import Layer, StageCost
    from thaw.network.network import Network
    from thaw.strategy.plan import Plan

IMAGENET_CLASSES = 1000
OPTIONS = ("--layers", "--plan")
STAGE_COLUMNS = [
    Column("stage", keep=True),
    Column("output", keep=True),
    *(Column(one, number=True) for one in ("parameters", "share", "GMACs", "BatchNorms")),
]
LAYER_COLUMNS = [
    Column("stage", keep=True),
    Column("layer"),
    Column("type"),
    Column("output", keep=True),
    Column("parameters", number=True),
]
HELP = """thaw inspect backbone=NAME [key=value ...] [--layers] [--plan] [--config-dir DIR]

  The stages of a network: what each puts out, its parameters, its multiply-adds and its BatchNorm layers.

  --layers    every layer too: its path, type, output and own parameters, by stage; identities are left out
  --plan      what the recipe's strategy trains, and at which rates, phase by phase
  --config-dir DIR    presets of your own, as train.py takes them

    thaw inspect backbone=resnet18
    thaw inspect backbone=timm backbone.name=vit_small_patch16_224 --layers
    thaw inspect backbone=resnet18 strategy=fixed --plan

Settings are those of python train.py. Where they name no data set (dataset=, dataset.KEY=, experiment=), images have
the size of the default weights and there are 1000 classes, as in ImageNet; where they do, images have its size, and
classes are counted for captcha alone, as no data set is read. Nothing is fetched, and no weights are needed.
GMACs are billions of multiply-adds for one image, which many papers call GFLOPs: those of convolutions, matrix products
and attention. Exit status: 0, or 2 where there is something for you to change."""


@dataclass(frozen=True)
class Anatomy:
    """What is to be said of a network, without the network."""

    size: int
    stages: list[StageCost]
    layers: list[Layer]
    plan: Plan | None
    trainable: int


def run(arguments: Sequence[str]) -> int:
    """Prints the tables that `arguments` ask for and returns the exit status.

    Raises:
        UserFault: where the settings are wrong, or the network cannot be cut into stages.
    """
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    options, overrides = sorted_words(arguments, (CONFIG_DIR,), OPTIONS)
    # Without a package of weights, which need not be installed here.
    recipe = recipe_for([*own_presets(options), *overrides, "backbone.package=null"])
    of_dataset = any(one.lstrip("+").split("=")[0].split(".")[0] in ("dataset", "experiment") for one in overrides)
    classes = len(recipe.dataset.characters) if of_dataset and isinstance(recipe.dataset, Captcha) else IMAGENET_CLASSES
    anatomy = _anatomy(recipe, recipe.dataset.image_size if of_dataset else None, classes, options)
    print(_title(recipe, anatomy.size, of_dataset, classes))
    _print_stages(anatomy.stages)
    if anatomy.layers:
        _print_layers(anatomy.layers)
    if anatomy.plan:
        _print_plan(recipe, anatomy, anatomy.plan)
    return DONE


def _anatomy(recipe: Recipe, size: int | None, classes: int, options: Collection[str]) -> Anatomy:
    import warnings

    from thaw.network.cost import without_values

    with warnings.catch_warnings(action="ignore"):  # of constructors, on how they would initialise
        return without_values(lambda: _looked_at(recipe, size, classes, options))


def _looked_at(recipe: Recipe, size: int | None, classes: int, options: Collection[str]) -> Anatomy:
    from thaw.data.cache import cache_folder
    from thaw.network.build import source_for, unstarted_network
    from thaw.network.cost import layers, stage_costs

    source = source_for(recipe.backbone, True, recipe.seed, cache_folder(recipe.data.cache), None, size)
    preprocessing = source.preprocessing.at(size, recipe.dataset.crop)
    network = unstarted_network(source, recipe.head, classes, preprocessing)
    stages = stage_costs(network, preprocessing.size)
    listed = layers(network, preprocessing.size) if "--layers" in options else []
    plan, trainable = _planned(recipe, network) if "--plan" in options else (None, 0)
    return Anatomy(preprocessing.size, stages, listed, plan, trainable)


def _planned(recipe: Recipe, network: Network) -> tuple[Plan, int]:
    from thaw.network.kinds import size_of
    from thaw.network.network import HEAD
    from thaw.training.objective import trained_parameters
    from thaw.training.planning import plan_of

    plan = plan_of(recipe, network)
    return plan, size_of(trained_parameters(network, plan, [*network.stages, HEAD]))


def _title(recipe: Recipe, size: int, of_dataset: bool, classes: int) -> str:
    name = recipe.dataset.name
    own_size = of_dataset and recipe.dataset.image_size
    sized = f"of dataset={name}" if own_size else "the size of the default weights"
    counted = "as in ImageNet"
    if of_dataset:
        counted = f"of dataset={name}" if isinstance(recipe.dataset, Captcha) else f"as those of {name} are not read"
    what = f"{recipe.backbone.library} {recipe.backbone.name}"
    return f"{what}\nimages of {size} x {size}, {sized}; {classes} classes, {counted}\n"


def _print_stages(stages: Sequence[StageCost]) -> None:
    parameters = sum(one.facts.parameters for one in stages)
    rows = [_row(one.facts.name, _shape(one.facts.shape), one.facts.parameters, parameters, one) for one in stages]
    gmacs, batchnorms = sum(one.multiply_adds for one in stages) / 1e9, sum(one.batchnorms for one in stages)
    print_table(STAGE_COLUMNS, [*rows, ["total", "", f"{parameters:,}", "100.0%", f"{gmacs:.4f}", str(batchnorms)]])
    console().print("\nGMACs: billions of multiply-adds for one image, often called GFLOPs")


def _row(name: str, shape: str, parameters: int, total: int, cost: StageCost) -> list[str]:
    share = f"{parameters / total:.1%}"
    return [name, shape, f"{parameters:,}", share, f"{cost.multiply_adds / 1e9:.4f}", str(cost.batchnorms)]


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _print_layers(layers: Sequence[Layer]) -> None:
    before = ["", *(one.stage for one in layers)]
    rows = [
        [
            one.stage if one.stage != last else "",
            one.path,
            one.kind,
            "-" if one.shape is None else _shape(one.shape),
            f"{one.parameters:,}" if one.parameters else "-",
        ]
        for one, last in zip(layers, before, strict=False)
    ]
    console().print()
    print_table(LAYER_COLUMNS, rows)


def _print_plan(recipe: Recipe, anatomy: Anatomy, plan: Plan) -> None:
    from thaw.training.tables import print_plan

    total = sum(one.facts.parameters for one in anatomy.stages)
    console().print()
    facts = [one.facts for one in anatomy.stages]
    print_plan(facts, plan, {"total": total, "trainable": anatomy.trainable}, recipe.strategy.source_pull)
