"""The tiny checkpoint's vocabulary: byte pairs learnt from the world's captions, in the files of CLIP's tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from weights.train_tiny.world import sample_scene

LENGTH = 32  # tokens of a prompt, start and end included
START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in byte-level vocabularies, CLIP's order: '!' is first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def learn_merges(captions: list[str], vocab_size: int = 1024) -> list[tuple[str, str]]:
    """Byte-pair merges of the captions, most frequent first, words ending in </w> as CLIP's do."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, end_of_word_suffix="</w>", initial_alphabet=byte_letters(), show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def write(folder: Path, seed: int = 0) -> None:
    """vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json; the same bytes for the same seed."""
    rng = np.random.default_rng(seed)
    merges = learn_merges([sample_scene(rng, frames=2).caption for _ in range(4000)])
    letters = byte_letters()
    words = letters + [b + "</w>" for b in letters] + [a + b for a, b in merges] + [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {word: i for i, word in enumerate(words)}
    if len(vocab) != len(words):
        raise ValueError(f"{len(words) - len(vocab)} words occur twice in the vocabulary")
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": PAD}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(special | settings, indent=2) + "\n")
