"""Where a backbone's weights come from: the hub (by timm's names), a file, the bundle, or nowhere (random)."""

from __future__ import annotations

import difflib
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg
from torch import Tensor

from bench.contract import Backbone
from bench.errors import UsageError, WeightsError, brief, nearest
from bench.hub import fetch

SUFFIXES = (".safetensors", ".pth", ".pt")
RESERVED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "num_classes", "in_chans"}
"""Arguments of `timm.create_model` that are the harness's to set."""


@dataclass(frozen=True)
class Bundled:
    """Weights that come with medtransfer: a file in `bench/weights/` and the timm network that loads it strictly."""

    file: str
    model: str
    sha256: str
    head: str
    """The file with the classifier of natural images that the network was trained with: `weight` [C, D], `bias` [C]."""
    head_sha256: str
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    kwargs: Mapping[str, Any] = field(default_factory=dict)


BUNDLED: dict[str, Bundled] = {
    "resnet": Bundled(
        file="resnet.safetensors",
        model="resnet18",
        sha256="8948707b416df93f2fbf1b8afc6bac73dd53c34156f9b96854512a91d3925f6f",
        head="resnet.head.safetensors",
        head_sha256="f7ec69e75ccf716ff5a6c340fd51d03aece6e47c83d3c4b2084c3e7fe6e73727",
        kwargs={"channels": (24, 48, 96, 96)},
    ),
    "mobilenet": Bundled(
        file="mobilenet.safetensors",
        model="mobilenetv2_035",
        sha256="f062ed64292abbe50dbc922c02fc43866d23a222b521efdd37e4a5a0cbba2560",
        head="mobilenet.head.safetensors",
        head_sha256="41a48ac80ce3c46a2003d2e8291cec32ef196069713b5c8856c24f72b64a0b15",
    ),
    "convnext": Bundled(
        file="convnext.safetensors",
        model="convnext_atto",
        sha256="60c531d558d7ea601048b6e062d4393e19690727f4bee7b5d5206410ca41cc3c",
        head="convnext.head.safetensors",
        head_sha256="b6f396bd22eb6bd6eb6e02a56272774a32604404d8ab016af9c3fb051790e597",
        kwargs={"patch_size": 2, "depths": (2, 2, 2, 2), "dims": (24, 48, 96, 144)},
    ),
}
FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Weights:
    """Weights that were found but not read yet."""

    hash: str
    """sha256 (hex) of the file's bytes, or "random"."""
    origin: str
    """For provenance: "random", "file:PATH" as the user wrote it, "bundled:NAME", "hub:REPOSITORY@COMMIT" or an URL."""
    path: Path | None
    custom: bool = False
    """The file is in a format that only the network's own timm loader reads (such as .npz)."""


def resolve(backbone: Backbone) -> Weights:
    """Finds (the hub's: downloads once) and hashes the weights of a backbone, without building the network. Raises
    UsageError for an unknown network, tag or argument, WeightsError for weights that cannot be found."""
    config = timm_config(backbone)
    kind, _, name = backbone.weights.partition(":")
    if kind == "random":
        return Weights("random", "random", None)
    if kind == "file":
        path = _existing(name)
        _check_format(path)
        return Weights(_sha256(path), backbone.weights, path)
    if kind == "bundled":
        bundled = bundled_weights(name)
        return Weights(bundled.sha256, backbone.weights, _bundled_file(bundled.file, bundled.sha256))
    if kind == "hub":
        fetched = fetch(backbone.model, config)
        return Weights(_sha256(fetched.path), fetched.origin, fetched.path, fetched.custom)
    raise UsageError(f'{backbone.label}: weights = "{backbone.weights}". Valid: hub, random, file:PATH, bundled:NAME.')


def timm_arguments(backbone: Backbone) -> tuple[str, dict[str, Any]]:
    """timm's name of the network and further arguments of `timm.create_model`. Raises UsageError for an argument that
    cannot be given, WeightsError for bundled weights that do not exist or are another network's."""
    if taken := sorted(RESERVED & backbone.kwargs.keys()):
        raise UsageError(f"{backbone.label}: kwargs cannot hold {', '.join(taken)}, set by the harness. Leave it out.")
    bundled = bundled_of(backbone)
    if bundled is None:
        return backbone.model, dict(backbone.kwargs)
    if not backbone.model.startswith("bundled:") and backbone.model != bundled.model:
        raise WeightsError(f"{backbone.weights} is for {bundled.model}, not {backbone.model}. Set model to that.")
    return bundled.model, {**bundled.kwargs, **backbone.kwargs}


def bundled_of(backbone: Backbone) -> Bundled | None:
    """The table's entry that the backbone's weights, or its network alone (`bundled:NAME` with random weights), are of.
    Raises WeightsError where there is none of that name, or where weights and network are of two."""
    names = [text.partition(":")[2] for text in (backbone.weights, backbone.model) if text.startswith("bundled:")]
    if len(set(names)) > 1:
        raise WeightsError(f"{backbone.weights} does not fit model {backbone.model}. Name one of them.")
    return bundled_weights(names[0]) if names else None


