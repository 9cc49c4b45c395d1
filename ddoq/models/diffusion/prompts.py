"""Makes the prompt of each class.

Classes are matched by name. ImageNet's (ImageNette's, ImageWoof's) WordNet identifiers stand for their synonyms in
imagenet.txt; other data sets have their own names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddoq.data.class_names import imagenet


def spoken(class_name: str) -> str:
    """A class's name in a prompt: the first synonym of a WordNet identifier of ImageNet's, or its own, with spaces.

    >>> spoken("n02099601"), spoken("fire_truck")
    ('golden retriever', 'fire truck')
    """
    words = imagenet().get(class_name)
    return words.partition(",")[0] if words else class_name.replace("_", " ")


def prompts(template: str, class_names: Sequence[str]) -> list[str]:
    """A template with the name of each class in place of its {}.

    >>> prompts("a photo of a {}", ["n02099601", "cat"])
    ['a photo of a golden retriever', 'a photo of a cat']
    """
    if template.count("{}") != 1 or re.search(r"[{}]", template.replace("{}", "")):
        raise ValueError(f"prompt must have one {{}} where the name of the class goes, got {template!r}")
    return [template.replace("{}", spoken(name)) for name in class_names]
