"""Downloads the published weights of timm networks, once, into the caches that timm itself uses."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from timm.models import PretrainedCfg
from timm.models._hub import download_cached_file, hf_split

from bench.errors import WeightsError, brief

NAMES = ["model.safetensors", "pytorch_model.bin"]
"""Of a repository that does not say which file it has."""
HUB_TIMEOUT = 5.0
"""Seconds to wait for the first answer. The clients' own timeouts and retries would take minutes for each network."""
FIX = 'Fetch the file elsewhere and set weights = "file:PATH" for it in the matrix, or use a bundled network.'


class Fetched(NamedTuple):
    path: Path
    origin: str
    """"hub:REPOSITORY@COMMIT", or the URL."""
    custom: bool
    """In a format that only the network's own timm loader reads (such as .npz)."""


def fetch(model: str, config: PretrainedCfg) -> Fetched:
    """The file with the weights of `model`, from the cache, with or without a network, else downloaded. A host that did
    not answer is not asked again by this process, so that only the first of many cells waits. Raises WeightsError."""
    if config.hf_hub_id:
        repo, revision = hf_split(config.hf_hub_id)
        names = [config.hf_hub_filename] if config.hf_hub_filename else NAMES
        path = _from_hugging_face(model, repo, revision, names)
        # .../models--timm--resnet18.a1_in1k/snapshots/COMMIT/model.safetensors
        return Fetched(path, f"hub:{config.hf_hub_id}@{path.parent.name}", str(config.custom_load) == "hf")
    if config.url:
        address, name = (config.url, config.url.rpartition("/")[2]) if isinstance(config.url, str) else config.url
        return Fetched(_from_url(model, address, name), address, bool(config.custom_load))
    raise WeightsError(f'{model}: timm knows of no published weights for it. Set weights = "file:PATH" or "random".')


def cached(config: PretrainedCfg) -> bool:
    """Whether `fetch` would find the file on this machine."""
    if config.hf_hub_id:
        repo, revision = hf_split(config.hf_hub_id)
        names = [config.hf_hub_filename] if config.hf_hub_filename else NAMES
        found = (huggingface_hub.try_to_load_from_cache(repo, name, revision=revision) for name in names)
        return any(isinstance(path, str) for path in found)
    name = config.url.rpartition("/")[2] if isinstance(config.url, str) else config.url[1] if config.url else ""
    return bool(name) and Path(torch.hub.get_dir(), "checkpoints", name).is_file()


def _from_hugging_face(model: str, repo: str, revision: str | None, names: list[str]) -> Path:
    for name in names:
        # The cache first: the weights of a tag do not change, and a hundred cells need not ask a hundred times.
        cached = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    endpoint = huggingface_hub.constants.ENDPOINT
    for name in names:
        if endpoint in _out_of_reach:
            raise WeightsError(f"{model}: {_out_of_reach[endpoint]}. {FIX}")
        try:
            # A probe of our own: where it gets no answer, `hf_hub_download` tries for a minute and more.
            url = huggingface_hub.hf_hub_url(repo, name, revision=revision)
            huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            raise WeightsError(f"{model}: the hub does not give out {repo} ({type(error).__name__}). {FIX}") from error
        except Exception as error:  # its type depends on the HTTP library of the client's version
            _out_of_reach[endpoint] = f"{endpoint} cannot be reached ({brief(error)}) and its cache here lacks the file"
            raise WeightsError(f"{model}: {_out_of_reach[endpoint]}. {FIX}") from error
        try:
            return Path(huggingface_hub.hf_hub_download(repo, name, revision=revision))
        except Exception as error:
            raise WeightsError(f"{model}: the download of {name} from {repo} failed ({brief(error)}). {FIX}") from error
    raise WeightsError(f"{model}: {repo} has none of {', '.join(names)}. {FIX}")


def _from_url(model: str, address: str, name: str) -> Path:
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    host = address.split("/")[2]
    if path.is_file():
        return path
    if host in _out_of_reach:
        raise WeightsError(f"{model}: {_out_of_reach[host]}. {FIX}")
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_TIMEOUT).close()
    except OSError as error:
        _out_of_reach[host] = f"{host} cannot be reached ({brief(error)})"
        raise WeightsError(f"{model}: {_out_of_reach[host]}. {FIX}") from error
    try:
        return Path(download_cached_file((address, name), check_hash=True))
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is not the one in its name
        raise WeightsError(f"{model}: the download of {address} failed ({brief(error)}). {FIX}") from error


_out_of_reach: dict[str, str] = {}
"""Hosts that did not answer -> what to say of them."""
