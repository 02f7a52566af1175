"""What decides what may be asked of a model, for tests that have none: a small SD 1.x."""

from sfumato.request.traits import Traits

SD1 = Traits(
    name="m",
    title="SD 1.x",
    inpainting=False,
    instructed=False,
    companion=False,
    ids=0,
    clip_skip=11,
    stride=8,
    whole=64,
    channels=4,
    scale=0.18215,
    least_blurred=40,
    context=768,
    timesteps=1000,
    layers=("down_blocks.0.attentions.0.transformer_blocks.0", "mid_block.attentions.0.transformer_blocks.0"),
)
