"""Hashes a model, so that one is told from another: its class, its settings and its weights."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Content = Iterator[tuple[str, bytes]]  # (where in the object, what is there)
Inside = Mapping[int, str]  # the objects that are being described, by id: where they are

CONSTANTS = (types.NoneType, bool, int, float, complex, str, bytes)
NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
MODULE_STATE = frozenset(vars(nn.Module()))  # hooks, mode of training, tables of weights and parts


def fingerprint(obj: Any) -> str:
    """Identify a model by its class and contents: equal for equal models, different when a weight differs.

    The object's own `fingerprint` (a string) if it has one; otherwise a sha256 over its class name and all that its
    attributes hold: modules with their parts and weights, tensors, arrays, constants, containers and objects of these.
    A diffusers model is told by its class, configuration and weights. Functions and classes count by name alone,
    devices and a module's hooks and training mode not at all. Whatever else decides an object's results, such as its
    code or a remote service, must be told by its own `fingerprint`.

    Raises
    ------
    TypeError
        An attribute holds what cannot be described, such as a lock or an open file. Private ones (`_name`) are then
        passed over.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> before = fingerprint(layer)
    >>> with torch.no_grad():
    ...     _ = layer.weight[0, 0].add_(1)
    >>> fingerprint(layer) == before
    False
    """
    own_fingerprint = getattr(obj, "fingerprint", None)
    if isinstance(own_fingerprint, str):
        return own_fingerprint
    name = type(obj).__qualname__
    content = _module(obj, {}) if isinstance(obj, nn.Module) else _object("", obj, {id(obj): "itself"})
    try:
        return _digest(chain([("class", name.encode())], content))
    except _CannotBeDescribedError as error:
        where, what = error.args
        raise TypeError(
            f"{name}.{where} is a {what}, whose contents cannot be told: give the {name} an attribute `fingerprint`, "
            "a string that changes whenever its results would"
        ) from error


class _CannotBeDescribedError(Exception):
    """Where and what."""


def _digest(content: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, value in content:
        digest.update(f"{len(name)}:{name}:{len(value)}:".encode())
        digest.update(value)
    return digest.hexdigest()


def _value(name: str, value: Any, inside: Inside) -> Content:
    if isinstance(value, torch.device):  # where it computes, not what
        return
    if id(value) in inside:
        yield name, inside[id(value)].encode()
    elif isinstance(value, CONSTANTS):
        yield name, repr(value).encode()
    elif isinstance(value, Tensor):
        yield name, _tensor(name, value)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield name, f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, NAMED):
        yield name, f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}".encode()
    elif isinstance(getattr(value, "fingerprint", None), str):
        yield name, value.fingerprint.encode()
    elif isinstance(value, nn.Module):
        yield f"{name}:class", type(value).__qualname__.encode()
        yield from ((f"{name}.{key}", content) for key, content in _module(value, inside))
    else:
        yield f"{name}:class", type(value).__qualname__.encode()
        yield from _container(name, value, {**inside, id(value): name})


def _container(name: str, value: Any, inside: Inside) -> Content:
    if isinstance(value, np.ndarray):
        yield f"{name}:shape", str(value.shape).encode()
        value = value.reshape(-1).tolist()
    if isinstance(value, list | tuple):
        yield f"{name}:length", str(len(value)).encode()
        for i, item in enumerate(value):
            yield from _value(f"{name}[{i}]", item, inside)
    elif isinstance(value, set | frozenset):
        yield name, " ".join(sorted(_digest(_value("", item, inside)) for item in value)).encode()
    elif isinstance(value, Mapping):
        items = {_digest(_value("", key, inside)): item for key, item in value.items()}
        for key in sorted(items):
            yield from _value(f"{name}[{key}]", items[key], inside)
    else:
        yield from _object(f"{name}.", value, inside)


def _object(prefix: str, obj: Any, inside: Inside) -> Content:
    """What `copy.copy` would take of an object."""
    try:
        reduced = obj.__reduce_ex__(2)
    except Exception as error:  # whatever its class raises
        raise _CannotBeDescribedError(prefix.rstrip("."), type(obj).__qualname__) from error
    if isinstance(reduced, str):  # the name of a constant
        yield prefix, reduced.encode()
        return
    arguments = tuple(argument for argument in reduced[1] if argument is not type(obj))
    for part in (arguments or None, *reduced[2:]):
        if isinstance(part, dict):
            yield from _attributes(prefix, part, inside)
        elif part is not None:
            yield from _value(prefix, list(part) if isinstance(part, Iterator) else part, inside)


def _attributes(prefix: str, attributes: Mapping[str, Any], inside: Inside) -> Content:
    for name in sorted(attributes):
        content = _value(f"{prefix}{name}", attributes[name], inside)
        if name.startswith("_"):
            with suppress(_CannotBeDescribedError):
                yield from list(content)
        else:
            yield from content


def _module(module: nn.Module, inside: Inside) -> Content:
    config = getattr(module, "config", None)
    if _of_diffusers(module) and isinstance(config, dict):
        settings = {key: value for key, value in config.items() if not key.startswith("_")}
        yield "config", json.dumps(settings, sort_keys=True, default=str).encode()
    for name, value in sorted(module.state_dict().items()):
        yield from _value(name, value, inside)
    yield from _parts("", module, {**inside, **{id(part): name for name, part in module.named_modules()}})


def _parts(prefix: str, module: nn.Module, inside: Inside) -> Content:
    """What a module and its parts are beside their weights; those of diffusers are told by the configuration."""
    if type(module).__module__.startswith("diffusers."):
        return
    attributes = {name: value for name, value in vars(module).items() if name not in MODULE_STATE}
    if _of_diffusers(module):
        attributes.pop("_internal_dict", None)  # the configuration, with the folder it came from
    yield from _attributes(prefix, attributes, inside)
    for name, buffer in module.named_buffers(recurse=False):  # some are not among the weights
        yield from _value(f"{prefix}{name}", buffer, inside)
    for name, part in module.named_children():
        yield f"{prefix}{name}:class", type(part).__qualname__.encode()
        yield from _parts(f"{prefix}{name}.", part, inside)


def _of_diffusers(module: nn.Module) -> bool:
    return any(base.__module__.startswith("diffusers.") for base in type(module).__mro__)


def _tensor(name: str, tensor: Tensor) -> bytes:
    if tensor.layout != torch.strided or tensor.is_meta:
        raise _CannotBeDescribedError(name, f"{tensor.layout} tensor on {tensor.device}")
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    content: bytes = flat.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{flat.dtype}{tuple(flat.shape)}".encode() + content
