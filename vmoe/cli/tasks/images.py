"""Runs on images: a timm host, FFCV files or image folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vmoe.backbones.grid import token_grid
from vmoe.backbones.timm import architecture
from vmoe.config import DIGITS, ConfigError, ImageRunConfig, RunConfig
from vmoe.config.schema import ImageEntry
from vmoe.data import Augmentation, Loader, Normalize, make_augmentation, open_evaluation, open_loaders
from vmoe.data.sizes import Sizes
from vmoe.report.routing_maps import ImageRouting, keep
from vmoe.train.augment import Augment
from vmoe.train.distributed import Processes
from vmoe.train.images import ImageTask
from vmoe.train.probe import Probe
from vmoe.train.task import Task

from ..image_routing import route_images
from ..labels import label_names
from .base import Assembly, Data, Entry, Start
from .image_judging import check_image_judging, judge_images
from .judging import Judge, Judging

SHOWN_IMAGES = 24  # of the probe, on the page of a run


class ImageAssembly(Assembly[ImageRunConfig]):
    ENTRY = ImageEntry
    IN_ANY_WEIGHTS = frozenset({"drop_path_rate", "drop_path_uniform", "dynamic_img_size"})
    PIPELINE = "image-classification"
    SAME_HOST = "the same model.name, model.kwargs and image size; model.drop_path_rate may differ"

    def open_data(self, processes: Processes) -> Data:
        config = self.config
        loaders = open_loaders(
            config.data,
            seed=config.seed,
            batch_size=self.micro_batch_size(processes),
            accumulate=config.train.accumulate,
            epochs=config.schedule.epochs,
            processes=processes,
        )
        return Data(loaders.train, loaders.val, self.entry(loaders.train.classes))

    def micro_batch_size(self, processes: Processes) -> int:
        size, augment = super().micro_batch_size(processes), self.config.augment
        if (augment.mixup or augment.cutmix) and size % 2:
            raise ConfigError(
                f"data.batch_size is {self.config.data.batch_size}, {size} images a micro-batch; allowed with"
                " augment.mixup or augment.cutmix: an even number, since images are mixed in pairs"
            )
        return size

    def check_judging(self, judging: Judging, entry: Entry, name: str) -> None:
        check_image_judging(judging, entry["classes"], name)

    def open_evaluation(self, entry: Entry, processes: Processes, judging: Judging) -> Loader:
        return open_evaluation(self.config.data, classes=entry["classes"], match=judging.classes, processes=processes)

    def judge(self, judging: Judging, task: Task, loader: Any, device: torch.device) -> Judge:
        return judge_images(judging, loader, device)

    def entry(self, classes: tuple[str, ...]) -> Entry:
        """A checkpoint's entry about data of these classes, as the config prepares them."""
        data = self.config.data
        return {
            "classes": list(classes),
            "image_size": data.image_size,
            "eval_crop": data.eval_crop,
            "mean": list(data.mean),
            "std": list(data.std),
        }

    def task(self, entry: Entry, loader: object, device: torch.device) -> ImageTask:
        config, classes = self.config, len(entry["classes"])
        augment = Augment(
            config.augment,
            self.policy(),
            loss=config.train.loss,
            label_smoothing=config.train.label_smoothing,
            num_classes=classes,
            device=device,
        )
        return ImageTask(
            Normalize(config.data.mean, config.data.std).to(device),
            augment,
            num_classes=classes,
            image_size=config.data.image_size,
            train_sizes=Sizes.of(config.data, config.schedule.epochs).by_epoch,
            device=device,
            channels_last=config.train.channels_last,
        )

    def policy(self) -> Augmentation | None:
        """The operations of augment.policy. Raises `ConfigError` for one that is not supported."""
        augment, mean = self.config.augment, self.config.data.mean
        if augment.policy is None:
            return None
        try:
            return make_augmentation(augment.policy, mean, interpolation=augment.interpolation)
        except ValueError as error:
            raise ConfigError(f"augment.policy is {augment.policy!r}: {error}") from None

    def build_host(self, entry: Entry, start: Start | None = None) -> nn.Module:
        try:
            return super().build_host(entry, start)
        except ValueError as error:
            if "unexpected keyword argument 'dynamic_img_size'" not in str(error):
                raise
            raise ConfigError(
                f"data.progressive is given, and {self.config.model.name} takes images of one size alone; allowed:"
                " null, or a model with timm's dynamic_img_size, such as vit_* and deit*"
            ) from None

    def build_model(self, entry: Entry, start: Start | None = None) -> nn.Module:
        model = super().build_model(entry, start)
        return model.to(memory_format=torch.channels_last) if self.config.train.channels_last else model

    def model_arguments(self, entry: Entry) -> dict[str, Any]:
        name = self.config.model.name
        chosen = {"num_classes": len(entry["classes"]), "drop_path_rate": self.config.model.drop_path_rate}
        set_by = {"num_classes": "the data", "drop_path_rate": "model.drop_path_rate"}
        known = timm.get_pretrained_cfg(name) if timm.is_model(architecture(name)) else None
        if known is not None and known.fixed_input_size:  # positions are laid out for one size; others take any image
            chosen["img_size"], set_by["img_size"] = self.config.data.image_size, "data.image_size"
            if self.config.data.progressive is not None:
                chosen["dynamic_img_size"], set_by["dynamic_img_size"] = True, "data.progressive"
        return self.merge_arguments(chosen, set_by)

    def check_host(self, host: nn.Module) -> None:
        data = self.config.data
        patches = getattr(getattr(host, "patch_embed", None), "patch_size", ())
        sizes = {"image_size": data.image_size}
        if data.progressive is not None:
            sizes["progressive.multiple"] = data.progressive.multiple
        for key, size in sizes.items():
            if any(size % side for side in patches):  # timm would leave out the rest of the image
                raise ConfigError(f"data.{key} is {size}; allowed: a multiple of the patch, {patches}")

    def check_entry(self, start: Start, entry: Entry) -> None:
        there, here = start.kwargs["num_classes"], len(entry["classes"])
        if there != here:
            raise ConfigError(
                f"model.weights is {start.path}, a model of {there} classes, and the data have {here}; allowed: weights"
                " of as many classes"
            )

    def with_data_of(self, start: Start) -> RunConfig:
        comes_along = {key: start.data[key] for key in ("image_size", "eval_crop")}
        comes_along |= {key: tuple(start.data[key]) for key in ("mean", "std")}
        return self.config.model_copy(update={"data": self.config.data.model_copy(update=comes_along)})

    def pretrained(self, name: str) -> tuple[RunConfig, Entry]:
        config = self.config
        if not timm.is_model(architecture(name)):
            raise ConfigError(f"{name} is neither a file nor a model that timm {timm.__version__} knows")
        if not timm.models.is_model_pretrained(name):
            raise ConfigError(
                f"timm has no pretrained weights of {name}; allowed: a name that timm.list_pretrained() gives"
            )
        if architecture(name) != architecture(config.model.name):
            raise ConfigError(
                f"the source is timm's {name}, the config's model.name is {config.model.name}; allowed: the same"
            )
        known = timm.get_pretrained_cfg(name)
        if known is None or not known.num_classes:
            raise ConfigError(f"timm's {name} comes without a classifier; allowed: a pretrained model with classes")
        subset = infer_imagenet_subset({"num_classes": known.num_classes})
        names = ImageNetInfo(subset).label_names() if subset else map(str, range(known.num_classes))
        comes_along = {"mean": tuple(known.mean), "std": tuple(known.std), "eval_crop": known.crop_pct}
        config = config.model_copy(update={"data": config.data.model_copy(update=comes_along)})
        return config, ImageAssembly(config).entry(tuple(names))

    def label_names(self, entry: Entry) -> tuple[str, ...]:
        return label_names(entry["classes"])

    def token_grid(self, model: nn.Module, positions: torch.Size, entry: Entry) -> tuple[int, int, int] | None:
        return token_grid(model, positions, entry["image_size"])

    def routing_maps(self, model: nn.Module, task: Task, entry: Entry, probe: Probe) -> ImageRouting:
        """Some of the images, and what each expert likes most in all of them."""
        names = self.label_names(entry)
        labels = tuple(names[label] for label in probe.targets.tolist())
        numbers = tuple(f"image {number} of the probe" for number in range(len(labels)))
        return keep(route_images(model, probe.inputs, task.prepare, numbers, labels), SHOWN_IMAGES)

    def describe_input(self, entry: Entry) -> dict[str, Any]:
        classes = entry["classes"]
        names = {name: said for name, said in zip(classes, self.label_names(entry), strict=True) if said != name}
        return {
            "data_config": {
                "input_size": (3, entry["image_size"], entry["image_size"]),
                "crop_pct": entry["eval_crop"],
                "interpolation": self.config.data.eval_interpolation,
                "mean": tuple(entry["mean"]),
                "std": tuple(entry["std"]),
            },
            "model_config": {"label_names": list(classes), **({"label_descriptions": names} if names else {})},
        }

    def load_natively(self, source: str) -> str:
        return f'import timm\n\nmodel = timm.create_model("hf-hub:{source}", pretrained=True).eval()'

    @staticmethod
    def overrides_for(path: str) -> list[str]:
        overrides = [f"data.val={path}"]
        if path != DIGITS:
            overrides.append(f"data.loader={'folder' if Path(path).is_dir() else 'ffcv'}")
        return overrides