def timm_config(backbone: Backbone) -> PretrainedCfg:
    """timm's configuration of the network's pretrained weights. Raises UsageError for an unknown network or tag."""
    name, _ = timm_arguments(backbone)
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        # `nearest` alone would list more than a thousand names where none is near.
        hint = nearest(model, difflib.get_close_matches(model, timm.list_models(), n=1, cutoff=0.5))
        raise UsageError(f"{name}: timm {timm.__version__} has no network of this name.{hint}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        raise UsageError(f'{name}: {model} has no weights tagged "{tag}".{nearest(tag, tags)}')
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def bundled_weights(name: str) -> Bundled:
    """The table's entry. Raises WeightsError where there is none."""
    if name not in BUNDLED:
        hint = nearest(name, BUNDLED) or " None is bundled: use the hub, a file or random weights."
        raise WeightsError(f"bundled:{name}: no such bundled weights.{hint}")
    return BUNDLED[name]


def source_head(backbone: Backbone) -> dict[str, Tensor] | None:
    """`weight` float32 [C, D] and `bias` [C] of the classifier over the source's classes that the weights were trained
    with, on the pooled features of the whole network; None where they came without one. Raises WeightsError."""
    if not backbone.weights.startswith("bundled:") or backbone.cut:
        return None
    bundled = bundled_weights(backbone.weights.partition(":")[2])
    state = read_state(_bundled_file(bundled.head, bundled.head_sha256))
    return {name: value.float() for name, value in state.items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a weights file, by name, on the CPU; no code in the file is run. Raises WeightsError."""
    try:
        if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
            _check_unpacked(path)
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except WeightsError:
        raise
    except AttributeError as error:  # what is no state dict has no items, or names that are no text
        raise WeightsError(
            f"{path}: not a state dict. Save `model.state_dict()` alone, best as .safetensors."
        ) from error
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        if "weights_only" in str(error):
            raise WeightsError(
                f"{path}: refused, because it is damaged or holds more than tensors, and reading that could run code. "
                "Save the state dict alone, best as .safetensors."
            ) from error
        raise WeightsError(f"{path}: cannot be read ({brief(error)}). Copy or download it again.") from error
    odd = [name for name, value in state.items() if not isinstance(name, str) or not _plain(value)]
    if odd or not state:
        what = f'"{odd[0]}" is not a plain tensor with a name' if odd else "it is empty"
        raise WeightsError(f"{path}: not a state dict ({what}). Save `model.state_dict()` alone, best as .safetensors.")
    return state


def _check_format(path: Path) -> None:
    """What a glance shows, before a run is planned with the file. Raises WeightsError where it is of no format of
    weights, or a .safetensors is not as long as its header says."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if path.suffix != ".safetensors":
                whole = head.startswith(b"\x80") or zipfile.is_zipfile(path)  # a pickle, as torch once wrote, or a zip
            else:
                size, length = path.stat().st_size, int.from_bytes(head, "little")
                entries = json.loads(file.read(length)) if length < size else {}
                ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
                whole = length < size and 8 + length + max(ends, default=0) == size
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({brief(error)}). Check its permissions.") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # the header is no JSON, or another
        whole = False
    if not whole:
        kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
        raise WeightsError(f"{path}: cut short, or not a {kind} file at all. Copy or download it again.")


def _check_unpacked(path: Path) -> None:
    """torch stores tensors as they are; what is packed could become larger than the memory."""
    with zipfile.ZipFile(path) as archive:
        if any(info.file_size != info.compress_size for info in archive.infolist()):
            raise WeightsError(f"{path}: is compressed, as torch.save does not. Save the state dict with torch.save.")


def _plain(value: object) -> bool:
    """A tensor that holds real values as they are: not sparse, quantized or without memory."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return not (value.is_complex() or value.is_quantized or value.is_meta)


def _existing(name: str) -> Path:
    try:
        return _found(name)
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that may not be read, "~nobody"
        raise WeightsError(f"file:{name}: cannot be read ({brief(error)}). Correct the path.") from error


def _found(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file() and path.suffix in SUFFIXES:
        return path
    if path.is_file():
        raise WeightsError(f"file:{name}: not a weights file by its name. Valid endings: {', '.join(SUFFIXES)}.")
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    if folder not in (path, path.absolute().parent):
        raise WeightsError(f"file:{name}: there is no such folder; the nearest above it is {folder}. Correct it.")
    hint = nearest(path.name, [file.name for file in folder.iterdir() if file.suffix in SUFFIXES])
    none = "" if hint else ", nor any other weights file"
    what = "a folder, not a file." if folder == path else f"no such file in {folder}{none}."
    raise WeightsError(f"file:{name}: {what}{hint or ' Correct the path.'}")


def _bundled_file(file: str, sha256: str) -> Path:
    path = FOLDER / file
    if not path.is_file() or _sha256(path) != sha256:
        raise WeightsError(f"{path}: these bundled weights are missing or damaged. Install medtransfer again.")
    return path


def _sha256(path: Path) -> str:
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({brief(error)}). Check its permissions.") from error


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified: int) -> str:
    """Size and time are there for the cache's sake: a file that changed is hashed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
