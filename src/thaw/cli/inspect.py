"""`thaw inspect OVERRIDES`: what a recipe's network is made of and costs. Needs no weights and no data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thaw.cli.arguments import CONFIG_DIR_OPTION, get_config_dir_arguments, is_help_request, parse_arguments
from thaw.cli.table import Column, build_console, print_table
from thaw.config.compose import compose_recipe
from thaw.config.errors import EXIT_SUCCESS
from thaw.config.schema import CaptchaDatasetConfig, Recipe

if TYPE_CHECKING:
    from thaw.models.cost import LayerInfo, StageCost
    from thaw.models.network import Network
    from thaw.strategy.plan import Plan

IMAGENET_CLASSES = 1000
FLAGS = ("--layers", "--plan")
STAGE_COLUMNS = [
    Column("stage", no_wrap=True),
    Column("output", no_wrap=True),
    *(Column(heading, is_numeric=True) for heading in ("parameters", "share", "GMACs", "BatchNorms")),
]
LAYER_COLUMNS = [
    Column("stage", no_wrap=True),
    Column("layer"),
    Column("type"),
    Column("output", no_wrap=True),
    Column("parameters", is_numeric=True),
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
class NetworkSummary:
    """What is to be said of a network, without the network."""

    image_size: int
    stages: list[StageCost]
    layers: list[LayerInfo]
    plan: Plan | None
    num_trainable: int


def run(arguments: Sequence[str]) -> int:
    """Prints the tables that `arguments` ask for and returns the exit status.

    Raises:
        UserFault: where the settings are wrong, or the network cannot be cut into stages.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    options, overrides = parse_arguments(arguments, (CONFIG_DIR_OPTION,), FLAGS)
    # Without a package of weights, which need not be installed here.
    recipe = compose_recipe([*get_config_dir_arguments(options), *overrides, "backbone.package=null"])
    has_dataset = any(
        override.lstrip("+").split("=")[0].split(".")[0] in ("dataset", "experiment") for override in overrides
    )
    num_classes = (
        len(recipe.dataset.characters)
        if has_dataset and isinstance(recipe.dataset, CaptchaDatasetConfig)
        else IMAGENET_CLASSES
    )
    summary = _build_summary(recipe, recipe.dataset.image_size if has_dataset else None, num_classes, options)
    print(_format_title(recipe, summary.image_size, has_dataset, num_classes))
    _print_stages(summary.stages)
    if summary.layers:
        _print_layers(summary.layers)
    if summary.plan:
        _print_plan(recipe, summary, summary.plan)
    return EXIT_SUCCESS


def _build_summary(
    recipe: Recipe, image_size: int | None, num_classes: int, options: Collection[str]
) -> NetworkSummary:
    import warnings

    from thaw.models.cost import on_meta_device

    with warnings.catch_warnings(action="ignore"):  # of constructors, on how they would initialise
        return on_meta_device(lambda: _inspect_network(recipe, image_size, num_classes, options))


def _inspect_network(
    recipe: Recipe, image_size: int | None, num_classes: int, options: Collection[str]
) -> NetworkSummary:
    from thaw.models.cost import compute_stage_costs, list_layers
    from thaw.models.factory import load_seeded_pretrained, uninitialized_network
    from thaw.system.cache_folder import resolve_cache_dir

    pretrained_model = load_seeded_pretrained(
        recipe.backbone, True, recipe.seed, resolve_cache_dir(recipe.data.cache_dir), None, image_size
    )
    preprocessing = pretrained_model.preprocessing.with_size(image_size, recipe.dataset.crop)
    network = uninitialized_network(pretrained_model, recipe.head, num_classes, preprocessing)
    stages = compute_stage_costs(network, preprocessing.size)
    network_layers = list_layers(network, preprocessing.size) if "--layers" in options else []
    plan, num_trainable = _build_plan(recipe, network) if "--plan" in options else (None, 0)
    return NetworkSummary(preprocessing.size, stages, network_layers, plan, num_trainable)


def _build_plan(recipe: Recipe, network: Network) -> tuple[Plan, int]:
    from thaw.models.network import HEAD
    from thaw.models.parameters import count_parameters
    from thaw.training.freezing import collect_trainable_parameters, plan_for_recipe

    plan = plan_for_recipe(recipe, network)
    return plan, count_parameters(collect_trainable_parameters(network, plan, [*network.stages, HEAD]))


def _format_title(recipe: Recipe, image_size: int, has_dataset: bool, num_classes: int) -> str:
    name = recipe.dataset.name
    has_own_size = has_dataset and recipe.dataset.image_size
    size_origin = f"of dataset={name}" if has_own_size else "the size of the default weights"
    classes_origin = "as in ImageNet"
    if has_dataset:
        classes_origin = (
            f"of dataset={name}"
            if isinstance(recipe.dataset, CaptchaDatasetConfig)
            else f"as those of {name} are not read"
        )
    model_name = f"{recipe.backbone.library} {recipe.backbone.name}"
    return (
        f"{model_name}\nimages of {image_size} x {image_size}, {size_origin}; {num_classes} classes, {classes_origin}\n"
    )


def _print_stages(stages: Sequence[StageCost]) -> None:
    total_parameters = sum(stage.facts.num_parameters for stage in stages)
    rows = [
        _build_stage_row(
            stage.facts.name, _format_shape(stage.facts.shape), stage.facts.num_parameters, total_parameters, stage
        )
        for stage in stages
    ]
    gmacs, batchnorms = (
        sum(stage.multiply_adds for stage in stages) / 1e9,
        sum(stage.num_batchnorms for stage in stages),
    )
    print_table(
        STAGE_COLUMNS, [*rows, ["total", "", f"{total_parameters:,}", "100.0%", f"{gmacs:.4f}", str(batchnorms)]]
    )
    build_console().print("\nGMACs: billions of multiply-adds for one image, often called GFLOPs")


def _build_stage_row(name: str, shape: str, parameters: int, total: int, cost: StageCost) -> list[str]:
    share = f"{parameters / total:.1%}"
    return [name, shape, f"{parameters:,}", share, f"{cost.multiply_adds / 1e9:.4f}", str(cost.num_batchnorms)]


def _format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _print_layers(layers: Sequence[LayerInfo]) -> None:
    previous_stages = ["", *(layer.stage for layer in layers)]
    rows = [
        [
            layer.stage if layer.stage != previous_stage else "",
            layer.path,
            layer.module_type,
            "-" if layer.shape is None else _format_shape(layer.shape),
            f"{layer.num_parameters:,}" if layer.num_parameters else "-",
        ]
        for layer, previous_stage in zip(layers, previous_stages, strict=False)
    ]
    build_console().print()
    print_table(LAYER_COLUMNS, rows)


def _print_plan(recipe: Recipe, summary: NetworkSummary, plan: Plan) -> None:
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_plan

    total = sum(stage.facts.num_parameters for stage in summary.stages)
    build_console().print()
    facts = [stage.facts for stage in summary.stages]
    counts = {"total": total, "trainable": summary.num_trainable}
    print_plan(ConsoleReporter(), facts, plan, counts, recipe.strategy.l2_sp)
