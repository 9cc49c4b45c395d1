"""The README.md of an image folder is a Hugging Face dataset card, which carries the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddoq.storage.values import json_line


def dataset_card(
    class_names: Sequence[str], rows: Sequence[dict[str, Any]], extra: dict[str, Any], made_by: str = "ddoq"
) -> str:
    """README.md: YAML features with the class names for the Hugging Face loader, then how to read the folder."""
    kinds = {"weight": "float64", "count": "int64", "sha256": "string"}
    kinds |= {key: _kind(value) for key, value in extra.items()}
    names = "".join(f"          '{label}': {json_line(name)}\n" for label, name in enumerate(class_names))
    columns = "".join(f"  - name: {json_line(key)}\n    dtype: {kind}\n" for key, kind in kinds.items())
    features = f"""  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
{names}  - name: class_name
    dtype: string
{columns}"""
    # the loader takes the features from configs, the viewer on the hub from dataset_info
    return f"""---
task_categories:
- image-classification
tags:
- dataset-distillation
- ddoq
configs:
- config_name: default
  data_files:
  - split: train
    path: "**"
{features}dataset_info:
{features}---

# A distilled data set

{len(rows)} weighted images of {len(class_names)} classes, made by {made_by}. Multiply each image's loss by
its `weight`; `count` is the number of images of the full set that the image stands for.

- ddoq: `ddoq.load(run)`, a torch Dataset of (image, target, weight).
- Hugging Face: `datasets.load_dataset("/path/to/this/folder", split="train")` gives `label` as a ClassLabel with the
  names above. `datasets.load_dataset("imagefolder", data_dir="/path/to/this/folder", split="train")` does not read
  this card: there `label` is the index and `class_name` the name.
- torchvision (`ImageFolder`) and timm: the class folders are numbered, so that their sorted order is the order of the
  classes; the exact names are in `metadata.jsonl`.
"""


def _kind(value: Any) -> str:
    for kind, name in ((bool, "bool"), (int | np.integer, "int64"), (float | np.floating, "float64"), (str, "string")):
        if isinstance(value, kind):
            return name
    raise TypeError(f"a column of the metadata must hold numbers or text, got {value!r:.100}")
