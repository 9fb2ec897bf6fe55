"""`vmoe eval`: classes matched, views, several data sets, one table of all, timm's models, pairs of evaluations."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional
from world import TIMM, hub_with_weights, make_images, make_world, vmoe

import vmoe as package
from vmoe.data import Normalize, write_beton
from vmoe.data.matching import Match

CHECKPOINT = "runs/tiny/checkpoints/last.pt"
OTHER = "runs/other/checkpoints/last.pt"
MANY = tuple(f"class {number:02}" for number in range(12))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run and its copy, and a run of twelve classes."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        make_images(folder / "many", MANY, 3)
        assert vmoe("train", "tiny.yaml").status == 0
        shutil.copytree("runs/tiny/checkpoints", "runs/other/checkpoints")
        trained = vmoe("train", "tiny.yaml", "data.train=many", "data.val=many", "output=runs/many")
        assert trained.status == 0, trained
        write_beton("images/val", "val.beton", mode="raw", workers=1, progress=False)
    return folder


@pytest.fixture
def inside(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def read_table(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def result(folder: str) -> dict:
    return json.loads(Path(folder, "result.json").read_text())


def evaluate(*arguments: str, routing: bool = False) -> dict:
    outcome = vmoe("eval", *arguments, *([] if routing else ["--no-routing"]), "--output", "out")
    assert outcome.status == 0, outcome
    return result("out")


def logits_of(checkpoint: str, folder: str, classes: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every image of these class folders, which are as large as the model's input, and their labels."""
    files = [(label, path) for label, name in enumerate(classes) for path in sorted(Path(folder, name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path)) for _, path in files])
    images = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        return package.load(checkpoint)(images), torch.tensor([label for label, _ in files])


WHOLE = ("--set", "data.eval_crop=1.0")  # images as they are


def test_a_row_of_classes_csv_for_each_class(inside):
    evaluate(CHECKPOINT, *WHOLE)
    logits, labels = logits_of(CHECKPOINT, "images/val", ("dark", "light"))
    right = logits.argmax(1) == labels
    rows = read_table("out/classes.csv")
    assert [(row["class"], row["name"], row["images"]) for row in rows] == [
        ("dark", "dark", "5"),
        ("light", "light", "5"),
    ]
    for label, row in enumerate(rows):
        assert int(row["correct"]) == int(right[labels == label].sum())
        assert float(row["accuracy"]) == pytest.approx(20 * int(row["correct"]))
    found = result("out")["class_accuracy"]
    assert found["mean"] == pytest.approx(np.mean([float(row["accuracy"]) for row in rows]))
    assert Path("runs/tiny/classes.csv").exists(), "training leaves it too"


