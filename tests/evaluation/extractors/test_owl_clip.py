"""OWL-ViT and CLIP of a few thousand random weights, saved as files and loaded as real ones are, without network."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from evaluation.extractors.owl_clip import (
    ClipScorer,
    OwlDetector,
    best_boxes,
    clip_scores,
    clip_sim,
)
from evaluation.extractors.protocols import batches, key
from tests.pretended import DEVICE, pretended

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder, length):
    """A letter is a token, so that no merges are needed; returns the number of words."""
    letters = [chr(i) for i in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), START, END]  # OWL-ViT pools at the highest id
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def pillow(kind):
    return getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)


def save(folder, model_class, config_class, length, processor):
    folder.mkdir()
    words = write_tokenizer(folder, length)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"pad_token_id": 0, "bos_token_id": words - 2, "eos_token_id": words - 1}
    config = config_class(
        text_config={**small, **special, "vocab_size": words, "max_position_embeddings": length},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model_class(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def change(folder, prefix, function):
    """Replace the saved weights whose names begin with prefix."""
    path = folder / "model.safetensors"
    weights = {name: function(w) if name.startswith(prefix) else w for name, w in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    """The box head is zero: each patch answers with its own place."""
    size = {"height": 32, "width": 32}
    processor = pillow("OwlViTImageProcessor")(size=size, crop_size=size)
    classes = transformers.OwlViTForObjectDetection, transformers.OwlViTConfig
    folder = save(tmp_path_factory.mktemp("models") / "owl", *classes, 16, processor)
    change(folder, "box_head.dense2", torch.zeros_like)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    processor = pillow("CLIPImageProcessor")(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    classes = transformers.CLIPModel, transformers.CLIPConfig
    return save(tmp_path_factory.mktemp("models") / "clip", *classes, 77, processor)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)


# ---- Equations -----------------------------------------------------------------------------------------------------


def test_clip_scores_and_clip_sim():
    """Cosines with (1, 0): 1, 0, 0.6, -1. Mean with the negative one as 0: 160 / 4 = 40; as it is: 60 / 4 = 15."""
    text = torch.tensor([1.0, 0.0], dtype=torch.float64)
    images = torch.tensor([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=torch.float64)
    scores = clip_scores(images, text)
    assert scores.tolist() == pytest.approx([100, 0, 60, -100], abs=1e-12)
    assert clip_sim(scores) == pytest.approx(40)
    assert clip_sim(scores, clamped=False) == pytest.approx(15)
    scales = torch.tensor([[0.01], [3], [7], [100]], dtype=torch.float64)
    assert torch.allclose(clip_scores(scales * images, 5 * text), scores, atol=1e-12)


def test_boxes_are_ranked_clipped_and_counted():
    """The best first, though the network has it third; (0.1, 0.1) of size 0.4 begins at -0.1 and is cut to 0, so its
    area is 0.09 and not none; scores under 0.01 and the sixth box are left out."""
    scores = torch.tensor([[0.3, 0.009, 0.8, 0.01, 0.2, 0.1, 0.05], [0.0] * 7], dtype=torch.float64)
    boxes = torch.full((2, 7, 4), 0.5, dtype=torch.float64)
    boxes[0, 2] = torch.tensor([0.1, 0.1, 0.4, 0.4])
    boxes[0, 0] = torch.tensor([0.9, 0.5, 0.4, 0.2])
    found, nothing = best_boxes(scores, boxes)
    assert [box[4] for box in found] == [0.8, 0.3, 0.2, 0.1, 0.05]
    assert found[0][:4] == pytest.approx((0, 0, 0.3, 0.3))
    assert found[1][:4] == pytest.approx((0.7, 0.4, 1, 0.6))
    assert nothing == []
    assert len(best_boxes(scores[:, 1:4], boxes[:, 1:4])[0]) == 2  # 0.8 and 0.01, which is just enough


def test_batches_in_order(frames):
    assert [len(batch) for batch in batches(frames, 3)] == [3, 1]
    assert np.array_equal(np.concatenate(list(batches(frames, 3))), frames)


@pytest.mark.parametrize("shape", [(48, 64, 3), (0, 48, 64, 3), (2, 3, 48, 64)])
def test_frames_of_another_form(shape):
    with pytest.raises(ValueError, match=r"frames must be uint8 of shape \(F, H, W, 3\), not uint8 \("):
        batches(np.zeros(shape, np.uint8), 2)
    with pytest.raises(ValueError, match="not float64"):
        batches(np.zeros((2, 8, 8, 3)), 2)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        batches(np.zeros((2, 8, 8, 3), np.uint8), 0)


# ---- OWL-ViT -------------------------------------------------------------------------------------------------------


def test_a_detector_without_an_opinion_answers_with_its_patches(owl, frames):
    """4 x 4 patches; patch (i, j) has its centre at ((i + 1) / 4, (j + 1) / 4) and side 1/4, up to OWL-ViT's 1e-4; the
    last ones reach out of the frame and are cut."""
    ends = [(i + 1) / 4 for i in range(4)]
    grid = {(max(x - 1 / 8, 0), max(y - 1 / 8, 0), min(x + 1 / 8, 1), min(y + 1 / 8, 1)) for x in ends for y in ends}
    for found in OwlDetector.load(str(owl)).detect(frames, "red ball"):
        assert 1 <= len(found) <= 5
        for *box, score in found:
            assert min(np.abs(np.subtract(box, cell)).max() for cell in grid) < 2e-4
            assert 0.01 <= score <= 1


def test_the_detector_is_transformers_own(owl, frames, tmp_path):
    """Their processor, network and post-processing; sorting, clipping and relating to the frame by hand."""
    owl = shutil.copytree(owl, tmp_path / "owl")
    change(owl, "box_head.dense2", lambda w: torch.linspace(-0.5, 0.5, w.numel()).reshape(w.shape))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(owl))
    images = pillow("OwlViTImageProcessor").from_pretrained(str(owl))
    inputs = images(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
    inputs |= tokenizer(["red ball"] * 4, padding="max_length", max_length=16, return_tensors="pt")
    network = transformers.OwlViTForObjectDetection.from_pretrained(str(owl)).eval()
    with torch.no_grad():
        theirs = images.post_process_object_detection(network(**inputs), 0.01, [(48, 64)] * 4)
    ours = OwlDetector.load(str(owl)).detect(frames, "red ball")
    for mine, other in zip(ours, theirs, strict=True):
        order = other["scores"].argsort(descending=True)[:5]
        boxes = (other["boxes"][order] / torch.tensor([64, 48, 64, 48])).clamp(0, 1)
        assert len(mine) == len(order) >= 2
        assert np.allclose([box[:4] for box in mine], boxes, atol=1e-5)
        assert np.allclose([box[4] for box in mine], other["scores"][order], atol=1e-5)


def test_the_detector_sees_the_whole_frame_squashed(owl):
    """A red left third of a frame three times as wide as high is the left third of the square, though the processor
    says to crop."""
    seen, loaded = [], OwlDetector.load(str(owl)).model

    class Network:
        config, device = loaded.network.config, "cpu"

        def __call__(self, input_ids, pixel_values):
            seen.append(pixel_values)
            return SimpleNamespace(logits=torch.zeros(1, 1, 1), pred_boxes=torch.ones(1, 1, 4))

    sizes = {"size": {"height": 30, "width": 30}, "crop_size": {"height": 10, "width": 10}}
    processor = pillow("OwlViTImageProcessor")(**sizes, do_center_crop=True)
    detector = OwlDetector(replace(loaded, network=Network(), processor=processor))
    frame = np.zeros((1, 30, 90, 3), np.uint8)
    frame[:, :, :30, 0] = 255
    detector.detect(frame, "red")
    (pixels,) = seen
    assert pixels.shape == (1, 3, 30, 30)
    red = pixels[0, 0, 15] > 0  # black is -1.79, red 1.93
    assert red[:9].all() and not red[11:].any()
    assert detector.describe()["resize"] == "squashed to 30x30 by Pillow's bicubic"


# ---- CLIP ----------------------------------------------------------------------------------------------------------


def test_the_scorer_is_transformers_own(clip, frames):
    """100 times their logits over their scale, from their processor, which crops the middle out of a wide frame."""
    processor = transformers.CLIPProcessor(
        image_processor=pillow("CLIPImageProcessor").from_pretrained(str(clip)),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(str(clip)),
    )
    inputs = processor(text=["a red ball"], images=[Image.fromarray(f) for f in frames], return_tensors="pt")
    network = transformers.CLIPModel.from_pretrained(str(clip)).eval()
    with torch.no_grad():
        theirs = 100 * network(**inputs).logits_per_image[:, 0] / network.logit_scale.exp()
    scores = ClipScorer.load(str(clip)).score(frames, "a red ball")
    assert scores.shape == (4,) and scores.dtype == torch.float32
    assert torch.allclose(scores, theirs, atol=1e-4)
    assert scores.std() > 1e-3  # frames do differ


def test_a_long_prompt_is_cut(clip, owl, frames):
    scorer, detector = ClipScorer.load(str(clip)), OwlDetector.load(str(owl))
    long = "a red ball moving over the grass " * 20
    tokens = scorer.model.tokens(long)
    assert tokens.shape == (1, 77) and tokens[0, -1] == scorer.model.tokenizer.eos_token_id
    assert detector.model.tokens(long).shape == (1, 16)
    assert torch.isfinite(scorer.score(frames, long)).all()
    assert len(detector.detect(frames, long)) == 4


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text(clip, frames, text):
    with pytest.raises(ValueError, match="text to look for in the frames is empty"):
        ClipScorer.load(str(clip)).score(frames, text)


# ---- Both ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_its_single_frames(owl, clip, frames):
    one, four = (OwlDetector.load(str(owl), batch_size=n).detect(frames, "red ball") for n in (1, 4))
    for a, b in zip(one, four, strict=True):
        assert np.allclose(a, b, atol=1e-5)
    one, four = (ClipScorer.load(str(clip), batch_size=n).score(frames, "a red ball") for n in (1, 4))
    assert torch.allclose(one, four, atol=1e-4)


def test_networks_are_frozen(owl, clip, frames):
    for model in (OwlDetector.load(str(owl)).model, ClipScorer.load(str(clip)).model):
        assert not model.network.training
        assert not any(p.requires_grad or p.dtype != torch.float32 for p in model.network.parameters())
        for output in model.outputs("red", frames):
            assert torch.is_grad_enabled()  # of whoever asks
            assert not any(value.requires_grad for value in output.values() if isinstance(value, torch.Tensor))


def test_descriptions_and_keys(owl, clip, tmp_path):
    """A key does not depend on how something is computed, and does on the weights behind a name."""
    scorer = ClipScorer.load(str(clip), batch_size=2)
    described = scorer.describe()
    assert described.pop("revision").startswith("sha256:")
    assert described == {
        "class": "ClipScorer",
        "checkpoint": "clip",
        "resize": "shortest edge 32 by Pillow's bicubic, centre crop 32x32",
        "dtype": "float32",
    }
    assert key(scorer.describe()) == key(ClipScorer.load(str(clip), batch_size=3).describe())
    detector = OwlDetector.load(str(owl))
    before = key(detector.describe())
    assert before.startswith("OwlDetector-") and before != key(scorer.describe())
    other = shutil.copytree(owl, tmp_path / owl.name)
    assert key(OwlDetector.load(str(other)).describe()) == before
    change(other, "class_head", lambda w: w + 1)
    assert key(OwlDetector.load(str(other)).describe()) != before


def test_another_device_than_the_cpu(owl, clip, frames):
    """Nothing is left on the CPU, and what was found comes back to it."""
    here = ClipScorer.load(str(clip)).score(frames, "a red ball")
    boxes = OwlDetector.load(str(owl)).detect(frames, "red ball")
    with pretended():
        there = ClipScorer.load(str(clip), DEVICE).score(frames, "a red ball")
        found = OwlDetector.load(str(owl), DEVICE).detect(frames, "red ball")
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-3)
    assert [len(of_frame) for of_frame in found] == [len(of_frame) for of_frame in boxes]
