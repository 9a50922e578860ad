"""`thaw inspect key=value`: show what a recipe's network consists of and costs. Needs no weights and no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import compose_recipe
from thaw.cli.grammar import ANY_RECIPE_KEY, Verb
from thaw.cli.options import config_dir_option, flag
from thaw.config.errors import EXIT_SUCCESS

if TYPE_CHECKING:
    from thaw.config.schema import Recipe
    from thaw.models.cost import LayerInfo, StageCost
    from thaw.strategy.plan import Plan
    from thaw.training.freezing import NetworkSummary

IMAGENET_CLASSES = 1000
DATASET_GROUPS = ("dataset", "experiment")


@Verb(
    "inspect",
    summary="show a network's stages and layers: shapes, parameters, multiply-adds",
    examples=(
        "thaw inspect backbone=timm backbone.name=vit_small_patch16_224 --layers",
        "thaw inspect backbone=resnet18 strategy=fixed --plan",
    ),
    description="If the overrides name no data set (dataset=, dataset.KEY=, experiment=), images have the size of the "
    "default weights and there are 1000 classes, as in ImageNet. If they do, images have its size; classes are counted "
    "only for captcha, because no data set is read. Nothing is downloaded.\n\n"
    "GMACs are billions of multiply-adds for one image, which many papers call GFLOPs: those of convolutions, matrix "
    "products and attention.",
    options=(
        flag("--layers", "every layer too, by stage: path, type, output and own parameters; identities are left out"),
        flag("--plan", "what the recipe's strategy trains, at which rates, in each phase"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    no_args_is_help=True,
)
def inspect(overrides: Sequence[str], layers: bool, plan: bool, config_dir: Path | None) -> int:
    """Print the tables of the recipe's network and return the exit status.

    Raises:
        UserError: if the recipe is wrong, or the network cannot be split into stages.
    """
    # Weights are not read: their package need not be installed, and a strategy need not have any.
    recipe = compose_recipe([*overrides, "backbone.package=null", "backbone.weights=default"], config_dir)
    has_dataset = any(key.lstrip("+").split("=")[0].split(".")[0] in DATASET_GROUPS for key in overrides)
    from thaw.training.freezing import summarize_network

    image_size = recipe.dataset.image_size if has_dataset else None
    num_classes = (has_dataset and _count_characters(recipe)) or IMAGENET_CLASSES
    summary = summarize_network(recipe, image_size, num_classes, with_layers=layers, with_plan=plan)
    print(_format_title(recipe, summary.image_size, has_dataset, num_classes))
    _print_stages(summary.stages)
    if summary.unevenness:
        print(f"\n{summary.unevenness}: strategies that count stages (partial, gradual, ...) are refused")
    if layers:
        _print_layers(summary.layers)
    if summary.plan:
        _print_plan(recipe, summary, summary.plan)
    return EXIT_SUCCESS


def _count_characters(recipe: Recipe) -> int:
    """Return the number of classes of captcha characters; 0 for other data sets."""
    return len(getattr(recipe.dataset, "characters", ""))


def _format_title(recipe: Recipe, image_size: int, has_dataset: bool, num_classes: int) -> str:
    name = recipe.dataset.name
    has_own_size = has_dataset and recipe.dataset.image_size
    size_origin = f"of dataset={name}" if has_own_size else "the size of the default weights"
    classes_origin = "as in ImageNet"
    if has_dataset:
        is_counted = _count_characters(recipe) > 0
        classes_origin = f"of dataset={name}" if is_counted else f"as those of {name} are not read"
    images = f"images of {image_size} x {image_size}, {size_origin}; {num_classes} classes, {classes_origin}"
    return f"{recipe.backbone.library} {recipe.backbone.name}\n{images}\n"


def _print_stages(stages: Sequence[StageCost]) -> None:
    from thaw.cli.table import Column, print_table
    from thaw.system.terminal import build_console

    total = sum(stage.facts.num_parameters for stage in stages)
    numeric = [Column(heading, is_numeric=True) for heading in ("parameters", "share", "GMACs", "BatchNorms")]
    columns = [Column("stage", no_wrap=True), Column("output", no_wrap=True), *numeric]
    gmacs, batchnorms = sum(stage.multiply_adds for stage in stages), sum(stage.num_batchnorms for stage in stages)
    last_row = ["total", "", f"{total:,}", "100.0%", f"{gmacs / 1e9:.4f}", str(batchnorms)]
    print_table(columns, [*(_build_stage_row(stage, total) for stage in stages), last_row])
    build_console().print("\nGMACs: billions of multiply-adds for one image, often called GFLOPs")


def _build_stage_row(stage: StageCost, total: int) -> list[str]:
    facts = stage.facts
    parameters, share = f"{facts.num_parameters:,}", f"{facts.num_parameters / total:.1%}"
    gmacs = f"{stage.multiply_adds / 1e9:.4f}"
    return [facts.name, _format_shape(facts.shape), parameters, share, gmacs, str(stage.num_batchnorms)]


def _format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _print_layers(layers: Sequence[LayerInfo]) -> None:
    from thaw.cli.table import Column, print_table
    from thaw.system.terminal import build_console

    columns = [Column("stage", no_wrap=True), Column("layer"), Column("type"), Column("output", no_wrap=True)]
    rows, previous_stage = [], ""
    for layer in layers:
        stage = layer.stage if layer.stage != previous_stage else ""
        shape = "-" if layer.shape is None else _format_shape(layer.shape)
        parameters = f"{layer.num_parameters:,}" if layer.num_parameters else "-"
        rows.append([stage, layer.path, layer.module_type, shape, parameters])
        previous_stage = layer.stage
    build_console().print()
    print_table([*columns, Column("parameters", is_numeric=True)], rows)


def _print_plan(recipe: Recipe, summary: NetworkSummary, plan: Plan) -> None:
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_plan

    facts = [stage.facts for stage in summary.stages]
    counts = {"total": sum(stage.num_parameters for stage in facts), "trainable": summary.num_trainable}
    print()
    print_plan(ConsoleReporter(), facts, plan, counts, recipe.strategy.l2_sp)
