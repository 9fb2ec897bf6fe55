"""The published ImageNet-1K recipes against the configs that stand for them: every hyperparameter, every learning rate.

The tables are written down from the sources, in their own terms:
    DeiT        facebookresearch/deit: defaults of main.py, commands of README_deit.md (arXiv 2012.12877)
    DeiT-III-S  the same repository: the ViT-S command of README_revenge.md, models_v2.py (arXiv 2204.07118)
    plain ViT   google-research/big_vision: configs/vit_s16_i1k.py, models/vit.py, utils.py (arXiv 2205.01580)
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.optim import Lamb
from timm.scheduler import create_scheduler_v2
from torch.utils.flop_counter import FlopCounterMode

from vmoe.cli.flatten import flatten
from vmoe.cli.tasks import assembly_of
from vmoe.config import ConfigError, load_config
from vmoe.moe import Soft, moe_layers, record
from vmoe.train.augment import criterion_for
from vmoe.train.optim import build_optimizer, build_schedule

torch.set_num_threads(1)
CONFIGS = Path(__file__).parents[1] / "configs" / "imagenet"
IMAGES = 1_281_167  # of ImageNet-1K's training set
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What is the machine's or the run's, and no part of a recipe.
OURS = (
    *("task", "output", "seed", "data.train", "data.val", "data.cache", "data.loader", "data.eval_batch_size"),
    *("data.workers", "data.timeout", "schedule.max_steps", "model.weights", "model.grad_checkpointing"),
    *("train.device", "train.precision", "train.compile", "train.channels_last", "train.accumulate", "train.log_every"),
    *("train.eval_every", "train.eval_every_steps", "train.routing_every", "train.probe_samples", "train.tensorboard"),
    *("train.wandb", "train.peak_tflops", "train.resume", "train.timeout"),
    *("train.max_nonfinite", "train.spike_factor", "train.max_returns", "parallel.strategy", "parallel.experts"),
    *("checkpoint.every_steps", "checkpoint.keep_best", "checkpoint.keep_every"),
)

DEIT = {
    "model.name": "deit_small_patch16_224",
    "model.pretrained": False,
    "model.drop_path_rate": 0.1,  # --drop-path
    "model.kwargs": {},
    "data.image_size": 224,  # --input-size
    "data.batch_size": 4 * 256,  # README_deit.md: 4 processes of --batch-size 256; S and Ti
    "data.crop_scale": (0.08, 1.0),  # create_transform's
    "data.crop_ratio": (3 / 4, 4 / 3),
    "data.flip": 0.5,
    "data.repeats": 3,  # --repeated-aug, samplers.py: num_repeats
    "data.progressive": None,
    "data.eval_crop": 0.875,  # --eval-crop-ratio
    "data.eval_interpolation": "bicubic",  # build_transform: Resize(interpolation=3)
    "data.mean": IMAGENET_MEAN,
    "data.std": IMAGENET_STD,
    "augment.policy": "rand-m9-mstd0.5-inc1",  # --aa, in whose place --color-jitter is not used
    "augment.interpolation": "bicubic",  # --train-interpolation
    "augment.mixup": 0.8,  # --mixup
    "augment.cutmix": 1.0,  # --cutmix
    "augment.mix_probability": 1.0,  # --mixup-prob
    "augment.mix_switch": 0.5,  # --mixup-switch-prob
    "augment.erasing": 0.25,  # --reprob, in --remode pixel, once (--recount)
    "optimizer.kind": "adamw",  # --opt
    "optimizer.lr": 5e-4 * 1024 / 512,  # --lr × batch / 512
    "optimizer.weight_decay": 0.05,  # --weight-decay
    "optimizer.expert_weight_decay": None,
    "optimizer.betas": (0.9, 0.999),  # --opt-betas: torch's
    "optimizer.eps": 1e-8,  # --opt-eps
    "optimizer.layer_decay": 1.0,
    "optimizer.clip_grad": None,  # --clip-grad
    "schedule.epochs": 300,  # --epochs
    "schedule.warmup_epochs": 5,  # --warmup-epochs
    "schedule.steps": None,
    "schedule.warmup_steps": None,
    "schedule.warmup_prefix": False,  # timm's create_scheduler
    "schedule.warmup_lr": 1e-6,  # --warmup-lr
    "schedule.min_lr": 1e-5,  # --min-lr
    "train.loss": "cross_entropy",  # SoftTargetCrossEntropy
    "train.label_smoothing": 0.1,  # --smoothing
    "train.ema_decay": 0.99996,  # --model-ema, --model-ema-decay
    "train.ema_warmup": False,
    "train.evaluate": "raw",  # evaluate(data_loader_val, model, device)
}

DEIT3_SMALL = DEIT | {
    "model.name": "deit3_small_patch16_224",  # deit_small_patch16_LS
    "model.drop_path_rate": 0.05,  # --drop-path, the same in every block: dpr in models_v2.py
    "model.kwargs": {"init_values": 1e-4, "drop_path_uniform": True},  # init_scale of models_v2.py
    "data.batch_size": 8 * 256,  # --nodes 1 --ngpus 8 --batch 256
    "data.eval_crop": 1.0,  # --eval-crop-ratio
    "augment.policy": "3a-jitter0.3",  # --ThreeAugment --color-jitter 0.3
    "augment.erasing": 0.0,  # --reprob, and no erasing in augment.py
    "optimizer.kind": "lamb",  # --opt fusedlamb
    "optimizer.lr": 4e-3,  # --lr --unscale-lr
    "schedule.epochs": 800,  # --epochs
    "train.loss": "bce",  # --bce-loss
    "train.label_smoothing": 0.0,  # --smoothing
}

HELD_IN = round(IMAGES * 0.99)  # split='train[:99%]'
PLAIN_VIT = DEIT | {
    "model.name": "vit_small_patch16_224",  # variant='S/16'
    "model.drop_path_rate": 0.0,
    "model.kwargs": {
        "class_token": False,
        "global_pool": "avg",  # pool_type='gap'
        "fc_norm": False,  # encoder_norm stands before the pooling
        "pos_embed": "sincos2d",  # posemb
        "act_layer": "gelu_tanh",  # flax's gelu approximates by default
        "weight_init": "jax",  # xavier, and head_zeroinit
    },
    "data.batch_size": 1024,  # input.batch_size
    "data.crop_scale": (0.05, 1.0),  # decode_jpeg_and_inception_crop: area_min=5, area_max=100
    "data.crop_ratio": (0.75, 1.33),  # ratio_min, ratio_max
    "data.repeats": 1,
    "data.eval_crop": 224 / 256,  # resize_small(256)|central_crop(224)
    "data.eval_interpolation": "bicubic",  # with data.loader=folder; resize_small is by area, as FFCV is
    "data.mean": (0.5, 0.5, 0.5),  # value_range(-1, 1)
    "data.std": (0.5, 0.5, 0.5),
    "augment.policy": "rand-m10-n2-p1",  # randaug(2,10), whose drawn operations are always applied
    "augment.interpolation": "bilinear",
    "augment.mixup": 0.2,  # mixup = dict(p=0.2)
    "augment.cutmix": 0.0,
    "augment.erasing": 0.0,
    "optimizer.lr": 0.001,  # lr
    "optimizer.weight_decay": 0.0001 / 0.001,  # wd, which the schedule alone scales: AdamW's times lr is wd
    "optimizer.clip_grad": 1.0,  # grad_clip_norm
    "schedule.epochs": 300,  # not read: steps are given
    "schedule.steps": round(90 * HELD_IN / 1024),  # total_epochs, by utils.steps
    "schedule.warmup_steps": 10_000,  # schedule = dict(warmup_steps=10_000, decay_type='cosine')
    "schedule.warmup_prefix": True,
    "schedule.warmup_lr": 0.0,
    "schedule.min_lr": 0.0,
    "train.label_smoothing": 0.0,  # loss = 'softmax_xent'
    "train.ema_decay": None,
}

RECIPES = {
    "deit_tiny_dense": DEIT | {"model.name": "deit_tiny_patch16_224"},
    "deit_small_dense": DEIT,
    "deit_base_dense": DEIT | {"model.name": "deit_base_patch16_224"},  # 2 nodes of 8 processes of 64 images
    "deit3_small_dense": DEIT3_SMALL,
    "vit_small_dense": PLAIN_VIT,
    "vit_small_dense_300": PLAIN_VIT | {"schedule.steps": round(300 * HELD_IN / 1024)},
}
VARIANTS = [path.stem for path in sorted(CONFIGS.glob("[!_]*.yaml")) if path.stem not in RECIPES]
DENSE_OF = {name: f"{'_'.join(name.split('_')[:2])}_dense" for name in VARIANTS}
MORE = {"deit_small_topk_regularised": {"optimizer.expert_weight_decay": 0.1}}


def load(name):
    return load_config(CONFIGS / f"{name}.yaml")


def resolved(name):
    """Every key of a config, model.kwargs as one, and without the moe section."""
    config = load(name).model_dump()
    kwargs = config["model"].pop("kwargs")
    del config["moe"]
    return flatten(config) | {"model.kwargs": kwargs}


@pytest.mark.parametrize("name", RECIPES)
def test_every_hyperparameter_is_the_published_one(name):
    config = {key: value for key, value in resolved(name).items() if key not in OURS}
    assert config.keys() == RECIPES[name].keys()
    for key, value in RECIPES[name].items():
        assert config[key] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), key


@pytest.mark.parametrize("name", VARIANTS)
def test_a_moe_variant_differs_from_its_dense_row_in_the_layer_alone(name):
    config, dense = resolved(name), resolved(DENSE_OF[name])
    differing = {key: value for key, value in config.items() if value != dense[key]}
    assert differing == {"output": Path(f"runs/imagenet/{name}")} | MORE.get(name, {})
    moe, dense_moe = load(name).moe, load(DENSE_OF[name]).moe
    assert (moe.layers, moe.num_experts) == (dense_moe.layers, dense_moe.num_experts) == ("every2", 8)
    assert moe.gate != dense_moe.gate


def test_every_host_has_its_gates():
    gates = ("topk", "self", "routing_free", "random")
    more = ("aoe", "relu", "expert_choice", "soft")
    expected = {f"{host}_{gate}" for host in ("deit3_small", "vit_small") for gate in gates}
    expected |= {f"deit_{size}_{gate}" for size in ("tiny", "small", "base") for gate in (*gates, *more)}
    assert set(VARIANTS) == expected | set(MORE)


# --- the learning rate -----------------------------------------------------------------------------------


def of_timm(name):
    """timm's schedule, called as its train.py calls it with --sched-on-updates, and the number of updates."""
    published = RECIPES[name]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=published["optimizer.lr"])
    by_steps = published["schedule.steps"] is not None
    per_epoch = 1 if by_steps else IMAGES // published["data.batch_size"]
    whole, warmup = (published[f"schedule.{key}{'steps' if by_steps else 'epochs'}"] for key in ("", "warmup_"))
    prefix = published["schedule.warmup_prefix"]
    schedule, total = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=whole - prefix * warmup,
        warmup_epochs=warmup,
        warmup_prefix=prefix,
        warmup_lr=published["schedule.warmup_lr"],
        min_lr=published["schedule.min_lr"],
        step_on_epochs=False,
        updates_per_epoch=per_epoch,
    )
    return schedule, int(total * per_epoch)


