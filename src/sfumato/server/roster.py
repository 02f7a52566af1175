"""What a server can be asked to draw with: its models, and the other files that have names."""

from typing import Any

from sfumato.server.catalogue import Catalogue
from sfumato.server.problems import Problem
from sfumato.server.runner import Runner
from sfumato.server.values import ModelCard
from sfumato.server.views import file_of, model_of
from sfumato.weights.known import known
from sfumato.weights.registry import Kind


class Roster:
    """The part of a service that is about models."""

    catalogue: Catalogue
    runner: Runner

    def models(self) -> list[ModelCard]:
        """The models that can be named."""
        default = self.catalogue.default()
        return [
            model_of(each, card, default=each.name == default, loaded=each.name in self.runner.loaded)
            for each, card in self.catalogue.cards()
        ]

    def model(self, name: str) -> ModelCard:
        """One of them. Raises Problem 404."""
        for card in self.models():
            if card.name == name:
                return card
        raise Problem(404, "model.unknown", f"there is no model {name!r}")

    def named_files(self, kind: Kind) -> list[dict[str, Any]]:
        """What else of a kind can be named, and the size of its file in bytes."""
        return [file_of(each) for each in known(kind)]
