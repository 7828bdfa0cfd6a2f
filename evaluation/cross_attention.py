"""What the U-Net's cross-attention reads: `python -m evaluation.cross_attention --model tiny`.

The share of its weight that falls on the prompt's start token, the subject's words, the other words, and the end with
the padding behind it, in the decoder of unmasked runs. It decides what a mask can do: it takes the subject's words
away from the background, but what the padding knows of the subject stays.
"""

from __future__ import annotations

import waiting  # noqa: F401  (first, for torch reads its choice once)

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from einops import rearrange, reduce
from torch import Tensor
from tqdm import tqdm

from ending import exit_code
from evaluation.benchmarks.items import FORMS, make_items, name_items
from evaluation.options import count
from model.attention import Attention, attention_weights
from model.unet import UNet3D
from sampling.generate import generate, recommended
from weights.load import load_pipeline

PARTS = ("start token", "subject's words", "other words", "end and padding")


def main(argv: list[str] | None = None) -> int:
    """Print the table; see `ending.exit_code`."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    command = shlex.join(["python", "-m", "evaluation.cross_attention", *argv])
    torch.set_num_threads(arguments.threads)
    return exit_code(partial(tabulate, arguments, command))


def tabulate(arguments: argparse.Namespace, command: str) -> None:
    """Run the method plain on every item, and print what was read."""
    pipeline = load_pipeline(arguments.model)
    text = pipeline.text_encoder
    items = make_items(arguments.form, arguments.words, arguments.count, pipeline.defaults.frames, splits=["static"])
    shares = []  # of the items
    for item in tqdm(items, unit="video", disable=None):
        subject = text.subject_tokens(item.prompt, item.subjects[0])  # (L,)
        words = text.subject_tokens(item.prompt, item.prompt)
        settings = recommended(pipeline, "plain")
        with record_reads(pipeline.unet) as reads:
            generate(pipeline, item.prompt, settings=settings, seed=item.seed)
        read = torch.stack(reads).mean(0)  # (L,)
        shares.append(
            torch.stack([read[0], read[subject].sum(), read[words & ~subject].sum(), read[1:][~words[1:]].sum()])
        )
    print("| " + " | ".join(PARTS) + " |\n" + "|---" * len(PARTS) + "|")
    print("| " + " | ".join(f"{100 * share:.1f} %" for share in torch.stack(shares).mean(0).tolist()) + " |\n")
    print(f"Made by `{command}`.\n{name_items(items)}; weights {pipeline.fingerprint[:12]}.")


@contextmanager
def record_reads(unet: UNet3D) -> Iterator[list[Tensor]]:
    """While open, every call of a cross-attention in the decoder adds what its text half reads, (L,), which sums to 1:
    the mean over frames, cells and heads."""
    reads: list[Tensor] = []

    def note(layer: Attention, inputs: tuple[Tensor, Tensor]) -> None:
        x, context = inputs[:2]  # (2 F, N, C): the unconditional half, then the text half; (2, L, D)
        q, k = layer.to_q(x[len(x) // 2 :]), layer.to_k(context[1:])
        q = rearrange(q, "f n (h d) -> h (f n) d", h=layer.heads)
        k = rearrange(k, "1 l (h d) -> h l d", h=layer.heads)
        reads.append(reduce(attention_weights(q, k), "h q l -> l", "mean"))

    layers = [
        layer for name, layer in unet.up_blocks.named_modules() if name.endswith("attn2") and ".attentions." in name
    ]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield reads
    finally:
        for hook in hooks:
            hook.remove()


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        "evaluation.cross_attention", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="tiny", help="a checkpoint (%(default)s)")
    add("--count", default=8, type=count, metavar="N", help="prompts (%(default)s)")
    add("--words", choices=("tiny", "real"), default="tiny", help="which world the prompts are about (%(default)s)")
    add("--form", choices=FORMS[:3], default=FORMS[0], help="of the items whose prompts are taken (%(default)s)")
    add("--threads", default=1, type=count, metavar="N", help="of this process (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
