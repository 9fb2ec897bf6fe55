"""`vmoe inspect` on images: what the page shows is what the evaluation saw and what the model did with it."""

import base64
import io
import json
import re
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from world import make_world, vmoe

import vmoe as package
from vmoe.cli.image_routing import route_images
from vmoe.cli.inspect import images as of_images
from vmoe.cli.inspect.inspected import Inspected
from vmoe.cli.inspect.text import inspect_text
from vmoe.config import ConfigError, override_config
from vmoe.data import Normalize, open_evaluation
from vmoe.train.checkpoint import read_checkpoint

CHECKPOINT = "runs/tiny/checkpoints/last.pt"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A working directory with a finished run, and with a dense one."""
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        for options in ((), ("moe.gate=dense", "output=runs/dense")):
            assert vmoe("train", "tiny.yaml", "data.eval_crop=0.5", *options).status == 0
    return folder


@pytest.fixture
def inside(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def inspected(*arguments):
    """The text of the page, its pictures (n, H, W, 3) and their names."""
    outcome = vmoe("inspect", CHECKPOINT, *arguments)
    assert outcome.status == 0, outcome
    text = Path(outcome.out.strip()).read_text(encoding="utf-8")
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)">', text)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) for content, _ in found]
    return text, np.stack(pictures), [name for _, name in found]


def evaluated():
    """The images of the run's evaluation (n, 3, H, W), in the order of their files."""
    config = override_config(read_checkpoint(CHECKPOINT)["config"], [], "")
    return torch.cat([images for images, _ in open_evaluation(config.data).epoch(0)])


def test_pictures_are_those_of_the_evaluation(inside):
    text, pictures, names = inspected("images/val")
    assert names == [f"{kind}/{number}.png" for kind in ("dark", "light") for number in range(5)]
    assert np.array_equal(pictures, evaluated().permute(0, 2, 3, 1))
    assert "<dt>gate</dt><dd>topk</dd>" in text
    assert "<dt>images</dt><dd>10</dd>" in text


def test_the_page_lies_beside_the_checkpoint_with_pictures_for_papers(inside):
    assert vmoe("inspect", CHECKPOINT, "images/val").out == "runs/tiny/inspect/last.html\n"
    names = {path.name for path in Path("runs/tiny/inspect").iterdir()}
    assert names == {"last.html", "last-blocks.1.mlp-maps.png", "last-blocks.1.mlp-favourites.png"}


