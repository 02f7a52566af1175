"""Buckets as kohya's sd-scripts makes them, and microbatches of one bucket."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import ConfigError
from sfumato.train.data.buckets import BucketPlan, BucketRules, Fit, bucket_sizes, cover, fit, settled

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


@given(st.lists(SIZES, min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 99), st.integers(0, 3))
def test_a_cycle_shows_every_sample_alike_in_full_microbatches_of_one_bucket(
    buckets: list[tuple[int, int]], size: int, seed: int, cycle: int
) -> None:
    plan = BucketPlan(buckets, size, seed)
    laid = [plan[number] for number in range(cycle * len(buckets), (cycle + 1) * len(buckets))]
    assert all(len(each) == size for each in laid)
    assert all(len({buckets[index] for index in each}) == 1 for each in laid)
    assert Counter(index for each in laid for index in each) == Counter({at: size for at in range(len(buckets))})


def test_a_bucket_goes_through_all_of_its_samples_before_any_comes_again() -> None:
    buckets = [(512, 512)] * 7 + [(640, 384)] * 3
    plan = BucketPlan(buckets, 4, seed=3)
    for bucket, count in ((0, 7), (1, 3)):
        members = {at for at, size in enumerate(buckets) if (size != (512, 512)) == bool(bucket)}
        seen = [index for number in range(40) for index in plan[number] if index in members]
        for first in range(0, len(seen) - count, count):
            assert set(seen[first : first + count]) == members


def test_buckets_take_turns_evenly() -> None:
    buckets = [(512, 512)] * 60 + [(640, 384)] * 30 + [(384, 640)] * 10
    plan = BucketPlan(buckets, 2, seed=1)
    for upto in (10, 50, 100):
        share = Counter(buckets[plan[number][0]] for number in range(upto))
        for size, count in Counter(buckets).items():
            assert abs(share[size] - upto * count / 100) <= 3  # one for each bucket


def test_seeds_differ_and_nothing_depends_on_what_was_asked_before() -> None:
    buckets = [(512, 512), (640, 384)] * 20
    forwards = [BucketPlan(buckets, 4, seed=3)[number] for number in range(90)]
    plan = BucketPlan(buckets, 4, seed=3)
    assert [plan[number] for number in reversed(range(90))] == forwards[::-1]
    assert forwards[:40] != forwards[40:80]
    assert forwards != [BucketPlan(buckets, 4, seed=4)[number] for number in range(90)]
    with pytest.raises(ConfigError, match="cannot be planned"):
        BucketPlan([], 4, 0)
