"""Prompt -> Conditioning against diffusers' own pipelines, with tiny random text encoders on CLIP's vocabulary."""

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from text_towers import Tower, make_towers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from sfumato.errors import ConfigError, PromptError, RequestError
from sfumato.nn.clip import TextEncoder
from sfumato.text.encode import SD1, SD2, SDXL, SDXL_REFINER, Conditioning, TextRules, TextStack, stack
from sfumato.text.tokenizer import Tokenizer

PROMPTS = ["a photograph of an astronaut riding a horse", "a red house on green grass!", "", "café 😀 don't " * 5]
NEGATIVE = "blurry, bad anatomy!"
# The networks differ in the order of float32 operations alone; states are of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def towers(clip: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tower]:
    return make_towers(clip, lambda name: Path(tmp_path_factory.mktemp(name)))


def stacked(rules: TextRules, *parts: Tower) -> TextStack:
    return TextStack(tuple(part.tokenizer for part in parts), tuple(part.encoder for part in parts), rules)


def sd_pipeline(part: Tower) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=part.reference,
        tokenizer=part.reference_tokenizer,
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(first: Tower | None, second: Tower, *, zeros: bool) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None if first is None else first.reference,
        tokenizer=None if first is None else first.reference_tokenizer,
        text_encoder_2=second.reference,
        tokenizer_2=second.reference_tokenizer,
        unet=None,
        scheduler=None,
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )


@torch.no_grad()
def sd_reference(part: Tower, prompts: list[str], negative: str) -> tuple[Tensor, Tensor]:
    positive, unwanted = sd_pipeline(part).encode_prompt(prompts, "cpu", 1, True, [negative] * len(prompts))
    return positive, unwanted


@torch.no_grad()
def skipped_reference(part: Tower, prompt: str, clip_skip: int) -> Tensor:
    """What diffusers' pipeline computes for clip_skip; it cannot itself: it asks for the older layout of modules."""
    ids = part.reference_tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    hidden = part.reference(ids, output_hidden_states=True).hidden_states[-1 - clip_skip]
    normed: Tensor = part.reference.final_layer_norm(hidden)
    return normed


def without_the_last_layer(part: Tower) -> Tower:
    """The same tower with one layer less, as published SD 2.x folders hold it."""
    config = CLIPTextConfig(**{**part.reference.config.to_dict(), "num_hidden_layers": 3})
    reference = CLIPTextModel(config).eval()
    kept = {name: value for name, value in part.reference.state_dict().items() if ".layers.3." not in name}
    reference.load_state_dict(kept, strict=True)
    return dataclasses.replace(part, reference=reference)


def test_sd1_equals_diffusers(towers: dict[str, Tower]) -> None:
    positive, negative = stacked(SD1, towers["vit_l"]).encode_pair(PROMPTS, NEGATIVE, dialect="plain")
    expected = sd_reference(towers["vit_l"], PROMPTS, NEGATIVE)
    torch.testing.assert_close((positive.context, negative.context), expected, **TOLERANCE)
    assert positive.context.shape == (len(PROMPTS), 77, 32)
    assert (positive.pooled, positive.size, positive.concat) == (None, None, None)


def test_sd2_equals_diffusers_which_holds_all_but_the_last_layer(towers: dict[str, Tower]) -> None:
    whole = towers["vit_h"]
    expected = sd_reference(without_the_last_layer(whole), PROMPTS, NEGATIVE)
    pair = stacked(SD2, whole).encode_pair(PROMPTS, NEGATIVE, dialect="plain")
    torch.testing.assert_close((pair[0].context, pair[1].context), expected, **TOLERANCE)


@pytest.mark.parametrize(("negative", "zeros"), [(NEGATIVE, True), (None, True), (None, False)])
def test_sdxl_equals_diffusers(towers: dict[str, Tower], negative: str | None, zeros: bool) -> None:
    parts = towers["vit_l"], towers["bigg"]
    with torch.no_grad():
        pipeline = sdxl_pipeline(*parts, zeros=zeros)
        negatives = negative and [negative] * len(PROMPTS)
        expected = pipeline.encode_prompt(PROMPTS, device="cpu", negative_prompt=negatives)
    rules = dataclasses.replace(SDXL, zero_empty_negative=zeros)
    positive, unwanted = stacked(rules, *parts).encode_pair(PROMPTS, negative or "", dialect="plain")
    ours = (positive.context, unwanted.context, positive.pooled, unwanted.pooled)
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    assert positive.context.shape == (len(PROMPTS), 77, 96)
    assert positive.pooled is not None and positive.pooled.shape == (len(PROMPTS), 48)
    assert bool(unwanted.context.any()) == (not zeros or negative is not None)