def test_weights_and_classes_are_the_models(inside):
    text, _, _ = inspected("images/val")
    (layer,) = json.loads(re.search(r'id="maps-data">(.*?)</script>', text)[1])["layers"]
    assert (layer["name"], layer["grid"]) == ("blocks.1.mlp", [1, 2, 2])
    packed = np.frombuffer(zlib.decompress(base64.b64decode(layer["weights"])), "<u2").reshape(10, 5, 4)
    model = package.load(CHECKPOINT)
    with package.record(model) as routings, torch.no_grad():
        probability = model(Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(evaluated())).softmax(1)
    routing = routings["blocks.1.mlp"]
    assert np.array_equal(packed.reshape(-1, 4) > 0, routing.active)
    weights = (packed.reshape(-1, 4).astype(float) - 1) / (layer["steps"] - 1) * layer["largest"]
    assert np.abs(weights - routing.weights.numpy())[routing.active.numpy()].max() < 1e-4
    labels = re.findall(r"<b>([^<]*)</b>", text)
    for number, (label, row) in enumerate(zip(labels, probability, strict=True)):
        best, truth = ("dark", "light")[int(row.argmax())], ("dark", "light")[number // 5]
        expected = f"{best}, {float(row.max()):.0%}" + (f"; folder: {truth}" if best != truth else "")
        assert label == expected


def test_files_and_folders_in_the_order_given(inside):
    _, pictures, names = inspected("images/val/light/3.png", "images/val/dark", "--output", "some.html")
    assert names == ["3.png", *(f"{number}.png" for number in range(5))]
    assert np.array_equal(pictures[0], evaluated()[8].permute(1, 2, 0))


def test_of_many_images_an_even_selection(inside, monkeypatch):
    monkeypatch.setattr(of_images, "MOST_IMAGES", 4)
    text, _, names = inspected("images/val", "--output", "some.html")
    assert names == ["dark/0.png", "dark/3.png", "light/1.png", "light/4.png"]
    assert "<dd>4 of 10, evenly spaced</dd>" in text


def test_layers_of_no_known_order_are_left_out_by_name():
    """Attention to the class token alone, at the end of CaiT: one token, which is no patch."""
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = package.create_model("cait_xxs24_224", {"gate": "topk", "num_experts": 2, "layers": "all"}, **arguments)
    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    routing = route_images(model.train(), images, torch.Tensor.float, ("a", "b", "c"), ("",) * 3)
    assert [(layer.name, layer.grid) for layer in routing.layers] == [("blocks.0.mlp", (0, 2, 2))]
    assert routing.left_out == ("blocks_token_only.0.mlp", "blocks_token_only.1.mlp")
    assert model.training


def test_images_of_a_map_of_tokens_are_not_mixed_up(monkeypatch):
    """In batches of 2, each image's weights are those that it has alone."""
    monkeypatch.setattr("vmoe.cli.image_routing.BATCH", 2)
    arguments = {"img_size": 16, "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 2}
    model = package.create_model("swin_tiny_patch4_window7_224", {"gate": "relu", "layers": "all"}, **arguments)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    together = route_images(model, images, torch.Tensor.float, tuple("abcde"), ("",) * 5)
    assert [layer.grid for layer in together.layers] == [(0, 4, 4), (0, 2, 2)]
    for number in range(5):
        alone = route_images(model, images[number : number + 1], torch.Tensor.float, ("a",), ("",))
        for one, all_ in zip(alone.layers, together.layers, strict=True):
            np.testing.assert_allclose(one.weights[0], all_.weights[number], atol=1e-5)


WRONG = {
    "no image": ((), "no image is given; allowed: image files, and folders of them"),
    "a path that is missing": (("images/vol",), "IMAGE is 'images/vol', which does not exist (nearest: 'images/val')"),
    "a folder without images": (("runs/tiny/checkpoints",), "IMAGE is 'runs/tiny/checkpoints', which holds no image"),
    "a file that is no image": (("tiny.yaml",), "'tiny.yaml' cannot be read as an image"),
    "a text": (("--text", "a"), "--text is given, and runs/tiny/checkpoints/last.pt holds a model of images; allowed"),
    "a vocabulary": (("images/val", "--vocabulary", "a"), "--vocabulary is given"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_shown_is_named(inside, what):
    arguments, message = WRONG[what]
    outcome = vmoe("inspect", CHECKPOINT, *arguments, "--output", "wrong.html")
    assert outcome.status == 2
    assert message in outcome.err
    assert not Path("wrong.html").exists()


def test_a_dense_model_routes_nothing(inside):
    outcome = vmoe("inspect", "runs/dense/checkpoints/last.pt", "images/val")
    assert outcome.status == 2
    assert "runs/dense/checkpoints/last.pt holds a dense model" in outcome.err


def test_a_model_whose_patches_are_in_no_known_order_is_named(inside, monkeypatch):
    monkeypatch.setattr("vmoe.cli.image_routing.token_grid", lambda *_: None)
    outcome = vmoe("inspect", CHECKPOINT, "images/val", "--output", "wrong.html")
    assert outcome.status == 2
    assert "in no known order: blocks.1.mlp; allowed" in outcome.err


def test_images_for_a_text_model(inside):
    subject = Inspected(Path("text.pt"), {}, Namespace(task="text"), Path("text.html"))
    with pytest.raises(ConfigError, match=r"IMAGE is given, and text\.pt holds a model of text; allowed: --text"):
        inspect_text(subject, Namespace(images=["a.png"], text=None, vocabulary=None))
