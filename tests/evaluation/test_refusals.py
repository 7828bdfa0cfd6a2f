"""What the commands refuse, in one sentence and before anything is made."""

import re
from pathlib import Path

import pytest

from evaluation import ablate, asked
from evaluation.benchmarks.items import make_items, save_items
from tests.evaluation.commands import SMALL, command

pytestmark = pytest.mark.filterwarnings("default:FID from:UserWarning")  # so few videos have fewer frames than features


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
        ("run --suite published --inception clean", "--inception would change nothing without --reference"),
        ("run --suite published --owl off", "--owl off leaves nothing that finds subjects; name a network"),
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


def test_every_option_with_a_value_says_its_default():
    """Or has none, because leaving it out means that there is nothing of it."""
    without = {"--to", "--peekaboo", "--jedi-features"}
    (steps,) = (action for action in command.build_parser()._actions if action.choices)
    for parser in (*steps.choices.values(), ablate.build_parser()):
        assert "None" not in parser.format_help()
        for action in parser._actions:
            if action.option_strings and action.nargs != 0 and action.option_strings[0] not in without:
                assert re.search(r"\(.+\)", action.help or ""), (parser.prog, action.option_strings)


@pytest.mark.parametrize(
    "arguments", ["", "run --shard 3/2", "run --tracks 0", "run --suite mine", "table --shard 1/2"]
)
def test_a_slip_of_the_keyboard_shows_how_it_is_used(loaded, capsys, arguments):
    with pytest.raises(SystemExit) as end:
        command.main(arguments.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m evaluation")
