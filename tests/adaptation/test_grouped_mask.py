"""A mask by groups and packs says what the dense mask says. That attention by them is equal: `tests/model`."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.attention_masks import AttentionControl
from adaptation.grouped_mask import memberships
from tests.helpers import bools, coarse, controls

# On a 2 x 3 grid, pixels numbered 0 1 2 / 3 4 5: subject A holds 0 1, subject B holds 1 2, so pixel 1 is in both.
A_AND_B = bools("110 000", "011 000")
# Six tokens: start, "a", A's word, "and", B's word, end.
WORDS = bools("001000", "000010")


def test_memberships_by_hand():
    # Nobody, B, A, both, in the order of the columns 00, 01, 10, 11; then a frame without A.
    members, labels = memberships(torch.stack([A_AND_B, bools("000000", "000001")]))
    assert torch.equal(members, bools("0011", "0101"))
    assert labels.tolist() == [[2, 3, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]


@given(controls(), st.sampled_from(["self", "temporal"]))
def test_groups_say_the_same_as_dense(control, kind):
    mask = control.mask(kind, *coarse(control, 0))
    dense = mask.dense()
    assert len(mask.groups) == len(dense)
    for groups, sequence in zip(mask.groups, dense, strict=True):
        rebuilt = torch.zeros_like(sequence)
        for group in groups:
            rebuilt[group.queries[:, None], group.keys] = True
        assert torch.equal(rebuilt, sequence)
        queries = torch.cat([group.queries for group in groups])
        assert sorted(queries.tolist()) == list(range(len(sequence)))


def test_groups_by_hand_follow_the_overlap():
    control = AttentionControl(A_AND_B.reshape(2, 1, 2, 3), WORDS)
    pairs = {tuple(g.queries.tolist()): g.keys.tolist() for g in control.mask("self", 2, 3).groups[0]}
    assert pairs == {(0,): [0, 1], (1,): [0, 1, 2], (2,): [1, 2], (3, 4, 5): [3, 4, 5]}


@given(controls(), st.sampled_from(["self", "temporal"]))
def test_packs_say_the_same_as_dense(control, kind):
    mask = control.mask(kind, *coarse(control, 0))
    expected = torch.block_diag(*mask.dense().int()).bool()  # every sequence has keys of its own
    rebuilt = torch.zeros_like(expected)
    for pack in mask.packs:
        for queries, keys in zip(pack.queries, pack.keys, strict=True):
            rebuilt[queries[:, None], keys] = True
    assert torch.equal(rebuilt, expected)
    queries = torch.cat([pack.queries.flatten() for pack in mask.packs])
    assert queries[mask.places].tolist() == list(range(len(expected)))
    sizes = [(pack.queries.shape[1], pack.keys.shape[1]) for pack in mask.packs]
    assert len(set(sizes)) == len(sizes)


def test_a_box_that_moves_and_keeps_its_size_needs_two_packs():
    # Four cells in a row, frames of one each: the subject is at cell 0, then at cell 2.
    regions = bools("1000", "0010").reshape(1, 2, 1, 4)
    one, three = AttentionControl(regions, WORDS[:1]).mask("self", 1, 4).packs
    if one.queries.shape[1] == 3:
        one, three = three, one
    assert one.queries.tolist() == one.keys.tolist() == [[0], [4 + 2]]
    assert three.queries.tolist() == three.keys.tolist() == [[1, 2, 3], [4 + 0, 4 + 1, 4 + 3]]


def test_groups_do_not_need_a_dense_mask():
    control = AttentionControl(torch.ones(1, 1, 256, 256, dtype=torch.bool), bools("0010"))
    mask = control.mask("self", 256, 256)  # dense would be 4 GiB
    assert [len(g.queries) for g in mask.groups[0]] == [256 * 256]
    assert "_dense" not in vars(mask)
