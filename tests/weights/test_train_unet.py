import torch

from weights.train_tiny.unet import exchange_padding


def test_padding_is_another_captions():
    """Two captions of 5 tokens, 9 the end and the padding: "1 2 9 9 9" and "1 2 3 9 9", states 10 i + position.

    After its words (from position 2) the first has the second's states where that has none of its own words (3, 4), and
    its last one (24) at position 2. The second has the first's from position 3 on.
    """
    tokens = torch.tensor([[1, 2, 9, 9, 9], [1, 2, 3, 9, 9]])
    text = torch.tensor([[10.0, 11, 12, 13, 14], [20, 21, 22, 23, 24]])[..., None]
    expected = torch.tensor([[10.0, 11, 24, 23, 24], [20, 21, 22, 13, 14]])[..., None]
    assert torch.equal(exchange_padding(text, tokens, end=9), expected)
