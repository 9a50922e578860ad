"""Keys and choices that newcomers type, by the words of other libraries, and what to type instead. Data only.

A fix is one or more overrides in which `{value}` is the value that was typed. A dict chooses the fix by the value (in
lower case); its entry "*" is for all other values. A fix without `=` is advice. `suggestions.py` completes a fix: it
checks the choice or the value in it and replaces it if it is not valid.
"""

from __future__ import annotations

Fix = str | dict[str, str]

# Sections under which other libraries have the keys below: `trainer.lr` is read as `lr`.
SECTIONS = frozenset(
    "args augment backbone cfg config data dataset datamodule dataloader fit hparams loader model module network optim "
    "optimizer params scheduler strategy train trainer training".split()
)

_LEARNING_RATE = "optimizer.learning_rate={value}"
_BATCH_SIZE = "trainer.batch_size={value}"
_EPOCHS = "trainer.epochs={value}"
_BACKBONE = "backbone={value}"
_ROOT = "dataset=folder dataset.root={value}"
_IMAGE_SIZE = "dataset.image_size={value}"
_GPUS: Fix = {
    "0": "trainer.accelerator=cpu",
    "-1": "trainer=ddp trainer.accelerator=gpu",
    "*": "trainer.accelerator=gpu trainer.devices={value}",
}
_DEVICE: Fix = {"cpu": "trainer.accelerator=cpu", "auto": "trainer.accelerator=auto", "*": "trainer.accelerator=gpu"}
_USE_GPU: Fix = {"false": "trainer.accelerator=cpu", "*": "trainer.accelerator=gpu"}
_PRETRAINED: Fix = {"false": "strategy=scratch", "*": "strategy=finetune"}
_FREEZE: Fix = {"false": "strategy=finetune", "*": "strategy=fixed"}
_CLASS_WEIGHTS: Fix = {"false": "trainer.class_balance=none", "*": "trainer.class_balance=weights"}
_AMP: Fix = {"false": "trainer.precision=32-true", "*": "trainer.precision=auto"}
_EARLY_STOPPING = "'trainer.early_stopping={{patience: {value}}}'"
_COUNTED = "leave it out: the classes of the data set are counted"