def test_the_refiner_equals_diffusers(towers: dict[str, Tower]) -> None:
    with torch.no_grad():
        pipeline = sdxl_pipeline(None, towers["bigg"], zeros=False)
        expected = pipeline.encode_prompt(PROMPTS[0], device="cpu")
    positive, unwanted = stacked(SDXL_REFINER, towers["bigg"]).encode_pair(PROMPTS[0], "")
    ours = (positive.context, unwanted.context, positive.pooled, unwanted.pooled)
    torch.testing.assert_close(ours, expected, **TOLERANCE)


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_clip_skip_equals_diffusers(towers: dict[str, Tower], clip_skip: int) -> None:
    ours = stacked(SD1, towers["vit_l"]).encode(PROMPTS[0], clip_skip=clip_skip).context
    torch.testing.assert_close(ours, skipped_reference(towers["vit_l"], PROMPTS[0], clip_skip), **TOLERANCE)
    parts = towers["vit_l"], towers["bigg"]
    if clip_skip < 2:
        with torch.no_grad():
            pipeline = sdxl_pipeline(*parts, zeros=True)
            expected = pipeline.encode_prompt(PROMPTS[0], device="cpu", clip_skip=clip_skip)
        conditioning = stacked(SDXL, *parts).encode(PROMPTS[0], clip_skip=clip_skip)
        torch.testing.assert_close(conditioning.context, expected[0], **TOLERANCE)
        torch.testing.assert_close(conditioning.pooled, expected[2], **TOLERANCE)


@pytest.mark.parametrize("clip_skip", [-1, 3])
def test_a_clip_skip_out_of_range_names_the_range(towers: dict[str, Tower], clip_skip: int) -> None:
    with pytest.raises(RequestError, match="can leave out 0 to 2 layers") as caught:
        stacked(SD1, towers["vit_l"]).encode("a", clip_skip=clip_skip)
    assert caught.value.field == "clip_skip"


def test_size_ids_are_those_of_diffusers(towers: dict[str, Tower]) -> None:
    text = stacked(SDXL, towers["vit_l"], towers["bigg"])
    conditioning = text.encode(["a", "b"])
    assert conditioning.size is None
    sized = text.sized(conditioning, height=832, width=1216, original=(1664, 2432), crop=(16, 8))
    assert sized.size is not None
    assert sized.size.tolist() == [[1664, 2432, 16, 8, 832, 1216]] * 2
    default = text.sized(conditioning, height=832, width=1216).size
    assert default is not None and default[0].tolist() == [832, 1216, 0, 0, 832, 1216]
    refiner = stacked(SDXL_REFINER, towers["bigg"])
    scored = refiner.sized(refiner.encode("a"), height=832, width=1216, score=2.5).size
    assert scored is not None and scored.tolist() == [[832, 1216, 0, 0, 2.5]]
    plain = stacked(SD1, towers["vit_l"])
    unsized = plain.encode("a")
    assert plain.sized(unsized, height=8, width=8) is unsized


def test_a_weight_of_one_changes_no_bit(towers: dict[str, Tower]) -> None:
    text = stacked(SDXL, towers["vit_l"], towers["bigg"])
    weighted, bare = text.encode("a (red house:1.0) [(x)]"), text.encode("a red house x")
    assert torch.equal(weighted.context, bare.context)
    assert weighted.pooled is not None and bare.pooled is not None and torch.equal(weighted.pooled, bare.pooled)


def test_weights_multiply_tokens_and_restore_the_mean_of_each_tower_as_a1111_does(towers: dict[str, Tower]) -> None:
    text = stacked(SDXL, towers["vit_l"], towers["bigg"])
    weighted, bare = text.encode("a (red:1.4) [house]"), text.encode("a red house")
    weights = torch.ones(77, 1)
    weights[2], weights[3] = 1.4, 1 / 1.1
    for tower_of in (slice(0, 32), slice(32, 96)):
        state = bare.context[0, :, tower_of].double()
        expected = state * weights * (state.mean() / (state * weights).mean())
        torch.testing.assert_close(weighted.context[0, :, tower_of].double(), expected, rtol=1e-5, atol=1e-6)
    # The pooled vector is of the words alone.
    assert weighted.pooled is not None and bare.pooled is not None and torch.equal(weighted.pooled, bare.pooled)