def test_a_flip_averages_the_probabilities_of_both_views(inside):
    found, plain = (evaluate(CHECKPOINT, *how, *WHOLE, routing=True) for how in (["--flip"], []))
    files = [path for name in ("dark", "light") for path in sorted(Path("images/val", name).iterdir())]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in files])).permute(0, 3, 1, 2)
    images, model = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(pixels), package.load(CHECKPOINT)
    with torch.no_grad():
        both = (functional.softmax(model(images), -1) + functional.softmax(model(images.flip(3)), -1)) / 2
    loss = -both[torch.arange(10), torch.arange(10) // 5].log().mean()
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found["loss"] != plain["loss"]
    assert found["routing"] == plain["routing"], "counted of the upright images alone"


# --- classes ---------------------------------------------------------------------------------------------


def test_the_parser_knows_every_way_of_matching():
    choices = re.search(r"--classes {(.*?)}", vmoe("eval", "--help").out)
    assert choices[1].split(",") == list(get_args(Match))


def test_numbered_folders(inside, tmp_path):
    """The twelve classes' images in folders 0 to 11, which text sorts otherwise: the same figures."""
    data = tmp_path / "numbered"
    for number, name in enumerate(MANY):
        shutil.copytree(Path("many", name), data / str(number))
    checkpoint = "runs/many/checkpoints/last.pt"
    named = evaluate(checkpoint, *WHOLE)
    numbered = evaluate(checkpoint, "--data", str(data), "--classes", "index", *WHOLE)
    for key in ("top1", "top5", "calibration_error", "class_accuracy"):
        assert numbered[key] == pytest.approx(named[key], rel=1e-5)
    assert numbered["loss"] == pytest.approx(named["loss"], rel=1e-5)
    assert [row["class"] for row in read_table("out/classes.csv")] == list(MANY)
    refused = vmoe("eval", checkpoint, "--data", str(data), "--output", "never")
    assert refused.status == 2
    assert "--classes index" in refused.err


def test_a_subset_restricts_the_model_and_some_does_not(inside, tmp_path):
    chosen = (MANY[3], MANY[7], MANY[10])
    for name in chosen:
        shutil.copytree(Path("many", name), tmp_path / "few" / name)
    arguments = ("runs/many/checkpoints/last.pt", "--data", str(tmp_path / "few"), *WHOLE)
    logits, places = logits_of("runs/many/checkpoints/last.pt", "many", MANY)
    kept = torch.isin(places, torch.tensor([3, 7, 10]))
    logits, labels = logits[kept], places[kept]
    restricted = logits[:, [3, 7, 10]]
    among = torch.tensor([[3, 7, 10].index(label) for label in labels.tolist()])
    for how, scores, targets in (("some", logits, labels), ("subset", restricted, among)):
        found = evaluate(*arguments, "--classes", how)
        assert found["top1"] == pytest.approx(100 * float((scores.argmax(1) == targets).double().mean()))
        assert found["loss"] == pytest.approx(float(functional.cross_entropy(scores, targets)), rel=1e-5)
        assert found["eval_samples"] == 9
        assert [row["class"] for row in read_table("out/classes.csv")] == list(chosen)
    assert found["top5"] == 100, "of three classes"


# --- tables and folders ----------------------------------------------------------------------------------


def table(path: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows by checkpoint and data."""
    return {(row["checkpoint"], row["data"]): row for row in read_table(path)}


def test_every_checkpoint_on_every_data_set_is_a_row(inside):
    both = ("--data", "images/val", "--data", "images/train", "--no-routing", "--csv", "all.csv")
    outcome = vmoe("eval", CHECKPOINT, OTHER, *both)
    assert outcome.status == 0, outcome
    rows = table("all.csv")
    assert list(rows) == [(file, f"images/{data}") for file in (CHECKPOINT, OTHER) for data in ("val", "train")]
    for (file, data), row in rows.items():
        found = result(f"runs/{Path(file).parts[1]}/eval/last-{Path(data).stem}")
        for key in ("top1", "top5", "loss", "calibration_error", "eval_samples", "params", "seed"):
            assert float(row[key]) == found[key]
        assert float(row["class_accuracy.lowest"]) == found["class_accuracy"]["lowest"]
        assert (row["gate"], row["flip"], row["classes"]) == (found["gate"], "0", "same")


def test_a_row_replaces_that_of_the_same_evaluation_alone(inside):
    def add(*arguments: str) -> None:
        assert vmoe("eval", *arguments, "--csv", "some.csv").status == 0

    add(OTHER, "--no-routing")
    before = Path("some.csv").read_text().splitlines()
    Path("some.csv").write_text("\n".join([before[0] + ",note", before[1] + ",mine"]) + "\n")
    add(CHECKPOINT, "--no-routing")
    add(CHECKPOINT)
    add(CHECKPOINT, "--flip", "--no-routing")
    add(CHECKPOINT, "--no-routing", *WHOLE)
    rows = read_table("some.csv")
    assert [(row["checkpoint"], row["set"], row["flip"], row["note"]) for row in rows] == [
        (OTHER, "", "0", "mine"),
        (CHECKPOINT, "", "0", ""),
        (CHECKPOINT, "", "1", ""),
        (CHECKPOINT, "data.eval_crop=1.0", "0", ""),
    ]
    assert [row["routing.mean.density"] for row in rows] == ["", "0.5", "", ""], "2 of 4 experts"
    assert [name for name in Path().iterdir() if name.suffix == ".tmp"] == []


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "checkpoint,data,set,classes,flip\n1,2\n", "", "\x00\x01"])
def test_a_file_that_is_another_table_is_left_as_it_is(inside, content):
    Path("other.csv").write_text(content)
    outcome = vmoe("eval", CHECKPOINT, "--csv", "other.csv", "--output", "never")
    assert outcome.status == 2
    assert "--csv is 'other.csv'" in outcome.err
    assert Path("other.csv").read_text() == content
    assert not Path("never").exists()


def test_two_evaluations_never_share_a_folder(inside):
    outcome = vmoe("eval", CHECKPOINT, "--data", "images/val", "--data", "val.beton")
    assert outcome.status == 2
    assert "2 evaluations would be written into runs/tiny/eval/last-val" in outcome.err


# --- pairs -----------------------------------------------------------------------------------------------


def test_a_file_against_its_folder(inside):
    outcome = vmoe(
        "eval", CHECKPOINT, "--data", "val.beton", "--against", "images/val", "--csv", "pair.csv", "--no-routing"
    )
    assert outcome.status == 0, outcome
    folder = Path("runs/tiny/eval/last-val-against-val")
    record = json.loads((folder / "against.json").read_text())
    assert record["names_compared"] is True
    assert record["paired"]["images"] == 10
    for part, data in (("data", "val.beton"), ("against", "images/val")):
        assert record[part] == result(str(folder / part))
        assert record[part]["data"] == data
    paired, tops = record["paired"], [record[part]["top1"] for part in ("data", "against")]
    assert paired["difference"] == pytest.approx(tops[1] - tops[0])
    assert paired["right_in_both"] + paired["right_to_wrong"] == round(tops[0] / 10)
    assert "exact McNemar p" in outcome.out
    assert (folder / "against.md").read_text().startswith("| data | top-1 % | top-5 % | loss | ECE |")
    assert [row["data"] for row in read_table("pair.csv")] == ["val.beton", "images/val"]


def test_pairs_that_change(inside, tmp_path):
    """The same names with the classes' images exchanged: what was right is wrong."""
    shutil.copytree("images/val/dark", tmp_path / "turned" / "light")
    shutil.copytree("images/val/light", tmp_path / "turned" / "dark")
    logits, labels = logits_of(CHECKPOINT, "images/val", ("dark", "light"))
    predicted = logits.argmax(1)
    other = predicted.roll(5)
    arguments = ("eval", CHECKPOINT, "--data", "images/val", "--against", str(tmp_path / "turned"), *WHOLE)
    assert vmoe(*arguments, "--no-routing", "--output", "turned").status == 0
    paired = json.loads(Path("turned/against.json").read_text())["paired"]
    assert paired["right_to_wrong"] == int(((predicted == labels) & (other != labels)).sum())
    assert paired["wrong_to_right"] == int(((predicted != labels) & (other == labels)).sum())
    assert paired["agreement"] == pytest.approx(100 * float((predicted == other).double().mean()))


def test_images_in_another_order_are_no_pairs(inside, tmp_path):
    names = shutil.copytree("images/val", tmp_path / "names")
    (names / "dark" / "0.png").rename(names / "dark" / "00.png")
    fewer = shutil.copytree("images/val", tmp_path / "fewer")
    (fewer / "dark" / "0.png").unlink()
    shifted = shutil.copytree(fewer, tmp_path / "shifted")
    shutil.copy(shifted / "light" / "0.png", shifted / "light" / "00.png")
    for other, says in (
        (names, "is 'dark/0.png', that of .* 'dark/00.png'"),
        (fewer, "holds 10 images and .* 9;"),
        (shifted, "image 4 of val.beton is of class dark, that of .* of class light"),
    ):
        outcome = vmoe("eval", CHECKPOINT, "--data", "val.beton", "--against", str(other), "--output", "never")
        assert outcome.status == 2
        assert re.search(says, outcome.err), outcome.err
        assert "in the same order" in outcome.err
        assert not Path("never").exists()


# --- timm's models ---------------------------------------------------------------------------------------


@pytest.fixture
def pretrained(inside, monkeypatch):
    """Weights that the Hub would send for TIMM."""
    return hub_with_weights(monkeypatch)


def test_a_pretrained_model_is_evaluated_as_timm_does(pretrained, tmp_path):
    wnids = ("n01443537", "n02510455", "n04554684")  # goldfish, giant panda, washer: classes 1, 388, 897
    make_images(tmp_path / "photos", wnids, 1, size=(250, 300))
    arguments = ("eval", f"timm:{TIMM}", "--data", str(tmp_path / "photos"), "--classes", "some")
    outcome = vmoe(*arguments, "--csv", "timm.csv")
    assert outcome.status == 0, outcome
    found = result(f"runs/timm/{TIMM}/eval/pretrained-photos")
    config = timm.data.resolve_data_config({}, model=pretrained, use_test_size=True)
    assert config["mean"] != (0.485, 0.456, 0.406), "the case says nothing unless the model has its own"
    transform = timm.data.create_transform(**config)
    files = [tmp_path / "photos" / wnid / "0.png" for wnid in wnids]
    with torch.no_grad():
        logits = pretrained(torch.stack([transform(Image.open(file)) for file in files]))
    loss = functional.cross_entropy(logits, torch.tensor([1, 388, 897]))
    # both round pixels to bytes after resizing; ours normalises after that in one step in place of two
    assert found["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert (found["steps"], found["train_flops"], found["gate"]) == (None, None, "dense")
    assert table("timm.csv")[f"timm:{TIMM}", str(tmp_path / "photos")]["model"] == TIMM


def test_data_in_another_order_than_the_models_are_refused(pretrained):
    outcome = vmoe("eval", f"timm:{TIMM}", "--data", "many", "--output", "never")
    assert outcome.status == 2
    assert "12 classes and the model 1000" in outcome.err
    assert "the model lacks class 00" in outcome.err


@pytest.mark.parametrize(
    ("source", "data", "says"),
    [
        (f"timm:{TIMM}", (), "a model without data of its own; allowed: --data"),
        ("timm:vit_tinny", ("--data", "many"), "vit_tinny is neither a file nor a model that timm"),
        ("timm:vit_small_patch16_36x1_224", ("--data", "many"), "timm has no pretrained weights of"),
        ("timm:vit_small_patch14_dinov2.lvd142m", ("--data", "many"), "without a classifier"),
        (
            "timm:convnext_tiny.fb_in22k_ft_in1k_384",
            ("--data", "many"),
            "crop mode 'squash'; allowed: a model that sees the square centre",
        ),
    ],
)
def test_names_that_cannot_be_evaluated(inside, monkeypatch, source, data, says):
    def unreachable(*_, **__):
        raise FileNotFoundError("we cannot find the requested files in the local cache.\nmore")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    outcome = vmoe("eval", source, *data)
    assert outcome.status == 2
    assert says in outcome.err
    assert outcome.err.count("\n") == 1


def test_without_a_network_the_error_says_so(inside, monkeypatch):
    def unreachable(*_, **__):
        raise FileNotFoundError("we cannot find the requested files in the local cache.\nmore")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    outcome = vmoe("eval", f"timm:{TIMM}", "--data", "many")
    assert outcome.status == 2
    assert f"weights of '{TIMM}' cannot be had" in outcome.err
    assert "Allowed: a network, or weights that an earlier download left in the cache" in outcome.err


# --- reassessed labels -----------------------------------------------------------------------------------


def test_real_labels_are_of_images_by_name(pretrained, tmp_path):
    """Three images, of which the second has no label, and the others are judged by what the model takes them for."""
    wnids = ("n01440764", "n01443537", "n02510455")
    make_images(tmp_path / "photos", wnids, 1, size=(224, 224))
    for number, wnid in enumerate(wnids, start=1):
        file = tmp_path / "photos" / wnid / "0.png"
        file.rename(file.with_name(f"ILSVRC2012_val_{number:08}.png"))
    arguments = ("eval", f"timm:{TIMM}", "--data", str(tmp_path / "photos"), "--output", str(tmp_path / "out"))
    files = sorted((tmp_path / "photos").rglob("*.png"))
    images = Normalize((0.5,) * 3, (0.5,) * 3)(
        torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2)
    )
    with torch.no_grad():
        taken = pretrained(images).topk(6).indices.tolist()
    right, among, beyond = [7 % 1000, taken[0][0]], [taken[2][1]], [taken[2][5]]
    for labels, top1, top5 in (([right, [], among], 50, 100), ([right, [], beyond], 50, 50)):
        (tmp_path / "real.json").write_text(json.dumps(labels))
        whole = ("--set", "data.eval_crop=1.0", "--classes", "some", "--real", str(tmp_path / "real.json"))
        assert vmoe(*arguments, *whole).status == 0
        found = result(str(tmp_path / "out"))
        assert (found["real_top1"], found["real_top5"], found["real_samples"]) == (top1, top5, 2)
        assert found["eval_samples"] == 3


def test_real_labels_are_refused_where_they_say_nothing(inside):
    outcome = vmoe("eval", CHECKPOINT, "--real", "timm", "--output", "never")
    assert outcome.status == 2
    assert "runs/tiny/checkpoints/last.pt has 2 others" in outcome.err
    outcome = vmoe("eval", CHECKPOINT, "--real", "timm", "--classes", "index", "--output", "never")
    assert outcome.status == 2
    assert "allowed with --real: --classes same or some" in outcome.err
