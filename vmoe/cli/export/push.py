"""An exported model onto the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vmoe.train.warn import first_line

from .card import CARD


def check_repository(name: str) -> None:
    """Raise `ValueError` unless the hub could have a repository of that name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--push is {name!r}; allowed: OWNER/NAME ({error})") from None
    if name.count("/") != 1:
        raise ValueError(f"--push is {name!r}; allowed: OWNER/NAME")


def push(
    model: nn.Module, backbone: ModuleType, folder: Path, about: Mapping[str, Any], name: str, *, private: bool
) -> str:
    """Upload what the folder holds; the address it has then. A card that the repository has already stays.

    private: of a repository that is made. Raises `OSError`, with what the hub or the network said.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        if not api.file_exists(name, CARD):  # before the model, or timm writes one, with a licence of its own
            api.upload_file(path_or_fileobj=folder / CARD, path_in_repo=CARD, repo_id=name, commit_message="Add card")
        backbone.push_folder(model, folder, about, name, private=private)
    except Exception as error:  # of whatever client is beneath
        said = first_line(error)
        raise OSError(f"--push {name}: {said}. {folder} is written; `hf auth login` gives access") from error
    return address
