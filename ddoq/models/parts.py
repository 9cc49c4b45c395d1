"""Reads the parts of a diffusers pipeline, wherever it is: an object, a local folder, or an id on a hub.

A part is named as in the pipeline ("vae", "unet", "transformer", "scheduler", "text_encoder", ...); the part "" of a
folder or hub id is a model that lies there by itself. A hub is contacted for an id that the user gave, and for nothing
else.
"""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch

from ddoq.machine.device import Precision

CONFIGS = {"scheduler": "scheduler_config.json"}  # where it is not config.json
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")


class Parts(Protocol):
    """Where a pipeline's parts come from."""

    name: str

    def kind(self, part: str) -> str | None:
        """Class of a part; None where the pipeline has no such part."""
        ...

    def config(self, part: str) -> dict[str, Any]:
        """Settings of a part."""
        ...

    def load(self, part: str, kind: Any, dtype: torch.dtype | None = None) -> Any:
        """The part itself, as an object of the class `kind`; a diffusers model in a type."""
        ...

    def facts(self, file: str = "model_index.json") -> dict[str, Any]:
        """What the pipeline says of itself as a whole; empty where it says nothing."""
        ...

    def dtype(self, precision: Precision, device: torch.device) -> torch.dtype | None:
        """What to compute in; None: as the models are."""
        ...


class PipelineFiles:
    """The parts in a local folder or on a hub.

    Weights in a local folder are read from safetensors alone. From a hub they are too, where they are there; else torch
    reads them with `weights_only=True`.

    Parameters
    ----------
    location
        A folder, or an id such as "owner/name", which is looked up if there is no such folder.
    what
        The option that it was given for, for messages.
    """

    def __init__(self, location: str | PathLike[str], what: str) -> None:
        self.name = str(location)
        self.what = what
        self.local = Path(location).is_dir()
        if not self.local and not (isinstance(location, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", location)):
            raise FileNotFoundError(
                f"{what} {self.name!r} is no folder, no name that ddoq knows and no hub id (owner/name)"
            )
        owner = self.name.partition("/")[0]
        if not self.local and Path(owner).is_dir():
            raise FileNotFoundError(
                f"{what} {self.name!r} is no folder, though {owner!r} is one here: check the name; a run has codec/ "
                "and diffusion/ only where distill fitted them, otherwise give what it was made with"
            )

    def kind(self, part: str) -> str | None:
        path = self._file(self._path(part))
        if path is None:
            return None
        config = read_config(path)
        kinds = [config.get("_class_name"), *(config.get("architectures") or [])]
        return next((str(kind) for kind in kinds if kind), "None")

    def config(self, part: str) -> dict[str, Any]:
        path = self._file(self._path(part))
        return {} if path is None else read_config(path)

    def load(self, part: str, kind: Any, dtype: torch.dtype | None = None) -> Any:
        options: dict[str, Any] = {"local_files_only": self.local, **({"torch_dtype": dtype} if dtype else {})}
        if isinstance(kind, type) and issubclass(kind, torch.nn.Module):
            options["use_safetensors"] = True if self.local else None
        try:
            return kind.from_pretrained(self.name, subfolder=part, **options)
        except OSError as error:
            raise error if self.local else self._unreachable(error) from error

    def facts(self, file: str = "model_index.json") -> dict[str, Any]:
        path = self._file(file)
        return {} if path is None else read_config(path)

    def dtype(self, precision: Precision, device: torch.device) -> torch.dtype | None:
        if precision != "auto":
            return as_dtype(precision)
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32

    def _path(self, part: str) -> str:
        return f"{part}/{CONFIGS.get(part, 'config.json')}".lstrip("/")

    def _file(self, name: str) -> Path | None:
        """A file of the folder or hub; None if it is not there."""
        if self.local:
            path = Path(self.name) / name
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, name))
        except LocalEntryNotFoundError as error:  # no network: what was downloaded before is all there is
            wholes = ("model_index.json", "config.json")
            if any(isinstance(try_to_load_from_cache(self.name, whole), str) for whole in wholes):
                return None
            raise self._unreachable(error) from error
        except EntryNotFoundError:
            return None
        except (OSError, HFValidationError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> FileNotFoundError:
        reason = str(error).strip().partition("\n")[0]
        return FileNotFoundError(
            f"{self.what} {self.name!r} is no folder here, and the hub does not give it ({reason}): "
            f"check the id and the network, or download it elsewhere and give the local folder"
        )


class PipelineObject:
    """The parts of a pipeline that the user has in memory."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.name = type(pipeline).__name__

    def kind(self, part: str) -> str | None:
        part_object = getattr(self.pipeline, part, None) if part else None
        if part_object is None:
            return None
        names = [base.__name__ for base in type(part_object).__mro__ if base.__module__.startswith("diffusers.")]
        return names[0] if names else type(part_object).__name__

    def config(self, part: str) -> dict[str, Any]:
        return dict(getattr(self.pipeline, part).config)

    def load(self, part: str, kind: Any, dtype: torch.dtype | None = None) -> Any:
        return getattr(self.pipeline, part)

    def facts(self, file: str = "model_index.json") -> dict[str, Any]:
        if file != "model_index.json":
            return {}
        config = dict(self.pipeline.config)
        labels: dict[int, str] = {}
        for name, label in getattr(self.pipeline, "labels", {}).items():  # DiTPipeline's own form of id2label
            labels[label] = f"{labels[label]}, {name}" if label in labels else name
        return {**config, "id2label": config.get("id2label") or labels}

    def dtype(self, precision: Precision, device: torch.device) -> torch.dtype | None:
        return None if precision == "auto" else as_dtype(precision)


def open_parts(pipeline: Any, what: str) -> Parts | None:
    """The parts of a folder, a hub id or a pipeline object; None for other objects."""
    if isinstance(pipeline, str | PathLike):
        return PipelineFiles(pipeline, what)
    if any(base.__name__ == "DiffusionPipeline" for base in type(pipeline).__mro__):  # without importing diffusers
        return PipelineObject(pipeline)
    return None


def autoencoder_part(parts: Parts) -> str | None:
    """The part that is an autoencoder: the pipeline's "vae", or "", the whole; None without one."""
    return next((part for part in ("vae", "") if parts.kind(part) in AUTOENCODERS), None)


def as_dtype(precision: str) -> torch.dtype:
    """The torch type of a precision's name; ValueError for another name."""
    if precision not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"precision must be 'auto', 'float32', 'bfloat16' or 'float16', got {precision!r}")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def settle_module(model: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """A model on its device, in its precision and in evaluation mode; on a GPU in the layout that convolutions want."""
    model = model.to(device) if dtype in (None, model.dtype) else model.to(device=device, dtype=dtype)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return model.eval()


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object; ValueError naming the file if it is none."""
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a JSON {type(config).__name__}: a configuration is an object {{...}}")
    return config