def test_only_the_chunk_with_weights_is_weighted(towers: dict[str, Tower]) -> None:
    text = stacked(SD1, towers["vit_l"])
    weighted, bare = text.encode("(a:1.5) BREAK b").context, text.encode("a BREAK b").context
    assert not torch.equal(weighted[:, :77], bare[:, :77])
    assert torch.equal(weighted[:, 77:], bare[:, 77:])


def test_long_prompts_are_their_chunks_side_by_side(towers: dict[str, Tower]) -> None:
    text = stacked(SDXL, towers["vit_l"], towers["bigg"])
    both, first, second = text.encode("a cat BREAK a dog"), text.encode("a cat"), text.encode("a dog")
    assert torch.equal(both.context, torch.cat([first.context, second.context], dim=1))
    assert both.pooled is not None and first.pooled is not None and torch.equal(both.pooled, first.pooled)
    assert text.encode("cat " * 200).context.shape == (1, 3 * 77, 96)


def test_the_shorter_of_a_pair_is_padded_with_empty_chunks(towers: dict[str, Tower]) -> None:
    text = stacked(SD1, towers["vit_l"])
    empty, short = text.encode("").context, text.encode("bad").context
    positive, negative = text.encode_pair("cat " * 160, "bad")
    assert torch.equal(negative.context, torch.cat([short, empty, empty], dim=1))
    assert positive.context.shape == negative.context.shape
    positive, negative = text.encode_pair("bad", "cat " * 80)
    assert torch.equal(positive.context, torch.cat([short, empty], dim=1))


def test_an_empty_negative_is_zeros_for_sdxl_alone_and_only_where_it_is_empty(towers: dict[str, Tower]) -> None:
    text = stacked(SDXL, towers["vit_l"], towers["bigg"])
    _, negative = text.encode_pair(["a", "b"], ["", "bad"])
    assert negative.pooled is not None
    assert not negative.context[0].any() and not negative.pooled[0].any()
    assert torch.equal(negative.context[1:], text.encode("bad").context)
    sd1 = stacked(SD1, towers["vit_l"])
    assert torch.equal(sd1.encode_pair("a", "")[1].context, sd1.encode("").context)


def test_conditioning_does_not_depend_on_the_prompts_beside_it(towers: dict[str, Tower]) -> None:
    text = stacked(SDXL, towers["vit_l"], towers["bigg"])
    alone = [text.encode(prompt) for prompt in PROMPTS]
    together = text.encode(PROMPTS)
    assert torch.equal(together.context, torch.cat([each.context for each in alone]))
    batched = text.encode(PROMPTS, rows=4)
    torch.testing.assert_close(batched.context, together.context, **TOLERANCE)


def test_one_negative_serves_all_prompts_and_other_numbers_are_refused(towers: dict[str, Tower]) -> None:
    text = stacked(SD1, towers["vit_l"])
    positive, negative = text.encode_pair(["a", "b", "c"], "bad")
    assert (len(positive), len(negative)) == (3, 3)
    with pytest.raises(PromptError, match="2 negative prompts for 3") as caught:
        text.encode_pair(["a", "b", "c"], ["x", "y"])
    assert caught.value.field == "negative_prompt"
    with pytest.raises(PromptError, match="no prompt"):
        text.encode([])


def test_encoding_makes_no_gradients(towers: dict[str, Tower]) -> None:
    assert not stacked(SD1, towers["vit_l"]).encode("a (b:1.2)").context.requires_grad


def test_a_model_with_a_limit_says_what_it_cuts(towers: dict[str, Tower]) -> None:
    text = stacked(TextRules(limit=1), towers["vit_l"])
    prompt = "cat " * 75 + "dog horse"
    assert text.encode(prompt).context.shape == (1, 77, 32)
    assert torch.equal(text.encode(prompt).context, text.encode("cat " * 75).context)
    assert text.tokens(prompt).cut == "dog horse"
    # diffusers cuts every prompt there
    expected = sd_reference(towers["vit_l"], [prompt], "")[0]
    torch.testing.assert_close(text.encode(prompt).context, expected, **TOLERANCE)


