"""masks.png: the grids that the U-Net has, the classes of pixels, and what is drawn of both."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from adaptation.attention_masks import AttentionControl
from adaptation.trajectory import Trajectory
from evaluation.figures.masks_picture import attention_grids, draw_masks, pixel_classes, token_words, write_masks
from evaluation.figures.video import COLORS
from model.config import UNetConfig
from model.text import TextEncoder
from sampling.settings import preset
from weights.text import read_tokenizer

TINY = Path(__file__).parents[3] / "weights" / "tiny"


def control_of(regions, **options) -> AttentionControl:
    """Tokens: 0 start, 1 a, 2 red, 3 ball, 4 box, 5 end; red ball is the first subject, box the second."""
    tokens = torch.zeros(2, 6, dtype=torch.bool)
    tokens[0, 2:4] = tokens[1, 4] = True
    return AttentionControl(regions, tokens[: len(regions)], **options)


@pytest.fixture
def overlapping():
    """8 x 8 cells, 2 frames: in the first the left half is the ball's and the middle the box's; none in the second."""
    regions = torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    regions[0, 0, :, :4] = regions[1, 0, :, 2:6] = True
    return regions


def test_zeroscope_has_attention_on_four_grids():
    """40 x 72 latents, halved three times; no attention in the deepest down block and the first up block."""
    assert attention_grids(UNetConfig(), 40, 72) == {
        (40, 72): ["encoder", "decoder"],
        (20, 36): ["encoder", "decoder"],
        (10, 18): ["encoder", "decoder"],
        (5, 9): ["mid"],
    }


def test_odd_sizes_are_rounded_up():
    assert list(attention_grids(UNetConfig(), 9, 15)) == [(9, 15), (5, 8), (3, 4), (2, 2)]


def test_pixels_see_the_words_of_their_subjects(overlapping):
    """Section 2.1: the background every token that is no subject's, less the start, which is hidden from all."""
    classes = pixel_classes(control_of(overlapping))
    assert list(classes) == [(False, False), (True, False), (False, True), (True, True)]
    seen = [open_.nonzero().flatten().tolist() for open_ in classes.values()]
    assert seen == [[1, 5], [2, 3], [4], [2, 3, 4]]
    background = pixel_classes(control_of(overlapping, start_token="background"))[False, False]
    assert background.nonzero().flatten().tolist() == [0, 1, 5]


def test_every_class_and_token_is_in_the_picture(overlapping):
    """The cells' colours by area: in one frame 2 of 8 columns are the ball's alone, 2 the box's alone, 2 both's."""
    tokens = ["start", "a", "red", "ball", "box", "end"]
    grids = {(8, 8): ["encoder", "decoder"], (4, 4): ["mid"]}
    one = draw_masks(control_of(overlapping), ["red ball", "box"], grids, tokens)
    none = draw_masks(control_of(torch.zeros_like(overlapping)), ["red ball", "box"], grids, tokens)
    counts = {
        color: (one == color).all(-1).sum() - (none == color).all(-1).sum() for color in (*COLORS[:2], (127, 127, 255))
    }
    # 150 pixels to a tile, on both grids; lines between cells take a little. Below: squares of the token table.
    for color, squares in ((COLORS[0], 2), (COLORS[1], 1), ((127, 127, 255), 3)):
        cells = 2 * 150 * 150 * 2 / 8
        assert 0.8 * cells < counts[color] - squares * 15 * 15 < 1.1 * cells
    longer = draw_masks(control_of(overlapping), ["red ball", "box"], grids | {(2, 2): ["decoder"]}, tokens)
    assert longer.shape[0] - one.shape[0] == 150 + 12  # one more row of tiles and the gap


def test_padding_is_one_row(overlapping):
    tokens = ["start", "a", "red", "ball", "box", "end"]
    control = control_of(overlapping)
    short = draw_masks(control, ["red ball", "box"], {(8, 8): ["decoder"]}, [*tokens[:4], "padding", "padding"])
    whole = draw_masks(control, ["red ball", "box"], {(8, 8): ["decoder"]}, tokens)
    assert whole.shape[0] - short.shape[0] == 22  # a row of text


@pytest.fixture(scope="module")
def text_encoder():
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=77))
    return TextEncoder(model, read_tokenizer(TINY / "tokenizer"))


@pytest.mark.parametrize("prompt", ["a red ball, moving", "", "a red ball " * 40])
def test_tokens_are_named_where_the_encoder_has_them(text_encoder, prompt):
    """The positions of a word's tokens are those that `subject_tokens` finds."""
    words = token_words(text_encoder, prompt)
    assert len(words) == text_encoder.length
    assert (words[0], words.count("end")) == ("start", 1)
    if prompt:
        at = text_encoder.subject_tokens(prompt, "red ball").nonzero().flatten().tolist()
        assert "".join(words[i] for i in at) == "redball" * (len("".join(words[i] for i in at)) // 7)
        assert at != []


def test_the_picture_of_a_run_is_written(pipeline, text_encoder, tmp_path):
    pipeline.text_encoder, pipeline.unet.config = text_encoder, UNetConfig()
    ball = Trajectory.from_keyframes({0: [0, 0, 0.5, 0.5], 3: None}, 4, "red ball", "a red ball over the grass")
    write_masks(tmp_path, pipeline, ball, preset("mask"))
    picture = np.asarray(Image.open(tmp_path / "masks.png"))
    assert (picture == COLORS[0]).all(-1).sum() > 5000  # a quarter of each tile of three frames and more
    assert [path.name for path in tmp_path.iterdir()] == ["masks.png"]


def test_words_that_are_not_in_the_prompt_are_refused_as_by_a_run(pipeline, text_encoder, ball, tmp_path):
    pipeline.text_encoder, pipeline.unet.config = text_encoder, UNetConfig()
    with pytest.raises(ValueError, match="the subject 'red ball' is not in the prompt"):
        write_masks(tmp_path, pipeline, ball, preset("mask"), "a blue box")
    assert list(tmp_path.iterdir()) == []
