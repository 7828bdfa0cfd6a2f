"""Files appear whole or not at all, and errors name what the caller asked for."""

import pytest

from storage import appearing, write_bytes


def test_a_folder_that_is_not_there_is_named_by_the_file_that_was_to_be_written(tmp_path):
    wanted = tmp_path / "none" / "x.jsonl"
    with pytest.raises(FileNotFoundError) as error:
        write_bytes(wanted, b"")
    assert error.value.filename == str(wanted)


def test_what_fails_on_the_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), appearing(path) as unfinished:
        unfinished.write_bytes(b"half of the n")
        raise ZeroDivisionError
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]
