"""A file beside a model's networks that turns its UNet into one that sees a mask: its inpainting companion.

It holds the first layer of the nine-channel UNet whole, and low-rank changes of others under kohya's names:

    conv_in.weight [C, 9, 3, 3], conv_in.bias [C], lora_unet_....lora_down.weight, .lora_up.weight, .alpha

Its metadata name the UNet that it was trained beside by the sha256 of its file, and of its numbers, which stay the same
when they are written anew or in a wider precision; it is for no other.
"""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sfumato.errors import WeightsError
from sfumato.model import COMPANION, Model, hash_tensors
from sfumato.nn.lora import Changes, in_place_of, merge
from sfumato.nn.unet import UNet
from sfumato.nn.widened import widened
from sfumato.weights.component_files import COMPANION_FILE
from sfumato.weights.families import inpainting_family
from sfumato.weights.files import TensorFile, check_finite, open_file, open_header
from sfumato.weights.hashing import hash_files
from sfumato.weights.lora import fitting, unmatched
from sfumato.weights.lora_file import open_lora
from sfumato.weights.lora_names import UNET
from sfumato.weights.opened import Opened

KIND, FAMILY = "sfumato_kind", "sfumato_base_family"  # in its metadata
BASE, NUMBERS = "sfumato_base_unet", "sfumato_base_numbers"  # the sha256 of the UNet's file, and of its numbers
WHAT = "inpainting companion"
WEIGHT, BIAS = "conv_in.weight", "conv_in.bias"


class Made(NamedTuple):
    """A UNet that was made, and the tensors of the one that it was made of."""

    of: tuple[nn.Parameter, ...]
    unet: UNet


class Companion:
    """An opened companion: nothing but its header is read before something is inpainted.

    `first` is the first layer of the UNet that it lies beside; what LoRAs add to that is added to its own. What was
    made of a UNet is kept for as long as that UNet is.
    """

    def __init__(self, tensors: TensorFile, first: nn.Conv2d) -> None:
        self.tensors = tensors
        self._first = first
        self._made: WeakKeyDictionary[UNet, Made] = WeakKeyDictionary()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return self.tensors.paths

    @property
    def base(self) -> str:
        """The sha256 of the file of the UNet that it was trained beside."""
        return base_of(self.tensors)

    def inpainter(self, model: Model) -> Model:
        """Return the model with a UNet that also sees a mask; it shares all tensors that are not changed.

        LoRAs of the model count in it as they do in the model. Raises WeightsError for a companion of another UNet or
        one that does not fit, ModelFileError for a damaged one.
        """
        self.check_base(base_digest(model), unet_files(model), model.name)
        files = {**model.files, COMPANION: self.files}
        return replace(
            model,
            unet=self._inpainting(model.unet),
            family=inpainting_family(model.family),
            files=files,
            companion=None,
        )

    def check_base(self, digest: str, unet: tuple[Path, ...], name: str) -> None:
        """Raise WeightsError unless it is for the UNet with this sha256, in these files; `name` is the model's."""
        if not is_for(self.tensors, digest, unet):
            raise WeightsError(
                f"{self.files[0]} was trained beside another UNet (sha256 {self.base[:12]}, of the family "
                f"{self.tensors.metadata.get(FAMILY, '')!r}) than that of {name} ({digest[:12]}). Put the one that "
                'belongs to this model there, or take it away; masking "blend" does without it.'
            )

    def check(self, opened: Opened, name: str) -> None:
        """Raise WeightsError unless it is for the UNet of a model that is not read yet, and fits it."""
        paths = opened.unet.tensors.paths
        self.check_base(hash_files(paths), paths, name)
        unet = cast(UNet, opened.unet.part.network)
        self.first_layer(widened(unet))
        self.changes(unet)

    def changes(self, unet: UNet) -> Changes:
        """Read its low-rank changes of a UNet. Raises WeightsError for tensors that do not fit or belong to nothing."""
        opened = open_lora(self.files[0], unet)
        unfit = f"{opened.path} does not fit its UNet"
        more = [name for name in unmatched(opened, {UNET: unet}) if name not in (WEIGHT, BIAS)]
        if more:
            raise WeightsError(f"{unfit}: {len(more)} of its tensors have no layer there, first {more[0]!r}.")
        found = fitting(opened, UNET, unet, unfit)
        if "conv_in" in found:
            raise WeightsError(f"{opened.path} has the first layer twice: {WEIGHT!r} and a low-rank change of it.")
        return found

    def first_layer(self, wide: UNet) -> tuple[Tensor, Tensor]:
        """Read its first layer, for a widened UNet: weight and bias. Raises WeightsError for another shape."""
        layer = wide.conv_in
        assert layer.bias is not None
        return self._read(WEIGHT, layer.weight), self._read(BIAS, layer.bias)

    def _read(self, name: str, like: Tensor) -> Tensor:
        info = self.tensors.infos.get(name)
        found = "nothing" if info is None else f"{info.dtype} {list(info.shape)}"
        if info is None or info.shape != tuple(like.shape) or info.dtype not in ("F16", "BF16", "F32"):
            raise WeightsError(
                f"{self.files[0]} does not fit its UNet: {name!r} is {found}; floating-point numbers "
                f"{list(like.shape)} are needed."
            )
        tensor = self.tensors[name]
        check_finite(name, tensor, self.files[0])
        return tensor.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def _inpainting(self, unet: UNet) -> UNet:
        """The UNet that sees a mask, made now if it has to be: none was, or its tensors are others or moved since."""
        mine, made = tuple(unet.parameters()), self._made.get(unet)
        if made is not None and len(mine) == len(made.of) and all(map(_same, mine, made.of)):
            old, new = unet.conv_in.weight, made.unet.conv_in.weight
            if (old.device, old.dtype) == (new.device, new.dtype):
                return made.unet
        found = self._make(unet)
        self._made[unet] = Made(mine, found)
        return found

    @torch.no_grad()
    def _make(self, unet: UNet) -> UNet:
        wide = widened(unet)
        weight, bias = self.first_layer(wide)
        merge(wide, [(self.changes(unet), 1.0)])
        layer, now, then = wide.conv_in, unet.conv_in, self._first
        assert layer.bias is not None and now.bias is not None and then.bias is not None
        if now.weight is not then.weight:
            weight[:, : now.in_channels] += now.weight.to(weight) - then.weight.to(weight)
        if now.bias is not then.bias:
            bias += now.bias.to(bias) - then.bias.to(bias)
        layer.weight = nn.Parameter(in_place_of(layer.weight, weight), requires_grad=False)
        layer.bias = nn.Parameter(in_place_of(layer.bias, bias), requires_grad=False)
        return wide