def by_formula(name, steps):
    """The same in numpy: straight up, then half a cosine, of the whole run (DeiT) or of what is left (big_vision)."""
    published, t = RECIPES[name], np.arange(steps)
    peak, low = published["optimizer.lr"], published["schedule.min_lr"]
    if name.startswith("vit_"):
        warmup = 10_000
        progress = np.clip((t - warmup) / (steps - warmup), 0, 1)
        return peak * 0.5 * (1 + np.cos(np.pi * progress)) * np.minimum(1, t / warmup)
    warmup = 5 * (IMAGES // published["data.batch_size"])
    straight = 1e-6 + (peak - 1e-6) * t / warmup
    return np.where(t < warmup, straight, low + 0.5 * (peak - low) * (1 + np.cos(np.pi * t / steps)))


STEPS = {"deit_small_dense": 375_300, "deit3_small_dense": 500_000, "vit_small_dense": 111_477}
STEPS["vit_small_dense_300"] = 371_588


def our_schedule(name):
    config = load(name)
    optimizer = build_optimizer(torch.nn.Linear(1, 1, bias=False), config.optimizer)
    return build_schedule(optimizer, config.schedule, IMAGES // config.data.batch_size), optimizer


@pytest.mark.parametrize("name", STEPS)
def test_the_rate_of_every_step_is_timms_and_the_formulas(name):
    steps = STEPS[name]  # 300 · 1251, 800 · 625, round(90 · 1,268,355 / 1024), round(300 · 1,268,355 / 1024)
    config = load(name)
    assert config.schedule.total_steps(IMAGES // config.data.batch_size) == steps
    (schedule, optimizer), (reference, total) = our_schedule(name), of_timm(name)
    assert total == steps
    # The rate is a pure function of these numbers and the step, so timm's is ours at every step.
    assert type(schedule) is type(reference)
    assert schedule.state_dict() == reference.state_dict()
    ours = np.array([schedule._get_lr(t)[0] for t in range(steps)])
    np.testing.assert_allclose(ours, by_formula(name, steps), rtol=1e-9, atol=1e-15)
    assert optimizer.param_groups[0]["lr"] == ours[0]  # of the first step
    for t in (1, 7_000, steps - 1):  # as the loop asks after each step
        schedule.step_update(t)
        assert optimizer.param_groups[0]["lr"] == ours[t]


def test_deits_own_rate_is_ours_of_the_epoch_before():
    """Its main.py steps after each epoch, by that epoch's number: epoch e has the rate of the start of epoch e - 1."""
    schedule, _ = our_schedule("deit_small_dense")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    deit, _ = create_scheduler_v2(optimizer, num_epochs=300, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5)
    rates = []
    for epoch in range(300):
        rates.append(optimizer.param_groups[0]["lr"])
        deit.step(epoch)
    of_start = [schedule._get_lr(max(epoch - 1, 0) * 1251)[0] for epoch in range(300)]
    assert rates == pytest.approx(of_start, rel=1e-12)


# --- the optimizer and the models ------------------------------------------------------------------------


def test_lamb_is_that_of_the_published_command():
    """apex's FusedLAMB clips the global norm to 1 and leaves parameters without decay to plain Adam."""
    _, optimizer = our_schedule("deit3_small_dense")
    assert type(optimizer) is Lamb
    defaults = optimizer.defaults
    expected = {"lr": 4e-3, "betas": (0.9, 0.999), "eps": 1e-8, "max_grad_norm": 1.0, "bias_correction": True}
    expected |= {"always_adapt": False, "trust_clip": False, "decoupled_decay": False, "grad_averaging": True}
    assert {key: defaults[key] for key in expected} == expected


def test_deit3s_loss_takes_both_classes_of_a_mixed_image_for_present():
    """engine.py: targets.gt(0.0) before BCEWithLogitsLoss. The mean over classes 0 … 3 of log(1 + e^±z), by hand."""
    config = load("deit3_small_dense").train
    criterion = criterion_for(config.loss, config.label_smoothing, mixed=True)
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.0]])
    shares = torch.tensor([[0.7, 0.3, 0.0, 0.0]])
    by_hand = [math.log1p(math.exp(z)) for z in (-2.0, 1.0, 0.5, 0.0)]  # present: e^-z; absent: e^z
    assert criterion(logits, shares).item() == pytest.approx(sum(by_hand) / 4)
    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.1 with loss bce and mixed images"):
        load_config(CONFIGS / "deit3_small_dense.yaml", ["train.label_smoothing=0.1"])


