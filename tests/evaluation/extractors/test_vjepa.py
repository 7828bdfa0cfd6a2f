"""V-JEPA 2 of random weights through its files, and features of V-JEPA from a user's folder."""

import pickle

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evaluation.extractors.vjepa import VJepa2Features, prepare, read_all_features, read_features_of
from tests.pretended import DEVICE, pretended
from weights.files import CheckpointError


@pytest.fixture(scope="module")
def config():
    if not hasattr(transformers, "VJEPA2ForVideoClassification"):
        pytest.skip("this transformers has no V-JEPA 2")
    return transformers.VJEPA2Config(
        patch_size=8,
        crop_size=32,
        frames_per_clip=4,
        hidden_size=48,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_pooler_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        attention_probs_dropout_prob=0.5,
        num_labels=3,
    )


@pytest.fixture(scope="module")
def vjepa2(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "vjepa2"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.VJEPA2ForVideoClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


# ---- V-JEPA 2 ------------------------------------------------------------------------------------------------------


def test_frames_are_normalized_as_imagenets():
    """(x / 255 - mean) / std: white is (1 - 0.485) / 0.229 = 2.2489 in red, black -0.406 / 0.225 = -1.8044 in blue."""
    video = prepare(np.stack([np.full((9, 16, 3), 255, np.uint8), np.zeros((9, 16, 3), np.uint8)]), 4, "cpu")
    assert video.shape == (1, 2, 3, 4, 4)
    assert torch.allclose(video[0, 0, 0], torch.tensor(2.2489), atol=1e-4)
    assert torch.allclose(video[0, 1, 2], torch.tensor(-1.8044), atol=1e-4)


def test_the_whole_frame_is_squashed_without_aliasing():
    """A red left third is the left third; one white column in four is a quarter of white, not black."""
    wide = np.zeros((1, 12, 36, 3), np.uint8)
    wide[:, :, :12] = 255
    red = prepare(wide, 12, "cpu")[0, 0, 0, 6] > 0
    assert red[:3].all() and not red[5:].any()
    stripes = np.zeros((1, 32, 32, 3), np.uint8)
    stripes[:, :, ::4] = 255
    inner = prepare(stripes, 8, "cpu")[0, 0, 0, :, 1:-1]
    assert torch.allclose(inner, torch.tensor((0.25 - 0.485) / 0.229), atol=1e-3)


def test_the_feature_is_what_the_classifier_reads(vjepa2, frames):
    """Through the classifier's weights it gives transformers' own logits, for pixels that need no resize."""
    feature = VJepa2Features.load(str(vjepa2)).embed(frames)
    network = transformers.VJEPA2ForVideoClassification.from_pretrained(str(vjepa2)).eval()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        logits = network(pixels[None]).logits[0]
        ours = network.classifier(feature)
    assert feature.shape == (48,) and feature.dtype == torch.float32 and not feature.requires_grad
    assert logits.abs().max() > 1e-3
    assert torch.allclose(ours, logits, atol=1e-5)


def test_every_frame_is_read_in_its_order(vjepa2, frames):
    extractor = VJepa2Features.load(str(vjepa2))
    feature = extractor.embed(frames)
    assert torch.equal(extractor.embed(frames), feature)  # no dropout
    assert (extractor.embed(frames[:4]) - feature).abs().max() > 1e-4
    assert (extractor.embed(frames[::-1]) - feature).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"V-JEPA 2 reads 2 frames at a time, which 5 frames do not fill"):
        extractor.embed(frames[:5])