def test_weights_that_make_the_mean_vanish_are_refused(towers: dict[str, Tower]) -> None:
    part = towers["vit_l"]
    blank = TextEncoder(part.encoder.config)
    for parameter in blank.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(PromptError, match="mean vanishes"):
        TextStack((part.tokenizer,), (blank,), SD1).encode("(a:1.5)")


def test_half_precision_states_are_weighted_in_float32(towers: dict[str, Tower]) -> None:
    part = towers["vit_l"]
    encoder = TextEncoder(part.encoder.config)
    encoder.load_state_dict(part.encoder.state_dict())
    text = TextStack((part.tokenizer,), (encoder,), SD1).to(dtype=torch.bfloat16)
    context = text.encode("a (b:1.2)").context
    assert context.dtype == torch.bfloat16
    single = stacked(SD1, part).encode("a (b:1.2)").context
    assert torch.linalg.norm(context.float() - single) < 0.03 * torch.linalg.norm(single)  # bfloat16 has 8 bits


def test_a_stack_that_does_not_fit_together_is_refused(towers: dict[str, Tower]) -> None:
    part = towers["vit_l"]
    vocab, merges = part.tokenizer._vocab, part.tokenizer._merges
    with pytest.raises(ConfigError, match="as many tokenizers"):
        TextStack((part.tokenizer,), (part.encoder, part.encoder), SD1)
    with pytest.raises(ConfigError, match="the same"):
        TextStack((part.tokenizer, Tokenizer(vocab, merges, max_length=40)), (part.encoder,) * 2, SD1)
    with pytest.raises(ConfigError, match="takes 77"):
        TextStack((Tokenizer(vocab, merges, max_length=78),), (part.encoder,), SD1)
    with pytest.raises(ConfigError, match="knows 49408"):
        TextStack((Tokenizer(vocab, merges, specials={"pad_token": "<pad>"}),), (part.encoder,), SD1)


def conditioning(count: int, length: int, *, pooled: bool) -> Conditioning:
    return Conditioning(torch.rand(count, length, 4), torch.rand(count, 3) if pooled else None, torch.ones(count, 6))


def test_conditionings_are_stacked_sliced_expanded_and_moved() -> None:
    one, two = conditioning(1, 77, pooled=True), conditioning(2, 77, pooled=True)
    three = stack([one, two])
    assert len(three) == 3
    assert torch.equal(three[1:].context, two.context)
    assert three[:1].pooled is not None and one.pooled is not None and torch.equal(three[:1].pooled, one.pooled)
    assert torch.equal(one.expand(4).context, one.context.repeat(4, 1, 1))
    half = three.to(dtype=torch.bfloat16)
    assert half.size is not None and (half.context.dtype, half.size.dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(ValueError, match="expanded"):
        two.expand(4)
    with pytest.raises(ValueError, match="77, 154"):
        stack([one, conditioning(1, 154, pooled=True)])
    with pytest.raises(ValueError, match="without"):
        stack([one, conditioning(1, 77, pooled=False)])


def test_comfy_weights_lead_away_from_the_empty_prompt(towers: dict[str, Tower]) -> None:
    part = towers["vit_l"]
    stack_of_one = stacked(SD1, part)
    found = stack_of_one.encode("a (red:1.5) dog (cat:0.25) (hat:0)", dialect="comfy").context[0]
    with torch.no_grad():
        ids = [
            part.reference_tokenizer(text, padding="max_length", return_tensors="pt").input_ids
            for text in ("a red dog cat hat", "")
        ]
        state, empty = (part.reference(each).last_hidden_state[0] for each in ids)
    weights = torch.ones(77, 1)
    weights[2], weights[4], weights[5] = 1.5, 0.25, 0.0
    torch.testing.assert_close(found, empty + (state - empty) * weights, **TOLERANCE)
    assert torch.equal(
        found[weights[:, 0] == 1], stack_of_one.encode("a red dog cat hat").context[0][weights[:, 0] == 1]
    )


def test_the_dialects_agree_where_there_are_no_marks(towers: dict[str, Tower]) -> None:
    both = stacked(SDXL, towers["vit_l"], towers["bigg"])
    plain = both.encode("a red dog on grass", dialect="plain")
    for dialect in ("a1111", "comfy", "compel"):
        found = both.encode("a red dog on grass", dialect=dialect)
        assert torch.equal(found.context, plain.context)
        assert torch.equal(found.pooled, plain.pooled)
