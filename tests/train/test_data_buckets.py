"""Buckets as kohya's sd-scripts makes them, and batches of one bucket."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import ConfigError
from sfumato.train.data.buckets import BatchPlan, BucketRules, Fit, bucket_sizes, cover, fit, settled

KOHYA = BucketRules(smallest=256, largest=1024, step=64)
SQUARE = (512, 512)


def test_the_sizes_for_512_are_those_that_kohya_prints() -> None:
    narrow = [(256, 1024), (320, 768), (384, 640), (448, 576)]
    also = [(256, 832), (256, 896), (256, 960), (320, 704)]  # from the widths 832 to 960 and 704, heights rounded down
    expected = sorted({(512, 512), *narrow, *also, *((h, w) for w, h in narrow), *((h, w) for w, h in also)})
    assert bucket_sizes(SQUARE, KOHYA) == expected
    assert bucket_sizes(SQUARE, BucketRules()) == expected


@given(
    st.integers(8, 128).map(lambda cells: cells * 8),
    st.sampled_from([8, 16, 32, 64]),
)
def test_every_size_is_whole_steps_within_the_area_and_the_sides(side: int, step: int) -> None:
    if side < step:
        return
    rules = settled(BucketRules(step=step), (side, side))
    for width, height in bucket_sizes((side, side), rules):
        assert width % step == height % step == 0
        assert width * height <= side * side
        assert (height, width) in bucket_sizes((side, side), rules)
        if width != height:
            assert rules.smallest <= min(width, height) <= max(width, height) <= rules.largest


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((512, 512), Fit((512, 512), (512, 512))),
        ((1000, 1000), Fit((512, 512), (512, 512))),
        ((100, 100), Fit((512, 512), (512, 512))),
        ((1920, 1080), Fit((640, 384), (683, 384))),  # 1.778: 704x320 is 2.2, 640x384 is 1.667
        ((1080, 1920), Fit((384, 640), (384, 683))),
        ((768, 320), Fit((768, 320), (768, 320))),  # its very size goes before the nearest ratio
        ((5000, 100), Fit((1024, 256), (12800, 256))),
    ],
)
def test_a_picture_goes_where_its_shape_is_nearest(picture: tuple[int, int], expected: Fit) -> None:
    assert fit(picture, SQUARE, KOHYA) == expected


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((300, 200), Fit((256, 192), (300, 200))),  # not enlarged, only cut
        ((512, 512), Fit((512, 512), (512, 512))),
        ((1024, 1024), Fit((512, 512), (512, 512))),
        ((1920, 1080), Fit((640, 384), (683, 384))),  # by width 640x320, 2.0; by height 640x384, 1.667: nearer to 1.778
        ((40, 300), Fit((64, 448), (64, 480))),  # the exception: shorter than a step
        ((2, 3000), Fit((64, 1024), (64, 96_000))),
    ],
)
def test_without_upscaling_a_picture_keeps_its_size(picture: tuple[int, int], expected: Fit) -> None:
    assert fit(picture, SQUARE, BucketRules(smallest=256, largest=1024, step=64, upscale=False)) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.booleans(), st.sampled_from([(512, 512), (128, 128), (640, 384)]))
def test_a_picture_always_covers_its_bucket(
    width: int, height: int, upscale: bool, resolution: tuple[int, int]
) -> None:
    found = fit((width, height), resolution, BucketRules(upscale=upscale))
    assert found.size[0] <= found.scaled[0]
    assert found.size[1] <= found.scaled[1]
    assert found.size[0] % 8 == found.size[1] % 8 == 0
    assert cover((width, height), found.size).size == found.size


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [
        (BucketRules(step=20), "multiples of 8"),
        (BucketRules(smallest=600, largest=1000, step=64), "sides from 576 to 1024"),
        (BucketRules(smallest=64, largest=256, step=64), "sides from 64 to 256"),
    ],
)
def test_rules_that_contradict_the_resolution(rules: BucketRules, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        settled(rules, SQUARE)


SIZES = st.sampled_from([(512, 512), (640, 384), (384, 640), (768, 320)])


@given(st.lists(SIZES, min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 99), st.integers(0, 3))
def test_a_plan_shows_every_sample_once_an_epoch_in_batches_of_one_bucket(
    buckets: list[tuple[int, int]], batch: int, seed: int, epoch: int
) -> None:
    plan = BatchPlan(buckets, batch, seed)
    batches = plan.epoch(epoch)
    assert Counter(index for each in batches for index in each.indices) == Counter(range(len(buckets)))
    assert all({buckets[index] for index in each.indices} == {each.size} for each in batches)
    short = Counter(each.size for each in batches if len(each.indices) < batch)
    assert all(count == 1 for count in short.values())
    assert len(batches) == plan.batches_per_epoch
    assert batches == BatchPlan(buckets, batch, seed).epoch(epoch)
    first = epoch * plan.batches_per_epoch
    assert [plan[number] for number in range(first, first + len(batches))] == batches


def test_epochs_and_seeds_differ_and_nothing_depends_on_what_was_asked_before() -> None:
    buckets = [(512, 512), (640, 384)] * 20
    plan = BatchPlan(buckets, 4, seed=3)
    assert plan.epoch(0) != plan.epoch(1)
    assert plan.epoch(0) != BatchPlan(buckets, 4, seed=4).epoch(0)
    forwards = [plan[number] for number in range(25)]
    assert [BatchPlan(buckets, 4, seed=3)[number] for number in reversed(range(25))] == forwards[::-1]
    with pytest.raises(ConfigError, match="cannot be planned"):
        BatchPlan([], 4, 0)
