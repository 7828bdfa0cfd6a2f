"""The tiny checkpoint's vocabulary, and a text encoder that shows what its model is given."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.text import TextEncoder
from weights.text import read_tokenizer
from weights.train_tiny import tokenizer as tiny_tokenizer


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.write(folder)
    return folder


@pytest.fixture(scope="session")
def tokens(vocabulary):
    """{token: id} of the vocabulary file."""
    return json.loads((vocabulary / "vocab.json").read_text(encoding="utf-8"))


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that any single result held, but for those that have a size `beside`."""

    def __init__(self, beside=None):
        super().__init__()
        self.beside, self.numbers = beside, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and self.beside not in tensor.shape:
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.fixture(scope="session")
def largest_tensor():
    return LargestTensor


class Echo:
    """In the model's place: its last hidden states are the token ids it was given, and nothing else is accepted."""

    device = torch.device("cpu")
    config = SimpleNamespace(max_position_embeddings=12)

    def __call__(self, input_ids):
        return SimpleNamespace(last_hidden_state=input_ids[..., None])


@pytest.fixture(scope="session")
def echo(vocabulary):
    return TextEncoder(Echo(), read_tokenizer(vocabulary))
