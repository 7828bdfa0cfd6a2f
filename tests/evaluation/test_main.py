"""The commands from arguments to tables, on a pipeline of a few lines."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import asked
from evaluation.benchmarks.items import FORMS, load_items, make_items, with_noise
from evaluation.extractors.owl_clip import CLIP, OWL
from evaluation.extractors.vjepa import VJEPA2
from evaluation.tables import gallery, making
from evaluation.tables.results import Rules
from evaluation.tables.store import Store
from tests.evaluation.commands import EVERYTHING, SMALL, command, evaluate, files, numbers

pytestmark = pytest.mark.filterwarnings("default:FID from:UserWarning")  # so few videos have fewer frames than features


def test_one_command_makes_both_tables_and_the_pictures(done):
    assert {path.name for path in Path("all").iterdir()} == {
        "bench.jsonl", "rows.json", "measured.json", "store.lock", "files", "reference",
        "results.json", "tables.md", "montage.png", "failures.png",
    }  # fmt: skip
    text = Path("all/tables.md").read_text()
    assert done.out == text
    tables = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    whole = ["", "---", "plain", "mask"]
    assert tables == [*whole, *whole, "", "---", "mask minus plain", *whole]
    assert "Static: CoV %" in text
    assert "FID (stand-in)" in text
    assert "`python -m evaluation run --tracks 2 --methods plain mask --reference world:3 --out all`" in text


def test_results_tell_every_rule_extractor_and_version(done):
    told = json.loads(Path("all/results.json").read_text())
    assert told["command"] == "python -m evaluation " + " ".join(EVERYTHING)
    assert told["reference"] == "3 scenes of the tiny world, as drawn"
    assert told["items"].startswith("jain, SHA-256 ")
    assert told["versions"]["torch"]
    for label in ("plain", "mask"):
        result = told["results"][label]
        assert result["rules"] == asdict(Rules())
        assert result["extractors"] == making.stand_ins().describe()
        assert [len(result["tracks"][split]) for split in ("static", "moving")] == [2, 2]
        assert result["distances"]["frames"] == {"ours": 16, "reference": 12, "dimensions": 64}
        assert result["distances"]["videos"] == {"ours": 4, "reference": 3, "dimensions": 64}


def test_a_warning_is_one_line_on_stderr(done):
    lines = [line for line in done.err.splitlines() if "FID" in line]
    assert lines == [
        "warning: FID from 12 features of 64 dimensions is biased far upwards; compare it only between equal numbers"
    ]


def test_pictures_have_a_row_for_each_video(done, monkeypatch):
    texts = []
    draw = gallery.draw_labels
    monkeypatch.setattr(gallery, "draw_labels", lambda t, height: texts.append(list(t)) or draw(t, height))
    evaluate("table", "--out", "all", "--shown", "2")
    montage, failures = texts
    assert [text.split("\n") for text in montage] == [
        [label, id] for id in ("jain-static-0000", "jain-moving-0001") for label in ("plain", "mask")
    ]
    assert [text.split("\n")[0] for text in failures] == ["plain", "plain", "mask", "mask"]
    assert Image.open("all/montage.png").height == 4 * 128 + 3 * 4


def test_the_same_command_makes_nothing_again_and_says_the_same(done, loaded):
    before, made = numbers(), files()
    loaded.unet.calls = 0
    evaluate(*EVERYTHING)
    assert loaded.unet.calls == 0
    assert (numbers(), files()) == (before, made)


def test_steps_one_by_one_equal_the_whole(done, loaded, capsys):
    evaluate("bench", "--tracks", "2", "--frames", "4", "--to", "bench.jsonl")
    assert capsys.readouterr().out == "bench.jsonl: 4 items\n"
    assert load_items("bench.jsonl") == make_items("jain", "tiny", 2, 4)
    out, reference = ("--out", "steps"), ("--reference", "world:3")
    evaluate("generate", "--bench", "bench.jsonl", "--methods", "plain", "mask", *out)
    evaluate("extract", *out, *reference)
    evaluate("reduce", *out, *reference)
    evaluate("table", *out)
    assert numbers("steps") == numbers()
    assert files("steps") == files()
    assert Path("steps/montage.png").read_bytes() == Path("all/montage.png").read_bytes()


def test_rules_change_numbers_without_measuring_again(done, monkeypatch):
    monkeypatch.setattr(making.Suite, "extract", lambda *_: pytest.fail("measured again"))
    rules = ["--threshold", "0.5", "--coverage", "count:1", "--iou", "frame", "--raw-clip", "--kid-subset", "5"]
    evaluate("reduce", "--out", "all", "--reference", "world:3", *rules)
    told = numbers()["results"]
    assert list(told) == ["plain", "mask"]  # all rows that were noted
    assert told["mask"]["rules"] == {
        "threshold": 0.5, "coverage": "count:1", "iou": "frame", "clamp_clip": False, "kid_subset": 5
    }  # fmt: skip
    assert told["mask"]["distances"]["kid"]["subset_size"] == 5


def test_without_a_reference_there_is_no_second_table(loaded, capsys):
    evaluate("run", "--tracks", "1", "--split", "static", "--methods", "mask", "--out", "one")
    text = capsys.readouterr().out
    assert "Table 1" in text
    assert "Table 2" not in text
    assert list(numbers("one")["results"]["mask"]["extractors"]) == ["boxes", "text"]


def test_the_users_own_features_make_jedi(done):
    """X = {(2, 0)} for plain and {(0, 2)} for mask, Y = {(0, 2)} in one file as JEDi's code writes it: 800 and 0."""
    store = Store(Path("all"))
    Path("jepa", "reference").mkdir(parents=True)
    np.save("jepa/reference/train.npy", np.array([[0, 2.0]] * 3))
    for label, row in store.rows().items():
        for item in store.items():
            feature = np.array([2.0, 0] if label == "plain" else [0, 2.0])
            np.save(Path("jepa", f"{store.record_path(item, row).stem}.npy"), feature)
    evaluate("reduce", "--out", "all", "--jedi-features", "jepa")
    assert [result["distances"]["jedi"][0] for result in numbers()["results"].values()] == [800, 0]