def test_a_checkpoint_without_a_probe_is_refused(config, tmp_path):
    """Where a peer's package goes on with a random one."""
    transformers.VJEPA2Model(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks \d+ of the weights of VJEPA2ForVideoClassification, .*pooler"):
        VJepa2Features.load(str(tmp_path))


def test_what_makes_no_feature_may_be_missing(vjepa2, frames, tmp_path):
    weights = load_file(vjepa2 / "model.safetensors")
    kept = {name: w for name, w in weights.items() if not name.startswith(("vjepa2.predictor.", "classifier."))}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((vjepa2 / "config.json").read_bytes())
    whole, partial = (VJepa2Features.load(str(folder)) for folder in (vjepa2, tmp_path))
    assert torch.allclose(partial.embed(frames), whole.embed(frames), atol=1e-6)
    assert whole.describe() | {"revision": None} == {
        "class": "VJepa2Features",
        "checkpoint": "vjepa2",
        "revision": None,
        "resize": "squashed to 32x32 by torch's antialiased bilinear",
        "dtype": "float32",
    }


def test_another_device_than_the_cpu(vjepa2, frames):
    """Nothing is left on the CPU, and the features come back to it."""
    here = VJepa2Features.load(str(vjepa2)).embed(frames)
    with pretended():
        there = VJepa2Features.load(str(vjepa2), DEVICE).embed(frames)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


# ---- V-JEPA's from files -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "b.npy", np.array([0.1, 2, 3], np.float64))
    np.save(tmp_path / "c.npy", np.array([4, 5, 6], np.float16))
    save_file({"feature": torch.tensor([7, 8, 9], dtype=torch.bfloat16)}, tmp_path / "a.v1.safetensors")
    (tmp_path / "notes.txt").write_text("not a feature")
    return tmp_path


def test_features_are_read_in_the_order_asked_for(folder):
    features = read_features_of(folder, ["c", "a.v1", "b"])
    assert features.dtype == torch.float64
    assert features.tolist() == [[4, 5, 6], [7, 8, 9], [0.1, 2, 3]]
    assert read_all_features(folder).tolist() == [[7, 8, 9], [0.1, 2, 3], [4, 5, 6]]


def test_one_file_may_hold_a_whole_set(folder):
    """JEDi's own train.npy is (N, 1280), without names: it can be a set, and not the feature of one video."""
    np.save(folder / "train.npy", np.arange(6.0).reshape(2, 3))
    assert read_all_features(folder).tolist()[-2:] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match=r"train\.npy holds an array of shape \(2, 3\); expected one vector, \(D,\)"):
        read_features_of(folder, ["b", "train"])
    np.save(folder / "train.npy", np.zeros((2, 3, 1)))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 1\); expected \(D,\), or \(N, D\) for several videos"):
        read_all_features(folder)
    np.save(folder / "train.npy", np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"train has 4 features and a\.v1 has 3; extract all with one network"):
        read_all_features(folder)


def test_missing_features_are_counted(folder):
    with pytest.raises(ValueError, match=r"has no features for 2 of 3 videos, the first is x; extract them"):
        read_features_of(folder, ["b", "x", "y"])
    with pytest.raises(ValueError, match=r"no videos are named"):
        read_features_of(folder, [])


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere; give the one with a feature file for each"):
        read_all_features(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no feature files; expected a file for each video, NAME.npy"):
        read_features_of(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.zeros((1, 3)), r"holds an array of shape \(1, 3\); expected one vector"),
        (np.float64(1), r"shape \(\); expected one vector"),
        (np.zeros(0), r"shape \(0,\)"),
        (np.array([1, np.nan, 2]), "values that are not finite"),
        (np.array([1, 2, 3]), "holds int64; features are floating point numbers"),
        (np.array([{}, {}]), "is not a whole NumPy file of numbers"),
        (np.zeros(4), "d has 4 features and b has 3; extract all with one network"),
    ],
)
def test_a_file_that_is_no_feature(folder, array, fault):
    np.save(folder / "d.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=fault):
        read_features_of(folder, ["b", "d"])


def test_broken_and_double_files(folder):
    for suffix in (".npy", ".safetensors"):
        path = folder / f"d{suffix}"
        for content in (b"", b"no such file", pickle.dumps([1.0])):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"d{suffix} is not a whole ") as caught:
                read_features_of(folder, ["d"])
            assert "\n" not in str(caught.value)
        path.unlink()
    save_file({"x": torch.zeros(3), "y": torch.zeros(3)}, folder / "d.safetensors")
    with pytest.raises(ValueError, match=r"holds 2 tensors; expected one, the feature of the video"):
        read_features_of(folder, ["d"])
    save_file({"x": torch.zeros(3, dtype=torch.int32)}, folder / "d.safetensors")
    with pytest.raises(ValueError, match=r"holds I32; features are floating point numbers"):
        read_features_of(folder, ["d"])
    np.save(folder / "d.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"has d both as .npy and as .safetensors; delete one of them"):
        read_features_of(folder, ["d"])