def _same(one: object, other: object) -> bool:
    return one is other


def open_companion(path: Path, unet: UNet) -> Companion:
    """Open a companion to lie beside a UNet. Raises ModelFileError for a damaged file, WeightsError for another one."""
    tensors = open_file(path)
    if not is_companion(tensors):
        raise WeightsError(
            f"{path} is no {WHAT}: its metadata have no {KIND} = {WHAT!r}. Name the file that was trained as one."
        )
    return Companion(tensors, unet.conv_in)


def companion_beside(folder: Path, variant: str | None = None) -> tuple[TensorFile | None, str | None]:
    """Return the companion in a model's folder, if there is one, or a note that the file of its name is not used."""
    path = folder / COMPANION_FILE
    if not path.is_file():
        return None, None
    tensors = open_file(path)
    if not is_companion(tensors):
        return None, f"{COMPANION_FILE} is no {WHAT} and is not used"
    if variant is not None:
        return None, f"{COMPANION_FILE} is for the plain UNet and is not used with the variant {variant!r}"
    return tensors, None


def base_of(tensors: TensorFile) -> str:
    """Return the sha256 of the file of the UNet that a companion is for."""
    return tensors.metadata.get(BASE, "")


def is_companion(tensors: TensorFile) -> bool:
    """Say whether a file says that it is a companion."""
    return tensors.metadata.get(KIND) == WHAT


def inpainter(model: Model, path: Path | str) -> Model:
    """Return a second model that sees a mask, made by a companion's file. Errors: `open_companion`'s and `inpainter`'s.

    It shares with the first all tensors that are not changed.
    """
    return open_companion(Path(path), model.unet).inpainter(model)


def is_for(companion: TensorFile, digest: str, unet: tuple[Path, ...]) -> bool:
    """Say whether a companion is for the UNet with this sha256, or else with the numbers of these files, if any."""
    told = companion.metadata.get(NUMBERS)
    return digest == base_of(companion) or (bool(unet) and told is not None and told == numbers_digest(unet))


def numbers_digest(paths: tuple[Path, ...]) -> str:
    """Return the sha256 of the tensors of a network's files: of names, shapes and numbers in float32, not of types."""
    tensors, digest = TensorFile([open_header(path) for path in paths]), sha256()
    for name in sorted(tensors):
        digest.update(f"{name}|{list(tensors.infos[name].shape)}|".encode())
        digest.update(tensors[name].float().contiguous().numpy().data)
    return digest.hexdigest()


def unet_files(model: Model) -> tuple[Path, ...]:
    """Return the files that hold a model's UNet alone; none where it was made in memory or lies in a checkpoint."""
    return model.files.get(UNET, ()) if model.hash_files is not None else ()


def base_digest(model: Model) -> str:
    """Return the sha256 of the file that has a model's UNet; of its tensors where it was made in memory."""
    if model.hash_files is None:
        return hash_tensors(model.unet.state_dict())
    return model.hash_files(model.files.get(UNET) or model.files["checkpoint"])