def test_reduce_needs_the_folder_alone(done, monkeypatch, tmp_path):
    """On a laptop: no network is loaded, no reference video is there, no extractor is asked."""
    before = numbers()
    shutil.copytree("all", tmp_path / "laptop")
    for name in ("load_pipeline", "published", "stand_ins"):
        monkeypatch.setattr(asked, name, lambda *_: pytest.fail("a network was loaded"))
    for name in ("of", "measure"):
        monkeypatch.setattr(asked.Reference, name, lambda *_: pytest.fail("a reference video was read"))
    evaluate("reduce", "--out", "laptop", "--reference", "world:3")
    assert numbers("laptop") == before


def test_reduce_says_what_is_not_measured(done, capsys):
    for arguments, words in (
        (["--suite", "published"], "all is not measured by --suite published (but by stand-ins); run "),
        (["--reference", "world:4"], "--reference world:4 is not measured yet; measured are world:3; run "),
    ):
        assert command.main(["reduce", "--out", "all", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], {"owl": OWL, "clip": CLIP}),
        (["--owl", "mine", "--clip", "off"], {"owl": "mine"}),
        (["--reference", "world:2", "--inception", "clean", "--clip", "off"],
         {"owl": OWL, "inception": "clean", "vjepa2": VJEPA2}),
        (["--reference", "world:2", "--vjepa2", "off"], {"owl": OWL, "clip": CLIP, "inception": "tf"}),
    ],
)  # fmt: skip
def test_networks_are_those_that_are_named_or_the_defaults(done, monkeypatch, arguments, named):
    """Those of features only where there is a reference to compare with."""
    asked_for = []
    monkeypatch.setattr(asked, "published", lambda *which: asked_for.append(which) or making.stand_ins(False))
    evaluate("extract", "--out", "all", "--suite", "published", *arguments)
    assert asked_for == [("cpu", named)]


def test_what_was_measured_with_a_reference_stays_known_without_one(done):
    before = numbers()
    evaluate("extract", "--out", "all")
    evaluate("reduce", "--out", "all", "--reference", "world:3")
    assert numbers() == before


def test_other_noise_for_the_same_boxes_is_another_list(done, capsys):
    evaluate("bench", "--tracks", "2", "--frames", "4", "--noise-seed", "1", "--to", "again.jsonl")
    first, again = Store(Path("all")).items(), load_items("again.jsonl")
    assert again == with_noise(first, 1) != with_noise(first, 2)
    assert [(a.id, a.prompt, a.boxes) for a in first] == [(b.id, b.prompt, b.boxes) for b in again]
    assert not {item.seed for item in first} & {item.seed for item in again}
    capsys.readouterr()
    assert command.main(["generate", *SMALL, "--noise-seed", "1", "--out", "all"]) == 2
    assert "another list of items" in capsys.readouterr().err
    evaluate("generate", "--tracks", "2", "--methods", "plain", "--noise-seed", "1", "--out", "again")
    assert Store(Path("again")).items() == again


def test_a_list_that_is_not_the_folders_is_refused(done, loaded, capsys):
    """`--tracks 1 --methods plain` in a folder of 2 + 2 would have every row judged on 1 + 1."""
    before, loaded.unet.calls = files(), 0
    assert command.main(["generate", "--tracks", "1", "--methods", "plain", "--out", "all"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: all has the videos of another list of items (4 of ")
    assert "than this one (2 of " in line
    assert (files(), loaded.unet.calls) == (before, 0)


@pytest.mark.parametrize(("prompt", "known"), [("a red ball", ("red ball",)), (None, None)])
def test_the_words_are_those_that_the_checkpoint_knows(loaded, prompt, known):
    """Zeroscope, which has no example prompt, gets no prompts of the tiny world unless they are asked for."""
    loaded.defaults.prompt = prompt
    evaluate("generate", "--tracks", "1", "--methods", "plain", "--out", "own")
    words = {item.prompt for item in Store(Path("own")).items()}
    assert words == {item.prompt for item in make_items(FORMS[0], "tiny" if known else "real", 1, 4)}


def test_peekaboos_file_becomes_a_list_and_what_was_dropped_is_told(loaded, capsys):
    box, nothing = [0.25, 0.25, 0.5, 0.5], [0, 0, 0, 0]
    record = {"caption": "A red ball rolls.", "subject": "Red ball", "metadata": {"motion": "Stationary"}}
    records = [record | {"id": n, "bboxes": boxes} for n, boxes in enumerate(([box] * 16, [nothing] * 16))]
    Path("imc_inputs.json").write_text(json.dumps(records))
    evaluate(
        "bench", "--peekaboo", "imc_inputs.json", "--axis-order", "as-released", "--frames", "4", "--to", "a.jsonl"
    )
    first, second, *dropped = capsys.readouterr().out.splitlines()
    assert first == "a.jsonl: 1 items"
    assert second.startswith("peekaboo-imc (axis order as-released): 1 of 2 records")
    assert dropped[0].startswith("dropped imc-1")
    (item,) = load_items("a.jsonl")
    assert item.boxes == ((tuple(box),) * 4,)
    evaluate("generate", "--bench", "a.jsonl", "--methods", "plain", "--out", "imc")
    assert len(files("imc")) == 2  # a video and its record
