"""The autoencoder over bands of rows, with the group norms' statistics of the whole picture: exact, in bounded memory.

A feature map is held once. Each norm needs the mean and variance of all of it, so a block goes over the map three
times: for the first norm, through the first convolution for the second norm, and through both for what it makes, which
is written over its input where the widths allow. Attention at the lowest resolution is exact, in parts of the queries.

Rows that a convolution sees beyond a band are taken along as a halo and what they spoil is dropped; the edges of the
picture are the convolutions' own. The largest map of an SD decoder that is held has 128 channels: 512 bytes a pixel in
float32, where decoding whole holds several of 256 channels at once. The price is the first convolution of each block
twice, and the last doubling three times, as its map alone would be twice as large as any other.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sfumato.nn.attention import MapAttention, attend, to_cells, to_map
from sfumato.nn.autoencoder import Autoencoder, DecoderLevel, EncoderLevel, Mid, Posterior
from sfumato.nn.blocks import ResnetBlock, Upsample
from sfumato.nn.memory import add, silu
from sfumato.nn.norm import GroupNorm

QUERIES = (
    1024  # of the attention at a time; where no fused kernel takes its one wide head, their scores are written out
)
BAND = 48 * 2**20  # bytes of a band of one map; some five of them are held at a time

Affine = tuple[Tensor, Tensor]
"""A group norm of known statistics: what each channel is multiplied by, and what is added, [1, C, 1, 1]."""

Piece = Callable[[slice], Tensor]
"""Rows of a map, [1, C, r, W], made when they are asked for."""


def decode_banded(autoencoder: Autoencoder, latent: Tensor, *, band: int = BAND) -> Tensor:
    """`autoencoder.decode(latent)` [B, C, h, w] to [B, 3, H, W], one picture at a time, in bands of so many bytes."""
    return torch.cat([_decode(autoencoder, one, band) for one in torch.split(latent, 1)])


def encode_banded(autoencoder: Autoencoder, pixels: Tensor, *, band: int = BAND) -> Posterior:
    """`autoencoder.encode(pixels)`, one picture at a time, in bands of so many bytes."""
    found = [autoencoder.posterior(_encode(autoencoder, one, band)) for one in torch.split(pixels, 1)]
    return Posterior(torch.cat([each.mean for each in found]), torch.cat([each.std for each in found]))


def _decode(autoencoder: Autoencoder, latent: Tensor, band: int) -> Tensor:
    decoder = autoencoder.decoder
    if autoencoder.post_quant_conv is not None:
        latent = autoencoder.post_quant_conv(latent)
    x = _mid(decoder.mid_block, decoder.conv_in(latent), band)
    doubling: Upsample | None = None
    for level in decoder.up_blocks:
        assert isinstance(level, DecoderLevel)
        for block in level.resnets:
            assert isinstance(block, ResnetBlock)
            x, doubling = _block(block, x, band, doubling), None
        for upsampler in level.upsamplers:
            assert isinstance(upsampler, Upsample)
            doubling = upsampler
    return _last(decoder.conv_norm_out, decoder.conv_out, x, band)


def _encode(autoencoder: Autoencoder, pixels: Tensor, band: int) -> Tensor:
    encoder = autoencoder.encoder
    x = _mapped(encoder.conv_in, pixels, band, channels=encoder.conv_in.out_channels)
    for level in encoder.down_blocks:
        assert isinstance(level, EncoderLevel)
        for block in level.resnets:
            assert isinstance(block, ResnetBlock)
            x = _block(block, x, band)
        for downsampler in level.downsamplers:
            x = _halved(downsampler, x, band)
    return _last(encoder.conv_norm_out, encoder.conv_out, _mid(encoder.mid_block, x, band), band)


def _mid(mid: Mid, x: Tensor, band: int) -> Tensor:
    first, last = mid.resnets
    assert isinstance(first, ResnetBlock) and isinstance(last, ResnetBlock)
    x = _block(first, x, band)
    for attention in mid.attentions:
        assert isinstance(attention, MapAttention)
        x = _attended(attention, x)
    return _block(last, x, band)


def _attended(attention: MapAttention, x: Tensor) -> Tensor:
    """Attention of a map, so many queries at a time: each sees all keys, so that nothing is left out."""
    cells = to_cells(attention.group_norm(x))
    key, value = attention.to_k(cells), attention.to_v(cells)
    parts = [
        attention.to_out(attend(attention.to_q(some), key, value, 1)) for some in torch.split(cells, QUERIES, dim=1)
    ]
    return add(to_map(torch.cat(parts, dim=1), x), x)


def _block(block: ResnetBlock, x: Tensor, band: int, doubling: Upsample | None = None) -> Tensor:
    """A resnet block over a map, or over the doubled map, which is never held. `x` may be written over."""
    factor = 1 if doubling is None else 2
    height, width = x.shape[2] * factor, x.shape[3] * factor
    channels, wider = block.conv2.out_channels, max(block.conv1.in_channels, block.conv2.out_channels)
    bands = list(_bands(height, wider * width * x.element_size(), band))

    def seen(rows: slice) -> Tensor:
        return x[:, :, rows] if doubling is None else _doubled(doubling, x, rows)

    first = _statistics(block.norm1, (seen(rows) for rows in bands))

    def middle(rows: slice) -> Tensor:
        return _convolved(block.conv1, lambda each: _normed(seen(each), first), rows, height)

    second = _statistics(block.norm2, (middle(rows) for rows in bands))
    in_place = doubling is None and block.conv_shortcut is None
    made = x if in_place else x.new_empty(1, channels, height, width)
    kept: Tensor | None = None  # the last two rows before a band as they were
    for rows in bands:
        source, offset = _with_rows_above(x, kept, rows) if in_place else (None, 0)

        def input_rows(each: slice, source: Tensor | None = source, offset: int = offset) -> Tensor:
            return seen(each) if source is None else source[:, :, each.start - offset : each.stop - offset]

        def inner(each: slice, input_rows: Piece = input_rows) -> Tensor:
            hidden = _convolved(block.conv1, lambda part: _normed(input_rows(part), first), each, height)
            return silu(_applied(hidden, second))

        h = _convolved(block.conv2, inner, rows, height)
        own = input_rows(rows)
        h = add(h, own if block.conv_shortcut is None else block.conv_shortcut(own))
        kept = x[:, :, max(rows.stop - 2, 0) : rows.stop].clone() if in_place else None
        made[:, :, rows] = h
    return made


def _with_rows_above(x: Tensor, kept: Tensor | None, rows: slice) -> tuple[Tensor, int]:
    """A band's rows and two beyond it, those above as they were before they were written over; and the first's row."""
    below = x[:, :, rows.start : min(rows.stop + 2, x.shape[2])]
    return (below, rows.start) if kept is None else (torch.cat([kept, below], dim=2), rows.start - kept.shape[2])


def _convolved(convolution: torch.nn.Module, piece: Piece, rows: slice, height: int) -> Tensor:
    """Rows of a 3x3 convolution of a map; beyond the map's own edges it pads, as on the whole."""
    start, stop = max(rows.start - 1, 0), min(rows.stop + 1, height)
    return convolution(piece(slice(start, stop)))[:, :, rows.start - start :][:, :, : rows.stop - rows.start]  # type: ignore[no-any-return]


