"""Prompts and subjects: empty, of thousands of words, of control characters, in other scripts, repeated."""

import random

from attempt import Case
from values import any_text, words

LONGEST = 2**17 - 1  # characters in a word of a command line, on Linux; and none of them can be \0


def make(rng: random.Random) -> Case:
    prompts = [any_text(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
    arguments = []
    if rng.random() < 0.6:
        subject = make_subject(rng, prompts[0])
        prompts = [prompt if rng.random() < 0.4 else around(rng, prompt, subject) for prompt in prompts]
        arguments += [f"--subject={subject}", "--box-from", "0.1,0.1,0.6,0.7"]
        arguments += rng.choice([[], ["--method", "trailblazer"], ["--start-token", "background"]])
    if rng.random() < 0.3:
        arguments += [f"--negative-prompt={any_text(rng)}"]
    if rng.random() < 0.1:
        arguments += ["--seed", "1", "2"]
    arguments += [f"--prompt={prompt}" for prompt in prompts]
    return Case([word.replace("\0", "")[:LONGEST] for word in arguments])


def make_subject(rng: random.Random, prompt: str) -> str:
    """Any text, a word of the prompt, a part of it, or all of it."""
    inside = prompt.split() or [""]
    first = rng.randrange(len(inside))
    part = " ".join(inside[first : first + rng.randint(1, 4)])
    return rng.choice([part, part, part.upper(), prompt, any_text(rng), words(rng, 2), prompt[first : first + 5]])


def around(rng: random.Random, prompt: str, subject: str) -> str:
    """The prompt with the subject in it, once, at its end, or again and again."""
    again = f"{subject} " * rng.choice([2, 20, 2000])
    return rng.choice([f"{subject} {prompt}", f"{prompt} {subject}", f"{subject}, {prompt}", again])
