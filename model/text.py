"""The text encoder: what cross-attention reads of a prompt, and which of its tokens name a subject.

CLIP's text model and tokenizer are handed in; `weights/text.py` makes them from a checkpoint's own folders.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adaptation.letters import check_letters

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

WORD_END = "</w>"  # the last token of a word ends in it
SHOWN = 2000  # tokens, more than fill a message: a letter has up to four


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A prompt is L tokens: the start, its words, the end, then padding. L is 77 in Zeroscope."""

    model: CLIPTextModel
    tokenizer: CLIPTokenizer

    @property
    def length(self) -> int:
        """L; a tokenizer that names no limit has a huge one."""
        return int(min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings))  # it may be 77.0

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states (B, L, D) of B prompts, in the model's dtype. No attention mask: padding is read as well,
        as in training; only CLIP's causal mask remains. Words beyond L are cut, with a warning."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a list of one or more texts, got {prompts!r}")
        positions = []
        for prompt in prompts:
            ids = self._words(prompt)
            lost = self._split(ids[self._kept(ids) :][:SHOWN])
            if lost:
                words = textwrap.shorten(" ".join(lost), 500)
                warnings.warn(f"the prompt is cut to {self.length} tokens, these words are lost: {words}", stacklevel=2)
            positions.append(self._framed(ids))
        with torch.no_grad():
            tokens = torch.tensor(positions, device=self.model.device)  # (B, L)
            return self.model(input_ids=tokens).last_hidden_state  # (B, L, D)

    def subject_tokens(self, prompt: str, subject: str) -> Tensor:
        """Which of the prompt's L positions are the subject's, bool (L,): every place where the subject's tokens occur
        in the prompt's, as whole words. Upper and lower case are the same where the tokenizer says so."""
        ids, wanted = self._words(prompt), self._words(subject)
        if not wanted:
            raise ValueError("the subject is empty; name it in words of the prompt")
        if len(wanted) > self.length - 2:
            raise ValueError(
                f"the subject {textwrap.shorten(subject, 100)!r} has {len(wanted)} tokens, but only {self.length - 2} "
                "of a prompt are read; name it in fewer words"
            )
        starts = [0] + [i for i, ends in enumerate(self._ends_word(ids), start=1) if ends]
        places = [i for i in starts if ids[i : i + len(wanted)] == wanted]
        if not places:
            words = ", ".join(self._split(ids[:SHOWN])) or "none"
            raise ValueError(
                f"the subject {subject!r} is not in the prompt, whose words are: {textwrap.shorten(words, 300)}"
            )
        kept = [i for i in places if i + len(wanted) <= self.length - 2]
        if not kept:
            raise ValueError(
                f"the subject {subject!r} is only in the part of the prompt that is cut, beyond {self.length} tokens; "
                "name it earlier"
            )
        tokens = torch.zeros(self.length, dtype=torch.bool)
        for i in kept:
            tokens[i + 1 : i + 1 + len(wanted)] = True  # position 0 is the start
        return tokens

    def tokens_alike(self, prompt: str, subject: str) -> Tensor:
        """Peekaboo's rule in place of `subject_tokens`, bool (L,): every position whose token occurs in the subject, in
        its phrase or by itself. "red ball" has both "red" of "a red ball and a red cross"."""
        ids, wanted = self._words(prompt)[: self.length - 2], set(self._words(subject))
        tokens = torch.zeros(self.length, dtype=torch.bool)
        tokens[1 : 1 + len(ids)] = torch.tensor([i in wanted for i in ids], dtype=torch.bool)  # position 0 is the start
        return tokens

    def _framed(self, ids: list[int]) -> list[int]:
        """The L tokens of a prompt: start, as much of its words as there is room for, end, padding."""
        t = self.tokenizer
        ids = [t.bos_token_id, *ids[: self.length - 2], t.eos_token_id]
        return ids + [t.pad_token_id] * (self.length - len(ids))

    def _kept(self, ids: list[int]) -> int:
        """How many of a prompt's tokens belong to words that are kept whole."""
        room = self.length - 2
        if len(ids) <= room:
            return len(ids)
        return max((i for i, ends in enumerate(self._ends_word(ids[:room]), start=1) if ends), default=0)

    def _words(self, text: str) -> list[int]:
        """Token ids of a text's words alone, uncut."""
        if not isinstance(text, str):
            raise ValueError(f"a prompt and a subject must be text, got {text!r}")
        check_letters("a prompt or subject", text)
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def _ends_word(self, ids: list[int]) -> list[bool]:
        """Whether each token is the last of its word; a special token is a word of its own."""
        special = set(self.tokenizer.all_special_ids)
        return [
            i in special or token.endswith(WORD_END)
            for i, token in zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True)
        ]

    def _split(self, ids: list[int]) -> list[str]:
        """The words that the tokens spell."""
        words: list[list[int]] = [[]]
        for i, ends in zip(ids, self._ends_word(ids), strict=True):
            words[-1].append(i)
            if ends:
                words.append([])
        return [str(self.tokenizer.decode(word)).strip() for word in words if word]
