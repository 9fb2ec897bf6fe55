"""Names of classes."""

import pytest

from vmoe.cli.labels import label_names


@pytest.mark.parametrize("classes", [(), ("cat", "dog"), ("n01440764", "dog"), ("n0144", "n01440764"), ("0", "1")])
def test_folders_are_names_where_they_are_not_all_imagenets(classes):
    assert label_names(classes) == classes


def test_imagenets_folders_are_named_by_wordnets_first_word():
    assert label_names(["n01440764", "n02111889"]) == ("tench", "Samoyed")


def test_a_folder_that_wordnet_does_not_know_stays():
    assert label_names(["n01440764", "n99999999"]) == ("tench", "n99999999")


def test_no_name_is_given_twice():
    """Two kinds of crane have the same words, two of maillot have others beside it."""
    names = label_names(["n02012849", "n03126707", "n03710637", "n03710721", "n01440764"])
    assert names[:2] == ("crane (n02012849)", "crane (n03126707)")
    assert names[2] == "maillot"
    assert names[3].startswith("maillot, ")
    assert names[4] == "tench"
    from timm.data import ImageNetInfo

    everything = ImageNetInfo("imagenet-22k").label_names()
    assert len(set(label_names(everything))) == len(everything)
