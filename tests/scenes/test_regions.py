"""Masks taken apart, on masks drawn by hand."""

import torch
from torch import Tensor

from sfumato.scenes.regions import components, filled, necked, opened


def drawn(picture: str) -> Tensor:
    """A mask [1, H, W] from rows of # and dots."""
    return torch.tensor([[[cell == "#" for cell in row] for row in picture.split()]])


def shown(mask: Tensor) -> list[str]:
    return ["".join("#" if cell else "." for cell in row) for row in mask.squeeze(0).tolist()]


def test_components_have_a_number_each_and_corners_touch() -> None:
    labels = components(drawn("##..# #...# ...#. #....")).tolist()
    assert labels == [[[7 - 1, 6, 0, 0, 14], [6, 0, 0, 0, 14], [0, 0, 0, 14, 0], [16, 0, 0, 0, 0]]]


def test_a_long_way_is_one_component() -> None:
    labels = components(drawn("##### ....# ##### #.... #####"))
    assert labels.unique().tolist() == [0, 25]


def test_masks_of_a_batch_do_not_touch() -> None:
    both = components(torch.cat([drawn("#. .."), drawn(".. ##")]))
    assert both.tolist() == [[[1, 0], [0, 0]], [[0, 0], [4, 4]]]


def test_holes_are_filled_and_bays_are_not() -> None:
    assert shown(filled(drawn("#### #..# #### #.#. #..."))) == ["####", "####", "####", "#.#.", "#..."]


def test_a_hole_does_not_leak_through_a_corner() -> None:
    assert shown(filled(drawn("..... ..#.. .#.#. ..#.. ....."))) == [".....", "..#..", ".###.", "..#..", "....."]


def test_what_is_thin_is_taken_and_given_back_near_what_is_thick() -> None:
    mask = drawn("....... ####... ####### ####... .......")
    assert shown(opened(mask, 3)) == [".......", "####...", "####...", "####...", "......."]
    assert shown(opened(mask, 3, again=2))[2] == "######."


def test_parts_joined_by_a_neck_come_apart_and_leave_nothing_out() -> None:
    mask = drawn("......... .###..... .#######. .###.###. .....###. .........")[0]
    parts = necked(mask, 3, 1)
    assert len(parts) == 2
    assert torch.equal(parts[0] | parts[1], mask)
    assert not (parts[0] & parts[1]).any()


def test_a_part_without_a_neck_is_itself() -> None:
    mask = drawn("..... .###. .###. .###. .....")[0]
    (only,) = necked(mask, 3, 1)
    assert torch.equal(only, mask)
