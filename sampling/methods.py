"""The methods that are compared: their names, and the settings behind each name on one checkpoint."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sampling.generate import Pipeline
from sampling.settings import CHOICES, SamplingSettings, preset

# The rows of Table 1 and what they are made of; "full" is as the checkpoint recommends it, then with each gradient.
METHODS = (
    "plain",
    "peekaboo",
    "trailblazer",
    "mask",
    "mask-norm",
    "mask-norm+id",
    "full",
    *(f"full[{gradient}]" for gradient in CHOICES["prior_gradient"]),
    "paper",
)


def method_settings(
    pipeline: Pipeline, methods: Iterable[str], given: Mapping[str, Any] | None = None
) -> dict[str, SamplingSettings]:
    """Settings for each name: a preset, or a preset with one choice in brackets, as mask-norm[joint] or full[tweedie].

    given: settings that count in place of the checkpoint's, for all that a method leaves open.
    """
    base = SamplingSettings(**{**pipeline.defaults.settings, **(given or {})})
    return {method: _settings(method, base) for method in methods}


def _settings(method: str, base: SamplingSettings) -> SamplingSettings:
    match = re.fullmatch(r"(?P<name>.+)\[(?P<choice>.+)\]", method)
    if match is None:
        return preset(method, base)
    settings = preset(match["name"], base)
    for name, words in CHOICES.items():  # no word is a choice of two settings
        if match["choice"] in words:
            return replace(settings, **{name: match["choice"]})
    choices = ", ".join(word for words in CHOICES.values() for word in words)
    raise ValueError(f"what stands in brackets must be one of {choices}, got {method!r}")