KEY_GUESSES: dict[str, Fix] = {
    # the optimizer
    "lr": _LEARNING_RATE,
    "learning_rate": _LEARNING_RATE,
    "base_lr": _LEARNING_RATE,
    "max_lr": _LEARNING_RATE,
    "lr0": _LEARNING_RATE,
    "init_lr": _LEARNING_RATE,
    "eta": _LEARNING_RATE,
    "wd": "optimizer.weight_decay={value}",
    "weight_decay": "optimizer.weight_decay={value}",
    "l2": "optimizer.weight_decay={value}",
    "momentum": "optimizer=sgd optimizer.arguments.momentum={value}",
    "nesterov": "optimizer=sgd optimizer.arguments.nesterov={value}",
    "betas": "optimizer.arguments.betas={value}",
    "opt": "optimizer={value}",
    "optim": "optimizer={value}",
    # the schedule
    "lr_scheduler": "scheduler={value}",
    "lr_schedule": "scheduler={value}",
    "sched": "scheduler={value}",
    "schedule": "scheduler={value}",
    "warmup": "scheduler=cosine scheduler.warmup_epochs={value}",
    "warmup_epochs": "scheduler=cosine scheduler.warmup_epochs={value}",
    # length and size of the training
    "max_epochs": _EPOCHS,
    "num_epochs": _EPOCHS,
    "n_epochs": _EPOCHS,
    "nb_epochs": _EPOCHS,
    "epochs": _EPOCHS,
    "epoch": _EPOCHS,
    "bs": _BATCH_SIZE,
    "batch": _BATCH_SIZE,
    "batchsize": _BATCH_SIZE,
    "batch_size": _BATCH_SIZE,
    "train_batch_size": _BATCH_SIZE,
    "per_device_train_batch_size": _BATCH_SIZE,
    "grad_accum": "trainer.accumulate_grad_batches={value}",
    "accumulation_steps": "trainer.accumulate_grad_batches={value}",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches={value}",
    "clip_grad": "trainer.gradient_clip_val={value}",
    "grad_clip": "trainer.gradient_clip_val={value}",
    "max_grad_norm": "trainer.gradient_clip_val={value}",
    "patience": _EARLY_STOPPING,
    "smoothing": "trainer.label_smoothing={value}",
    "label_smoothing": "trainer.label_smoothing={value}",
    "class_weight": _CLASS_WEIGHTS,
    "class_weights": _CLASS_WEIGHTS,
    "tta": {"false": "trainer.test_time_augmentation=none", "*": "trainer.test_time_augmentation=flip"},
    "ema": {"false": "trainer.averaging=null", "*": "'trainer.averaging={{kind: ema}}'"},
    "swa": {"false": "trainer.averaging=null", "*": "'trainer.averaging={{kind: swa, start: 0.5}}'"},
    # hardware
    "gpu": {"true": "trainer.accelerator=gpu", "false": "trainer.accelerator=cpu", "*": "trainer.accelerator=gpu"},
    "gpus": _GPUS,
    "num_gpus": _GPUS,
    "n_gpus": _GPUS,
    "ngpu": _GPUS,
    "device": _DEVICE,
    "cuda": _USE_GPU,
    "use_cuda": _USE_GPU,
    "use_gpu": _USE_GPU,
    "accelerator": "trainer.accelerator={value}",
    "num_devices": "trainer.devices={value}",
    "devices": "trainer.devices={value}",
    "nodes": "trainer=ddp trainer.num_nodes={value}",
    "precision": "trainer.precision={value}",
    "amp": _AMP,
    "fp16": {"false": "trainer.precision=32-true", "*": "trainer.precision=16-mixed"},
    "bf16": {"false": "trainer.precision=32-true", "*": "trainer.precision=bf16-mixed"},
    "workers": "trainer.num_workers={value}",
    "num_workers": "trainer.num_workers={value}",
    "num_threads": "trainer.threads={value}",
    "random_seed": "seed={value}",
    "random_state": "seed={value}",
    "manual_seed": "seed={value}",
    # the network
    "model": _BACKBONE,
    "model_name": _BACKBONE,
    "arch": _BACKBONE,
    "architecture": _BACKBONE,
    "net": _BACKBONE,
    "network": _BACKBONE,
    "encoder": _BACKBONE,
    "base_model": _BACKBONE,
    "model.name": _BACKBONE,
    "network.name": _BACKBONE,
    "pretrained": _PRETRAINED,
    "weights": "backbone.weights={value}",
    "model.weights": "backbone.weights={value}",
    "freeze": _FREEZE,
    "frozen": _FREEZE,
    "freeze_backbone": _FREEZE,
    "fine_tune": {"false": "strategy=fixed", "*": "strategy=finetune"},
    "finetune": {"false": "strategy=fixed", "*": "strategy=finetune"},
    "from_scratch": {"false": "strategy=finetune", "*": "strategy=scratch"},
    "mode": "strategy={value}",
    "method": "strategy={value}",
    "drop_rate": "head.dropout={value}",
    "drop": "head.dropout={value}",
    "dropout": "head.dropout={value}",
    "num_classes": _COUNTED,
    "n_classes": _COUNTED,
    "classes": _COUNTED,
    "nb_classes": _COUNTED,
    # the data
    "data_dir": _ROOT,
    "data_path": _ROOT,
    "data_root": _ROOT,
    "dataset_dir": _ROOT,
    "root": _ROOT,
    "dataset.path": _ROOT,
    "dataset.dir": _ROOT,
    "dataset.folder_path": _ROOT,
    "data.path": _ROOT,
    "data.dir": _ROOT,
    "train_dir": "dataset=folder dataset.root=DIR dataset.splits.train={value}",
    "data": "dataset={value}",
    "data.name": "dataset={value}",
    "ds": "dataset={value}",
    "image_size": _IMAGE_SIZE,
    "img_size": _IMAGE_SIZE,
    "imgsz": _IMAGE_SIZE,
    "input_size": _IMAGE_SIZE,
    "crop_size": _IMAGE_SIZE,
    "resolution": _IMAGE_SIZE,
    "size": _IMAGE_SIZE,
    "val_split": "dataset=folder dataset.root=DIR dataset.fractions.val={value}",
    "test_split": "dataset=folder dataset.root=DIR dataset.fractions.test={value}",
    "aug": "augment={value}",
    "augs": "augment={value}",
    "augmentation": "augment={value}",
    "augmentations": "augment={value}",
    "transform": "augment={value}",
    "transforms": "augment={value}",
    "mixup": {"false": "augment=none", "*": "augment=mix"},
    "cutmix": {"false": "augment=none", "*": "augment=mix"},
    # the run
    "cache_features": {"false": "feature_cache=off", "*": "feature_cache=auto"},
    "out": "output_dir={value}",
    "out_dir": "output_dir={value}",
    "output": "output_dir={value}",
    "save_dir": "output_dir={value}",
    "log_dir": "output_dir={value}",
    "checkpoint": "resume={value}",
    "ckpt": "resume={value}",
    "ckpt_path": "resume={value}",
    "resume_from_checkpoint": "resume={value}",
}

