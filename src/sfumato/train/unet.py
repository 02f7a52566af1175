"""Training a whole UNet: from nothing on trained parts, or further from a model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.scenes.render import layout
from sfumato.train.ahead import ahead, count_workers, in_chunks
from sfumato.train.config import TrainConfig
from sfumato.train.data import World
from sfumato.train.denoising import Batch, Denoising
from sfumato.train.imagined import Imagined, composer, imagine, read_imagined
from sfumato.train.layout import LayoutHead, layout_loss
from sfumato.train.parts import write_part
from sfumato.train.plan import Pass, seeded
from sfumato.weights.save import save_folder

CHUNK = 256  # scenes whose layouts are found at a time


class UNetTask(Denoising):
    """The recipe. `start.autoencoder` and `start.text` name folders that hold `vae/`, and `text_encoder/` with
    `tokenizer/`; `start.unet`, if given, a folder whose `unet/` the run begins from. Or `start.model`: a whole model.
    """

    def __init__(self, config: TrainConfig) -> None:
        settings = read_imagined(config)
        self.imagined: Imagined | None = None
        super().__init__(config)
        if settings is not None:
            folder, shape = Path(config.run.output), self.latents.shape(0)
            asked = composer(settings.model, self.device) if settings.model else (self.base.unet, self._told)
            self.imagined = imagine(settings, *asked, self.objective, shape, folder)
        self.network = self.base.unet.requires_grad_(True)
        self.head: LayoutHead | None = None
        self.features: Tensor | None = None
        if self.loss_config.layout:
            assert self.world is not None
            with seeded(config.run.seed):
                self.head = LayoutHead(self.network.config.block_out_channels[0]).to(self.device)
            self.network.up_blocks[-1].register_forward_hook(self._keep)
            self.kinds, self.colours = self._layouts(self.world)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"unet": self.network, "head": self.head} if self.head else {"unet": self.network}

    def _told(self, texts: list[str]) -> Tensor:
        return self.conditioning(self.said(texts), self.samples.bucket(0)).context

    def draw(self, part: Pass) -> Batch:
        batch = super().draw(part)
        if self.imagined is None:
            return batch
        clean = batch.clean.clone()
        for at, which in self.imagined.places(part).items():
            clean[at] = self.imagined.latents[which]
        return replace(batch, clean=clean)

    def captions(self, batch: Batch) -> list[str]:
        said = super().captions(batch)
        if self.imagined is not None:
            for at, which in self.imagined.places(batch.part).items():
                said[at] = self.imagined.captions[which]
        return said

    def _layouts(self, world: World) -> tuple[Tensor, Tensor]:
        """What each latent cell of every scene shows: kinds and colours, [N, h, w]."""
        side = self.latents.shape(0)[-1]
        chunks = in_chunks(range(world.length), CHUNK)
        workers = count_workers(self.config.run, self.device)
        parts = ahead(lambda chunk: layout(world.scenes(chunk), side), chunks, workers)
        kinds, colours = zip(*parts, strict=True)
        return torch.cat(kinds), torch.cat(colours)

    def auxiliary(self, batch: Batch) -> dict[str, Tensor]:
        if self.head is None or self.features is None:
            return {}
        goals = (self.kinds[batch.indices].to(self.device), self.colours[batch.indices].to(self.device))
        answers = self.head(self.features.float())
        return {"layout": layout_loss(answers, goals, ~batch.dropped.to(self.device), batch.part.size)}

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.features = output

    def export(self, folder: Path) -> None:
        """Writes `unet/` and `scheduler/` as diffusers has them; the whole model, where the run started from one."""
        if self.base.model is not None:
            save_folder(replace(self.base.model, scheduler=self.objective.described), folder, overwrite=True)
            return
        side = self.config.data.size // self.base.autoencoder.config.stride
        described = {**self.network.config.to_json(), "sample_size": side}
        write_part(self.network, described, folder / "unet", "diffusion_pytorch_model")
        target = folder / "scheduler"
        target.mkdir(parents=True, exist_ok=True)
        (target / "scheduler_config.json").write_text(json.dumps(self.objective.described, indent=2) + "\n")
