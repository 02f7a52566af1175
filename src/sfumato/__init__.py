"""sfumato: Stable Diffusion as one package that trains it, runs it and proves it."""

__version__ = "0.1.0"