def build(name, **kwargs):
    """The config's model with other arguments, its MoE layer, if it has one, in every block."""
    config = load(name)
    if not config.moe.keeps_host:
        config = load_config(CONFIGS / f"{name}.yaml", ["moe.layers=all"])
    model = config.model.model_copy(update={"kwargs": {**config.model.kwargs, **kwargs}})
    return assembly_of(config.model_copy(update={"model": model})).build_model({"classes": [""] * 1000})


def test_the_plain_vit_is_what_is_published():
    torch.manual_seed(0)
    model = build("vit_small_dense", depth=1)
    mlp, one = model.blocks[0].mlp, torch.ones(1)
    assert model.cls_token is None
    assert isinstance(model.norm, torch.nn.LayerNorm)  # before the pooling, and none after it
    assert isinstance(model.fc_norm, torch.nn.Identity)
    assert model.norm.eps == 1e-6
    assert not model.head.weight.any()
    assert not model.head.bias.any()
    assert mlp.act(one).equal(torch.nn.functional.gelu(one, approximate="tanh"))
    bound = math.sqrt(6 / (384 + 1536))  # xavier
    assert mlp.fc1.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert not model.pos_embed.requires_grad


def test_deit3_has_its_scale_and_one_drop_path_rate():
    model = build("deit3_small_dense", depth=3)
    scales = torch.stack([scale.gamma for block in model.blocks for scale in (block.ls1, block.ls2)])
    assert (scales == 1e-4).all()
    rates = {path.drop_prob for block in model.blocks for path in (block.drop_path1, block.drop_path2)}
    assert rates == {0.05}
    assert model.no_embed_class  # positions for patches alone


