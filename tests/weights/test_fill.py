import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from weights.files import Entry, open_weights
from weights.fill import fill, fits, match, respell, shorten


class Net(nn.Module):
    """As small as a network with a linear layer and a convolution gets."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.conv = nn.Conv2d(1, 1, 1)


WEIGHTS = {
    "linear.weight": torch.arange(6.0).reshape(3, 2),
    "linear.bias": torch.tensor([1.0, 2.0, 3.0]),
    "conv.weight": torch.tensor([[[[7.0]]]]),
    "conv.bias": torch.tensor([8.0]),
}
CPU = torch.device("cpu")


@pytest.fixture
def found(tmp_path):
    """found(tensors, ...) matches files with these tensors against a Net on meta."""

    def run(*files, part="unet"):
        for i, tensors in enumerate(files):
            save_file(tensors, tmp_path / f"{i}.safetensors")
        with torch.device("meta"):
            network = Net()
        return match(part, network, [open_weights(tmp_path / f"{i}.safetensors") for i in range(len(files))])

    return run


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("vae", "encoder.mid_block.attentions.0.query.weight", "encoder.mid_block.attentions.0.to_q.weight"),
        ("vae", "decoder.mid_block.attentions.0.key.bias", "decoder.mid_block.attentions.0.to_k.bias"),
        ("vae", "decoder.mid_block.attentions.0.value.bias", "decoder.mid_block.attentions.0.to_v.bias"),
        ("vae", "decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
        ("vae", "decoder.mid_block.attentions.0.to_q.bias", "decoder.mid_block.attentions.0.to_q.bias"),
        ("text_encoder", "text_model.final_layer_norm.bias", "final_layer_norm.bias"),
        ("text_encoder", "final_layer_norm.bias", "final_layer_norm.bias"),
        ("text_encoder", "text_model.embeddings.position_ids", None),
        ("text_encoder", "embeddings.position_ids", None),
        ("unet", "text_model.x", "text_model.x"),
        ("unet", "down_blocks.0.attentions.0.query.weight", "down_blocks.0.attentions.0.query.weight"),
    ],
)
def test_old_spellings(part, old, new):
    assert respell(part, old) == new


def test_what_fits():
    assert fits(Entry((3, 2), "F16"), (3, 2))
    assert fits(Entry((3, 2, 1, 1), "F16"), (3, 2))  # a linear layer written as a convolution
    assert not fits(Entry((3, 2), "F16"), (3, 2, 1, 1))
    assert not fits(Entry((3, 1, 1), "F16"), (3,))
    assert not fits(Entry((2, 3), "F16"), (3, 2))
    assert not fits(Entry((3, 2, 3, 3), "F16"), (3, 2))


def test_a_match_without_problems_is_filled(found):
    good = found(WEIGHTS)
    assert good.problems == []
    network = fill(good, CPU, torch.float32)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in WEIGHTS.items())
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    # 1 x 2 + 2, 3 x 2 + 3 and so on: W (1, 1) = (1, 5, 9), plus the bias
    assert network.linear(torch.ones(2)).tolist() == [1 + 1, 5 + 2, 9 + 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_filled_in_any_precision(found, dtype):
    third = WEIGHTS | {"linear.bias": torch.full((3,), 1 / 3)}
    network = fill(found(third), CPU, dtype)
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert torch.equal(network.linear.bias, torch.full((3,), 1 / 3).to(dtype))


def test_a_filled_network_no_longer_needs_the_file(found, tmp_path):
    network = fill(found(WEIGHTS), CPU, torch.float32)
    path = tmp_path / "0.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert network.conv.weight.item() == 7
    assert network.linear.weight.untyped_storage().nbytes() == 6 * 4


def test_several_files_make_one_network(found):
    one = {name: WEIGHTS[name] for name in ("linear.weight", "conv.bias")}
    other = {name: WEIGHTS[name] for name in ("linear.bias", "conv.weight")}
    network = fill(found(one, other), CPU, torch.float32)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in WEIGHTS.items())


def test_linear_layers_written_as_convolutions(found):
    network = fill(found(WEIGHTS | {"linear.weight": WEIGHTS["linear.weight"][..., None, None]}), CPU, torch.float32)
    assert torch.equal(network.linear.weight, WEIGHTS["linear.weight"])


def test_a_pickled_transposed_tensor_is_laid_out_anew(tmp_path):
    torch.save(WEIGHTS | {"linear.weight": WEIGHTS["linear.weight"].t().contiguous().t()}, tmp_path / "x.bin")
    with torch.device("meta"):
        network = Net()
    fill(match("unet", network, [open_weights(tmp_path / "x.bin")]), CPU, torch.float32)
    assert torch.equal(network.linear.weight, WEIGHTS["linear.weight"]) and network.linear.weight.is_contiguous()


def test_all_differences_are_listed(found):
    wrong = {
        "linear.weight": torch.zeros(2, 3),
        "conv.weight": torch.zeros(1, 1, 1, 1, dtype=torch.int64),
        "conv.bias": torch.zeros(1),
        "linear.scale": torch.zeros(1),
    }
    assert found(wrong, {"conv.bias": torch.zeros(1)}).problems == [
        "1 missing (linear.bias)",
        "1 that the model does not have (linear.scale)",
        "1 stored twice (conv.bias)",
        "1 of another shape (linear.weight is (2, 3) instead of (3, 2))",
        "1 of another type (conv.weight is stored as I64 instead of one of F16, BF16, F32, F64)",
    ]


def test_a_name_in_its_old_and_its_new_spelling_is_stored_twice(tmp_path):
    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attentions = nn.ModuleList([nn.ModuleDict({"to_q": nn.Linear(1, 1, bias=False)})])

    save_file(
        {"attentions.0.to_q.weight": torch.ones(1, 1), "attentions.0.query.weight": torch.ones(1, 1)},
        tmp_path / "x.safetensors",
    )
    problems = match("vae", Middle(), [open_weights(tmp_path / "x.safetensors")]).problems
    assert len(problems) == 1 and problems[0].startswith("1 stored twice")


def test_few_names_are_listed_and_many_are_grouped():
    assert shorten(["b", "a.c"]) == "a.c, b"
    layers = {f"down_blocks.{i}.resnets.{j}.{kind}" for i in range(4) for j in range(3) for kind in ("weight", "bias")}
    assert shorten(layers | {"conv_in.bias"}) == (
        "conv_in.bias, down_blocks.0.resnets.* (6), down_blocks.1.resnets.* (6), "
        "down_blocks.2.resnets.* (6), down_blocks.3.resnets.* (6)"
    )
    assert shorten([f"{i}.weight" for i in range(20)]).endswith("13.weight, 14.weight, 15.weight and 12 more")


@given(st.sets(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(".".join), min_size=1, max_size=40))
def test_a_short_list_accounts_for_every_name(names):
    text = shorten(names)
    shown, _, more = text.partition(" and ")
    groups = shown.split(", ")
    assert len(groups) <= 8 and text.count("\n") == 0
    if not more:
        assert sum(int(g.split("(")[1][:-1]) if "(" in g else 1 for g in groups) == len(names)