def _doubled(doubling: Upsample, x: Tensor, rows: slice) -> Tensor:
    """Rows of the doubled map."""
    start, stop = max((rows.start - 1) // 2, 0), min(rows.stop // 2 + 1, x.shape[2])
    return doubling(x[:, :, start:stop])[:, :, rows.start - 2 * start :][:, :, : rows.stop - rows.start]  # type: ignore[no-any-return]


def _halved(downsampler: torch.nn.Module, x: Tensor, band: int) -> Tensor:
    """A map halved by a convolution that sees one row below each pair."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    made = x.new_empty(1, x.shape[1], height, width)
    for rows in _bands(height, 2 * x.shape[1] * x.shape[3] * x.element_size(), band):
        seen = x[:, :, 2 * rows.start : min(2 * rows.stop + 1, x.shape[2])]
        made[:, :, rows] = downsampler(seen)[:, :, : rows.stop - rows.start]
    return made


def _mapped(convolution: torch.nn.Module, x: Tensor, band: int, *, channels: int) -> Tensor:
    """A 3x3 convolution of a whole map, in bands."""
    made = x.new_empty(1, channels, *x.shape[2:])
    for rows in _bands(x.shape[2], channels * x.shape[3] * x.element_size(), band):
        made[:, :, rows] = _convolved(convolution, lambda each: x[:, :, each], rows, x.shape[2])
    return made


def _last(norm: GroupNorm, convolution: torch.nn.Conv2d, x: Tensor, band: int) -> Tensor:
    """Norm, SiLU and the last convolution of a network."""
    made = x.new_empty(1, convolution.out_channels, *x.shape[2:])
    bands = list(_bands(x.shape[2], x.shape[1] * x.shape[3] * x.element_size(), band))
    known = _statistics(norm, (x[:, :, rows] for rows in bands))
    for rows in bands:
        made[:, :, rows] = _convolved(convolution, lambda each: _normed(x[:, :, each], known), rows, x.shape[2])
    return made


def _bands(height: int, row_bytes: int, band: int) -> Iterator[slice]:
    """Rows in bands of about so many bytes, at least four rows each."""
    size = max(band // row_bytes, 4)
    for start in range(0, height, size):
        yield slice(start, min(start + size, height))


def _statistics(norm: GroupNorm, pieces: Iterator[Tensor]) -> Affine:
    """The norm of a map whose pieces are given, one at a time: their variances and means joined. Chan et al. 1983."""
    count = 0
    mean = square = torch.zeros(norm.num_groups, dtype=torch.float64)
    for piece in pieces:
        grouped = piece.reshape(norm.num_groups, -1).float()
        variance, average = (each.double().cpu() for each in torch.var_mean(grouped, dim=1, correction=0))
        added = grouped.shape[1]
        apart = average - mean
        total = count + added
        square = square + variance * added + apart.square() * (count * added / total)
        mean = mean + apart * (added / total)
        count = total
    weight, bias = norm.weight.double().cpu(), norm.bias.double().cpu()
    per_group = norm.num_channels // norm.num_groups
    scale = weight * (square / count + norm.eps).rsqrt().repeat_interleave(per_group)
    offset = bias - mean.repeat_interleave(per_group) * scale
    return tuple(each.to(norm.weight.device, norm.weight.dtype)[None, :, None, None] for each in (scale, offset))  # type: ignore[return-value]


def _applied(own: Tensor, affine: Affine) -> Tensor:
    """A norm of known statistics, written over a tensor that only the caller holds."""
    return own.mul_(affine[0]).add_(affine[1])


def _normed(x: Tensor, affine: Affine) -> Tensor:
    """A norm of known statistics and SiLU, in a new tensor."""
    return silu((x * affine[0]).add_(affine[1]))
