"""Training data: pictures with captions from any of the sources that people have, as numbered samples."""

from sfumato.train.data.pictures import PictureSet
from sfumato.train.data.samples import LeftOut, Sampled, Samples, World, shown
from sfumato.train.data.sources import open_samples, read_source, say_left_out

__all__ = [
    "LeftOut",
    "PictureSet",
    "Sampled",
    "Samples",
    "World",
    "open_samples",
    "read_source",
    "say_left_out",
    "shown",
]
