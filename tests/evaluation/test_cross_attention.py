"""What the cross-attention of the decoder reads, on the shipped checkpoint and by hand."""

import re

import pytest
import torch

from evaluation import cross_attention
from evaluation.cross_attention import record_reads
from sampling.settings import SamplingSettings, preset
from weights.load import load_pipeline


def test_a_layer_without_keys_reads_every_token_alike(capsys, monkeypatch):
    """All logits are 0, so that each of 32 tokens gets 1/32 = 3.125 %: the start token once, the subject's two
    words twice that."""
    pipeline = load_pipeline("tiny")
    for name, parameter in pipeline.unet.up_blocks.named_parameters():
        if name.endswith("attn2.to_k.weight"):
            parameter.zero_()
    monkeypatch.setattr(cross_attention, "load_pipeline", lambda *_: pipeline)
    one_step = preset("plain", SamplingSettings(steps=1))
    monkeypatch.setattr(cross_attention, "recommended", lambda *_: one_step)
    assert cross_attention.main(["--count", "1"]) == 0
    shares = [float(x) for x in re.findall(r"([\d.]+) %", capsys.readouterr().out)]
    assert shares[:2] == [3.1, 6.2]  # 3.125 and 6.25, to one decimal
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_only_the_text_half_counts():
    """What the unconditional half reads is changed, and what is recorded stays."""
    pipeline = load_pipeline("tiny")
    F, h, w = 1, 4, 4
    text = torch.zeros(2, 32, 64)
    z = torch.randn(1, 4, F, h, w, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), record_reads(pipeline.unet) as same:
        pipeline.unet(z, 500, text)
    text[0, 0] = 5.0
    with torch.no_grad(), record_reads(pipeline.unet) as other:
        pipeline.unet(z, 500, text)
    for a, b in zip(same, other, strict=True):
        assert a.sum() == pytest.approx(1, abs=1e-5)
        assert torch.equal(a, b)
    assert torch.allclose(same[0], torch.full((32,), 1 / 32), atol=1e-6)  # one text state: no token is preferred
