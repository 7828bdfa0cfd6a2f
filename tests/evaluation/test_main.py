"""The commands from arguments to tables, on a pipeline of a few lines."""

import importlib
import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from evaluation import asked
from evaluation.benchmarks.items import FORMS, load_items, make_items, save_items, with_noise
from evaluation.figures.video import write_lossless
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
    monkeypatch.setattr(asked, "load_pipeline", lambda *_: pipeline)
    pipeline.defaults.prompt = "a red ball moving over the grass"  # it knows the tiny world
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


def test_a_missing_video_names_its_row_or_is_listed(done, capsys):
    before = numbers()["results"]["mask"]["splits"]["moving"]
    store = Store(Path("all"))
    lost = store.items()[3]
    store.record_path(lost, store.rows()["mask"]).with_suffix(".mkv").unlink()
    for step, start in (("extract", f"not measured: row mask, item {lost.id}: "), ("reduce", "error: row mask: ")):
        assert command.main([step, "--out", "all"]) == 2
        sentence = capsys.readouterr().err.splitlines()[0]
        assert sentence.startswith(f"{start}the video of {lost.id} is not there or not whole; ")
        assert "--allow-missing" in sentence
    for step in ("extract", "reduce"):
        evaluate(step, "--out", "all", "--allow-missing")
    result = numbers()["results"]["mask"]
    assert result["missing"] == [lost.id]
    assert result["splits"]["moving"]["tracks"] == before["tracks"] == 2
    assert result["tracks"]["moving"][1]["covered"] is False


def test_one_broken_video_does_not_stop_the_others(done, capsys):
    """Of a reference of five one is too short and one is no video: three, and all of the rows', are measured."""
    Path("films", "b").mkdir(parents=True)
    grey = np.full((6, 32, 48, 3), 128, np.uint8)
    for name in ("a", "b/c", "d"):
        write_lossless(Path("films", f"{name}.mkv"), grey)
    write_lossless(Path("films", "short.mkv"), grey[:3])
    Path("films", "broken.mkv").write_bytes(b"no video")
    for path in Path("all/files").glob("*.ColourDetector*"):
        path.unlink()
    assert command.main(["extract", "--out", "all", "--reference", "films"]) == 2
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("not measured: the reference's broken.mkv: films/broken.mkv is not a video")
    assert second.startswith("not measured: the reference's short.mkv: films/short.mkv gives 3 frames, ")
    assert last == "error: 2 of 13 videos could not be measured, as told above; the others are"
    assert len(list(Path("all/files").glob("*.ColourDetector*"))) == 8
    for name in ("broken", "short"):
        Path("films", f"{name}.mkv").unlink()
    evaluate("extract", "--out", "all", "--reference", "films")
    evaluate("reduce", "--out", "all", "--reference", "films")
    told = numbers()
    assert told["reference"] == "3 videos of films, the first 4 frames of each"
    assert told["results"]["plain"]["distances"]["frames"] == {"ours": 16, "reference": 12, "dimensions": 64}


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
        ("run --words real", "small knows the tiny world alone, such as a red ball, and no "),
        ("generate --words real", "small knows the tiny world alone, such as a red ball, and no "),
        ("bench --tracks 2 --to none/x.jsonl", "none/x.jsonl: No such file or directory"),
        (
            "generate --bench three.jsonl --tracks 2 --seed 1",
            "--tracks and --seed would change nothing on the items of",
        ),
        (
            "generate --bench three.jsonl --form smooth",
            "--form would change nothing on the items of three.jsonl; leave it",
        ),
        (
            "run --bench three.jsonl --words tiny --split static",
            "--words and --split would change nothing on the items",
        ),
        (
            "bench --to a.jsonl --peekaboo imc_inputs.json --tracks 3 --form smooth",
            "--form and --tracks would change nothing",
        ),
        (
            "bench --to a.jsonl --axis-order true --gaps drop",
            "--axis-order and --gaps would change nothing without --peek",
        ),
        ("run --reference-stride 2", "--reference-stride would change nothing without --reference"),
        ("run --clip off", "--clip would change nothing with --suite stand-ins"),
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


def test_a_share_of_both_kinds_is_refused_before_anything_is_loaded(loaded, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(asked, "load_pipeline", lambda *_: pytest.fail("loaded"))
    for step in ("generate", "run"):
        assert command.main([step, *SMALL, "--shard", "1/2"]) == 2
        assert "--shard 1/2 would be the share of each of the launcher's 2 workers" in capsys.readouterr().err


def test_other_suites_than_the_stand_ins_are_tried_before_videos_are_made(loaded, capsys):
    loaded.defaults.prompt = None  # words of the real world, which stand-ins do not know
    assert command.main(["run", *SMALL]) == 2
    assert "--suite stand-ins cannot measure such items: subjects are found by a colour" in capsys.readouterr().err
    assert loaded.unet.calls == 0


def test_every_option_with_a_value_says_its_default(capsys):
    """Or has none, because leaving it out means that there is nothing of it."""
    without = {"--to", "--peekaboo", "--jedi-features"}
    (steps,) = (action for action in command.build_parser()._actions if action.choices)
    for name, parser in steps.choices.items():
        for action in parser._actions:
            if action.option_strings and action.nargs != 0 and action.option_strings[0] not in without:
                assert re.search(r"\(.+\)", action.help or ""), (name, action.option_strings)
                assert "None" not in parser.format_help()


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
