"""The commands from arguments to tables, on a pipeline of a few lines."""

import importlib
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.items import load_items, make_items, save_items
from evaluation.tables import gallery, making
from evaluation.tables.results import Rules
from evaluation.tables.store import Store

command = importlib.import_module("evaluation.__main__")

SMALL = ["--tracks", "2", "--methods", "plain", "mask"]
EVERYTHING = ["run", *SMALL, "--reference", "world:3", "--out", "all"]
pytestmark = pytest.mark.filterwarnings("default:FID from:UserWarning")  # so few videos have fewer frames than features


@pytest.fixture
def loaded(pipeline, monkeypatch, tmp_path):
    """The small pipeline in its place, in an empty working folder, alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(command, "load_pipeline", lambda *_: pipeline)
    return pipeline


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the result of the whole command is kept for all tests, with what it printed."""
    return SimpleNamespace(folder=tmp_path_factory.mktemp("kept") / "all", printed=None)


@pytest.fixture
def done(loaded, kept, capsys):
    """After the whole command; holds what it printed."""
    if kept.printed is None:
        assert command.main(EVERYTHING) == 0
        kept.printed = capsys.readouterr()
        shutil.copytree("all", kept.folder)
    else:
        shutil.copytree(kept.folder, "all")
    return kept.printed


def evaluate(*arguments):
    """The command, which is to succeed."""
    assert command.main(list(arguments)) == 0


def numbers(out="all"):
    """What results.json tells but for the command that made it."""
    return {k: v for k, v in json.loads(Path(out, "results.json").read_text()).items() if k != "command"}


def files(out="all"):
    return {path.name: path.read_bytes() for path in Path(out, "files").iterdir()}


# ---- Everything ------------------------------------------------------------------------------------------------------


def test_one_command_makes_both_tables_and_the_pictures(done):
    assert {path.name for path in Path("all").iterdir()} == {
        "bench.jsonl", "rows.json", "rows.lock", "files", "reference",
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
    for folder in ("plain", "mask", "reference"):
        Path("jepa", folder).mkdir(parents=True)
        for item in Store(Path("all")).items():
            np.save(Path("jepa", folder, f"{item.id}.npy"), np.array([2.0, 0] if folder == "plain" else [0, 2.0]))
    evaluate("reduce", "--out", "all", "--jedi-features", "jepa")
    assert [result["distances"]["jedi"][0] for result in numbers()["results"].values()] == [800, 0]


# ---- What is lost on the way -----------------------------------------------------------------------------------------


def test_a_killed_run_goes_on(done, loaded, interrupted, capsys):
    with interrupted(command, after=3):
        assert command.main([*EVERYTHING[:-1], "killed"]) == 130
    assert capsys.readouterr().err == "interrupted: what was made is kept, and the same command goes on from there\n"
    assert len(files("killed")) == 2 * 3
    loaded.unet.calls = 0
    evaluate(*EVERYTHING[:-1], "killed")
    assert loaded.unet.calls == (8 - 3) * 2  # videos that were not made yet, steps
    assert numbers("killed") == numbers()
    assert files("killed") == files()


@pytest.mark.parametrize("suffix", [".mkv", ".json", "ColourDetector", "ConvFrameFeatures"])
def test_a_broken_file_is_made_again(done, suffix):
    before, whole = numbers(), files()
    kinds = {".json": lambda name: name.count(".") == 1 and name.endswith(".json")}
    name = min(filter(kinds.get(suffix, lambda name: suffix in name), whole))
    Path("all/files", name).write_bytes(whole[name][: len(whole[name]) // 2])
    evaluate(*EVERYTHING)
    assert files() == whole
    assert numbers() == before


def test_a_missing_video_is_one_sentence_or_listed(done, capsys):
    before = numbers()["results"]["mask"]["splits"]["moving"]
    store = Store(Path("all"))
    store.record_path(store.items()[3], store.rows()["mask"]).with_suffix(".mkv").unlink()
    for step in ("extract", "reduce"):
        assert command.main([step, "--out", "all"]) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("error: the video of jain-moving-0001 is not there or not whole; ")
        assert "--allow-missing" in sentence
    for step in ("extract", "reduce"):
        evaluate(step, "--out", "all", "--allow-missing")
    result = numbers()["results"]["mask"]
    assert result["missing"] == ["jain-moving-0001"]
    assert result["splits"]["moving"]["tracks"] == before["tracks"] == 2
    assert result["tracks"]["moving"][1]["covered"] is False


def test_latents_that_are_not_finite_are_told(loaded):
    loaded.unet.scale.fill_(math.nan)
    evaluate("run", "--tracks", "1", "--methods", "plain", "--reference", "world:2", "--out", "nan")
    result = numbers("nan")["results"]["plain"]
    assert result["failed"] == ["jain-static-0000", "jain-moving-0000"]
    assert result["splits"]["static"]["coverage"][0] == 0
    assert "2 videos did not stay finite" in Path("nan/tables.md").read_text()


def test_other_weights_never_use_a_file(done, loaded):
    loaded.unet.calls, loaded.fingerprint = 0, "f" * 16
    evaluate("generate", *SMALL, "--out", "all")
    assert loaded.unet.calls == 8 * 2
    evaluate("generate", *SMALL, "--negative-prompt", "blurry", "--out", "all")
    assert loaded.unet.calls == 2 * 8 * 2
    assert len([name for name in files() if name.endswith(".mkv")]) == 3 * 8
    row = Store(Path("all")).rows()["mask"]
    assert (row.model, row.negative_prompt) == ("f" * 16, "blurry")


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run --methods fuller", "method must be one of plain, "),
        ("run --coverage most", "a coverage rule is 'half' or 'count:N'"),
        ("run --reference nowhere", "--reference nowhere is neither a folder"),
        ("run --words real", "--suite stand-ins cannot measure such items: subjects are found by a colour"),
        ("run --form pairs --words real", "items of two subjects have words of the tiny world only"),
        ("run --bench nowhere.jsonl", "nowhere.jsonl: the benchmark cannot be read"),
        ("generate --bench three.jsonl --frames 4", "three.jsonl has items of 3 frames, not 4"),
        ("extract", "is not there or not whole; run `python -m evaluation generate` first"),
        ("reduce", "run `python -m evaluation generate` first"),
        ("table", "results.json is not there or not whole; run `python -m evaluation reduce` first"),
        ("bench --to a.jsonl --peekaboo davis_inputs.json", "davis_inputs.json"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_makes_nothing(loaded, capsys, arguments, sentence):
    save_items("three.jsonl", make_items("jain", "tiny", 1, 3))
    assert command.main(arguments.split(" ")) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert printed.out == ""
    assert loaded.unet.calls == 0
    assert [path.name for path in Path().iterdir()] == ["three.jsonl"]


@pytest.mark.parametrize(
    "arguments", ["", "run --shard 3/2", "run --tracks 0", "run --suite mine", "table --shard 1/2"]
)
def test_a_slip_of_the_keyboard_shows_how_it_is_used(loaded, capsys, arguments):
    with pytest.raises(SystemExit) as end:
        command.main(arguments.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m evaluation")


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