# group -> choice that does not exist -> fix. Case, hyphens and underscores do not count: `One-Cycle` is `onecycle`.
CHOICE_GUESSES: dict[str, dict[str, str]] = {
    "strategy": {
        "freeze": "strategy=fixed",
        "frozen": "strategy=fixed",
        "linearprobe": "strategy=fixed",
        "linearprobing": "strategy=fixed",
        "probe": "strategy=fixed",
        "headonly": "strategy=fixed",
        "head": "strategy=fixed",
        "featureextraction": "strategy=fixed",
        "featureextractor": "strategy=fixed",
        "fixedfeatures": "strategy=fixed",
        "transfer": "strategy=finetune",
        "full": "strategy=finetune",
        "all": "strategy=finetune",
        "unfreeze": "strategy=finetune",
        "unfrozen": "strategy=finetune",
        "pretrained": "strategy=finetune",
        "random": "strategy=scratch",
        "fromscratch": "strategy=scratch",
        "none": "strategy=scratch",
        "gradualunfreezing": "strategy=gradual",
        "ulmfit": "strategy=gradual",
        "bitfit": "strategy=bias_only",
        "layerwise": "strategy=discriminative",
        "llrd": "strategy=discriminative",
    },
    "dataset": {
        name: "dataset=folder dataset.root=DIR"
        for name in "imagefolder images image local custom own cifar100 mnist fashionmnist emnist svhn stl10 imagenet "
        "tinyimagenet imagenette food101 flowers102 oxfordpets pets cub200 catsdogs dogscats stanfordcars aircraft "
        "caltech256 places365 eurosat".split()
    }
    | {
        "cifar": "dataset=cifar10",
        "caltech": "dataset=caltech101",
        "antsbees": "dataset=hymenoptera",
        "dogs": "dataset=dog_breeds",
        "table": "dataset=csv dataset.root=DIR",
    },
    "backbone": {
        "resnet": "backbone=resnet18",
        "vgg": "backbone=vgg16",
        "efficientnet": "backbone=efficientnet_lite0",
        "vit": "backbone=timm backbone.name=vit_small_patch16_224",
        "convnext": "backbone=torchvision backbone.name=convnext_tiny",
        "mobilenet": "backbone=torchvision backbone.name=mobilenet_v3_small",
        "densenet": "backbone=torchvision backbone.name=densenet121",
        "swin": "backbone=torchvision backbone.name=swin_t",
    },
    "scheduler": {
        "onecyclelr": "scheduler=one_cycle",
        "steplr": "scheduler=step",
        "multisteplr": "scheduler=multi_step",
        "cosineannealing": "scheduler=cosine",
        "cosineannealinglr": "scheduler=cosine",
        "reducelronplateau": "scheduler=plateau",
        "reduceonplateau": "scheduler=plateau",
        "linear": "scheduler=polynomial",
        "poly": "scheduler=polynomial",
        "none": "scheduler=constant",
        "null": "scheduler=constant",
        "fixed": "scheduler=constant",
    },
    "augment": {
        "randaug": "augment=rand_augment",
        "autoaugment": "augment=trivial_augment",
        "mixup": "augment=mix",
        "cutmix": "augment=mix",
        "horizontalflip": "augment=flip",
        "hflip": "augment=flip",
        "crop": "augment=crop_flip",
        "default": "augment=crop_flip",
        "standard": "augment=crop_flip",
        "true": "augment=crop_flip",
        "false": "augment=none",
        "null": "augment=none",
        "off": "augment=none",
    },
    "head": {"fc": "head=linear", "dense": "head=linear", "null": "head=linear", "classifier": "head=linear"},
    "trainer": {"cuda": "trainer=gpu", "multigpu": "trainer=ddp", "dp": "trainer=ddp", "deepspeed": "trainer=fsdp"},
    "feature_cache": {
        "on": "feature_cache=auto",
        "true": "feature_cache=auto",
        "false": "feature_cache=off",
        "none": "feature_cache=off",
        "null": "feature_cache=off",
    },
}

# key -> value that is not valid -> the value to type
VALUE_GUESSES: dict[str, dict[str, str]] = {
    "trainer.precision": {
        "16": "16-mixed",
        "fp16": "16-mixed",
        "half": "16-mixed",
        "amp": "auto",
        "mixed": "auto",
        "bf16": "bf16-mixed",
        "32": "32-true",
        "fp32": "32-true",
        "64": "64-true",
    },
    "trainer.accelerator": {"cuda": "gpu"},
    "trainer.parallel": {"none": "auto", "dp": "ddp"},
    "trainer.class_balance": {"balanced": "weights", "weighted": "weights", "oversampling": "sampling"},
    "trainer.test_time_augmentation": {"true": "flip", "false": "none"},
    "strategy.init": {"source": "pretrained", "imagenet": "pretrained", "true": "pretrained", "scratch": "random"},
    "backbone.library": {"torch": "torchvision", "huggingface": "timm"},
    "head.initialization": {"glorot": "xavier", "he": "kaiming", "zeros": "zero", "default": "torch"},
}
