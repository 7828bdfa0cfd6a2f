"""What pages are put together from: places filled once, JSON that cannot end its script, flags taken out."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page import data_uri, drop_flags, fill, read_parts, script_json


def test_places_are_filled_once():
    """What is filled in is left alone, also where it looks like a place itself."""
    assert fill("<p>{{a}}</p>{{b}}{{a}}", {"a": "{{b}}", "b": "x"}) == "<p>{{b}}</p>x{{b}}"


@pytest.mark.parametrize("parts", [{}, {"a": "", "b": ""}], ids=["missing", "unknown"])
def test_a_place_without_its_part_and_a_part_without_a_place_are_errors(parts):
    with pytest.raises(ValueError, match="the page has places for a, but was given"):
        fill("{{a}}", parts)


@given(st.lists(st.none() | st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_json_in_a_page_says_the_same_and_cannot_end_its_script(value):
    text = script_json({"value": value, "end": "</script><!--"})
    assert "<" not in text
    assert json.loads(text) == {"value": value, "end": "</script><!--"}


def test_a_file_as_an_address(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\x00\xff\n")
    head, _, body = data_uri(tmp_path / "a.bin", "video/mp4").partition(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(body) == b"\x00\xff\n"


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], []),
        (["--seed", "1", "2", "--eta", "0.5"], ["--eta", "0.5"]),
        (["--eta", "0.5", "--out=a"], ["--eta", "0.5"]),
        (["--compare", "--out", "a b", "--seeds"], ["--compare", "--seeds"]),
    ],
)
def test_flags_leave_with_their_values(arguments, kept):
    assert drop_flags(arguments, "--seed", "--out") == kept


@pytest.mark.parametrize("name", ["draw.html", "report.html"])
def test_pages_name_no_address_of_a_network(name):
    page = read_parts(name, "style.css", name.replace("html", "css"), name.replace("html", "js"))
    assert "default-src 'none'" in page
    assert "//" not in page.replace("// ", "")  # comments apart, not one address
