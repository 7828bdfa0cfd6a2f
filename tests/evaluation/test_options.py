"""Values of options: what is read, and what is right where one is refused."""

from argparse import ArgumentTypeError

import pytest

from evaluation.options import count, shard


def test_values_are_read():
    assert (count("1"), count("016")) == (1, 16)
    assert (shard("1/1"), shard("3/12")) == ((1, 1), (3, 12))


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", "", "9" * 5000])
def test_a_count_that_is_none_is_told_what_is_right(text):
    with pytest.raises(ArgumentTypeError, match=rf"^must be a whole number of at least 1, got '{text}'$"):
        count(text)


@pytest.mark.parametrize("text", ["1-2", "1", "3/2", "0/2", "1/0", "a/b", "1/2/3", "/", "-1/2"])
def test_a_shard_that_is_none_is_told_what_is_right(text):
    with pytest.raises(ArgumentTypeError, match=rf"^must be i/n with i from 1 to n, such as 1/2, got '{text}'$"):
        shard(text)