BLOCKS, EVERY = 12, 2
TOLERANCE = 0.005  # of the dense model's FLOPs: widths are multiples of 8, and a router has a product of its own


@pytest.mark.parametrize("name", VARIANTS)
def test_a_moe_variant_has_its_dense_rows_active_flops(name):
    """By one layer's measured FLOPs: what it spends more than the MLP, in every second block, against the model's.

    Soft MoE mixes tokens into slots and back besides, which its configs say.
    """
    config = load(name)
    tokens = 196 if config.model.kwargs.get("class_token") is False else 197
    with torch.device("meta"):
        ((_, layer),) = moe_layers(build(name, depth=1))
    layer.to_empty(device="cpu").load_state_dict({key: torch.zeros(t.shape) for key, t in layer.state_dict().items()})
    width = {"tiny": 192, "small": 384, "base": 768}[name.split("_")[1]]
    with torch.no_grad(), record(layer) as routings, FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, tokens, width))
    rows = sum(int(routing.count_rows()) for routing in routings.values())
    expected = config.moe.gate.active_experts(8, tokens) * tokens
    spent = counter.get_total_flops() + (expected - rows) * layer.flops_per_pair
    if isinstance(config.moe.gate, Soft):
        slots = int(expected)
        spent -= 3 * 2 * tokens * slots * width  # logits, tokens to slots, slots to tokens
    mlp = 2 * (8 * width**2) * tokens  # 2 a multiply-add; D to 4D and back
    attention = 2 * (4 * width**2 + 2 * tokens * width) * tokens  # q, k, v, out; scores and their sum
    model = BLOCKS * (attention + mlp)  # patches and head aside
    assert abs(spent - mlp) * BLOCKS / EVERY < TOLERANCE * model
