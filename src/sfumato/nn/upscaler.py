"""Networks that enlarge pictures: ESRGAN's RRDBNet and the compact SRVGGNet, under Real-ESRGAN's names.

Pixels [B, 3, H, W] in [0, 1] to [B, 3, scale x H, scale x W], not clamped. `reach` is how many pixels away an input
pixel can still matter: a tile with so much around it gives what the whole picture would.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of every leaky ReLU; Wang et al. 2018, ESRGAN


class DenseBlock(nn.Module):
    """Five convolutions, each seeing all before it; a fifth of the last is added. Wang et al. 2018, figure 4."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(features + index * growth, growth, 3, padding=1) for index in range(4)
        )
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, F.leaky_relu(convolution(seen), SLOPE)], dim=1)
        return x + 0.2 * self.conv5(seen)  # type: ignore[no-any-return]


class ResidualDenseBlocks(nn.Module):
    """Three dense blocks; a fifth of what they make is added. Wang et al. 2018, figure 4."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))  # type: ignore[no-any-return]


class RRDBNet(nn.Module):
    """ESRGAN's generator: residual dense blocks, then nearest doublings with a convolution each.

    `folded` 2 or 4 makes pixels into channels first, as Real-ESRGAN's 2x does, so that four times become two or one.
    """

    def __init__(self, *, features: int, blocks: int, growth: int, doublings: int, folded: int = 1) -> None:
        super().__init__()
        self.folded, self.doublings = folded, doublings
        self.conv_first = nn.Conv2d(3 * folded**2, features, 3, padding=1)
        self.body = nn.ModuleList(ResidualDenseBlocks(features, growth) for _ in range(blocks))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        for index in range(doublings):
            setattr(self, f"conv_up{index + 1}", nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)
        self.scale = 2**doublings // folded
        # 1 for each convolution before the doublings, at the folded resolution; those after them see at most 4 more
        self.reach = folded * (15 * blocks + 2 + 4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.folded, 0, -height % self.folded), mode="replicate")
        first = self.conv_first(F.pixel_unshuffle(x, self.folded))
        h = first
        for block in self.body:
            h = block(h)
        h = first + self.conv_body(h)
        for index in range(self.doublings):
            doubled = F.interpolate(h, scale_factor=2, mode="nearest")
            h = F.leaky_relu(getattr(self, f"conv_up{index + 1}")(doubled), SLOPE)
        h = self.conv_last(F.leaky_relu(self.conv_hr(h), SLOPE))
        return h[..., : height * self.scale, : width * self.scale]  # type: ignore[no-any-return]


class SRVGGNet(nn.Module):
    """The compact network of Real-ESRGAN: plain convolutions, then pixels out of channels, added to the nearest ones.

    Wang et al. 2021, Real-ESRGAN; `realesr-animevideov3`, `realesr-general-x4v3` and many others have its form.
    """

    def __init__(self, *, features: int, convolutions: int, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(features, 3 * scale**2, 3, padding=1)])
        self.scale = scale
        self.reach = convolutions + 2

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for layer in self.body:
            h = layer(h)
        return F.pixel_shuffle(h, self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


Upscaler = RRDBNet | SRVGGNet


@torch.no_grad()
def upscale_tiled(network: Upscaler, pixels: Tensor, *, tile: int = 192, overlap: int = 48) -> Tensor:
    """The network's answer for pixels [B, 3, H, W], in tiles of so many pixels with `overlap` around each.

    The memory is that of one tile. The answer is that for the whole picture where `overlap` is the network's reach;
    below, what is further away than that is not seen at the edges of tiles. No more than the reach is taken.
    """
    height, width = pixels.shape[-2:]
    scale, fold = network.scale, network.folded if isinstance(network, RRDBNet) else 1
    margin = -(-min(overlap, network.reach) // fold) * fold
    tile = max(tile // fold, 1) * fold  # tiles begin where folded cells do
    whole = pixels.new_empty(*pixels.shape[:2], height * scale, width * scale)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            upper, before = max(top - margin, 0), max(left - margin, 0)
            seen = pixels[..., upper : min(bottom + margin, height), before : min(right + margin, width)]
            made = network(seen)[..., (top - upper) * scale :, (left - before) * scale :]
            made = made[..., : (bottom - top) * scale, : (right - left) * scale]
            whole[..., top * scale : bottom * scale, left * scale : right * scale] = made
    return whole
