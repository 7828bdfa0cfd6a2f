import pytest
import torch

from model.attention import GEGLU, Attention, fused_attention, softmax_attention
from tests.helpers import f64, normal


def layer(context_dim=None, seed=0):
    torch.manual_seed(seed)
    return Attention(7, heads=2, head_dim=3, context_dim=context_dim).double()


def by_hand(attention, x, source, mask=None):
    """One sequence (N, C), head by head, projections included."""
    heads = []
    for h in range(attention.heads):
        rows = slice(3 * h, 3 * h + 3)
        q, k, v = (
            s @ p.weight[rows].T for s, p in ((x, attention.to_q), (source, attention.to_k), (source, attention.to_v))
        )
        heads.append(softmax_attention(q, k, v, mask))
    return attention.to_out[0](torch.cat(heads, dim=-1))


def test_softmax_attention_by_hand():
    """One query of size 1: logits 1 * (0, ln 3) give weights (1/4, 3/4), so 1/4 * 8 + 3/4 * 4 = 5; without key 1: 8."""
    q, k, v = torch.tensor([[1.0]]), torch.tensor([[1.0], [3.0]]).log(), torch.tensor([[8.0], [4.0]])
    assert softmax_attention(q, k, v).item() == pytest.approx(5, abs=1e-6)
    assert softmax_attention(q, k, v, torch.tensor([[True, False]])).item() == 8


def test_logits_are_divided_by_the_root_of_the_head_size():
    """Size 4, q = k = (1, 1, 1, 1): logit 4 / sqrt(4) = 2 against 0, weights e^2 / (e^2 + 1) and 1 / (e^2 + 1)."""
    q, k, v = torch.ones(1, 4), torch.stack([torch.ones(4), torch.zeros(4)]), torch.tensor([[1.0], [0.0]])
    assert softmax_attention(q, k, v).item() == pytest.approx(0.8807970780, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_fused_equals_written_out(masked):
    q, k, v = normal(2, 3, 7, 4), normal(2, 3, 5, 4, seed=1), normal(2, 3, 5, 4, seed=2)
    mask = (normal(2, 1, 7, 5, seed=3) > 0) | torch.eye(7, 5, dtype=torch.bool) if masked else None
    if masked:
        mask[..., 0] = True  # no query without a key
    torch.testing.assert_close(fused_attention(q, k, v, mask), softmax_attention(q, k, v, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_frame_by_frame(masked):
    attention, x = layer(), normal(4, 5, 7)  # two videos of two frames
    mask = (normal(2, 5, 5, seed=1) > 0) | torch.eye(5, dtype=torch.bool) if masked else None
    out = attention(x, mask=mask)
    for i in range(4):
        alone = by_hand(attention, x[i], x[i], mask[i % 2] if masked else None)
        torch.testing.assert_close(out[i], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_reads_its_own_videos_text(masked):
    attention, x, text = layer(context_dim=8), normal(6, 5, 7), normal(2, 4, 8, seed=1)  # two videos of three frames
    mask = normal(3, 5, 4, seed=2) > 0 if masked else None
    if masked:
        mask[..., 1] = True
    out = attention(x, text, mask)
    for i in range(6):
        alone = by_hand(attention, x[i], text[i // 3], mask[i % 3] if masked else None)
        torch.testing.assert_close(out[i], alone, rtol=0, atol=1e-12)


def test_normalize_receives_masked_and_unmasked_before_the_projection():
    attention, x = layer(), normal(2, 5, 7)
    mask = torch.eye(5, dtype=torch.bool).expand(2, 5, 5)
    seen = []

    def keep_unmasked(a_m, a_u):
        seen.append((a_m, a_u))
        return a_u

    out = attention(x, mask=mask, normalize=keep_unmasked)
    a_m, a_u = seen[0]
    torch.testing.assert_close(out, attention(x), rtol=0, atol=1e-12)  # A_u went on
    torch.testing.assert_close(a_m, attention.to_v(x), rtol=0, atol=1e-12)  # each token saw itself alone
    torch.testing.assert_close(attention.to_out[0](a_u), attention(x), rtol=0, atol=1e-12)


def test_the_gate_by_hand():
    """x = 1: the value is 2 + 1 = 3, the gate 3 - 1 = 2; gelu(2) = 2 Phi(2) = 2 * 0.9772498681, so 3 * 1.9544997361."""
    geglu = GEGLU(1, 1).double()
    geglu.proj.weight.data, geglu.proj.bias.data = f64(2, 3).reshape(2, 1), f64(1, -1)
    assert geglu(f64(1)).item() == pytest.approx(5.8634992083, abs=1e-9)
