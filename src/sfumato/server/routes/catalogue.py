"""What there is to choose from: models, samplers, words; and what the server says of itself."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from sfumato.server.guard import COOKIE, session
from sfumato.server.problems import Problem
from sfumato.server.routes.parts import PROBLEMS, Asked
from sfumato.server.values import ModelCard, Value
from sfumato.server.vocabulary import Vocabulary, vocabulary
from sfumato.wording import shelf

router = APIRouter(tags=["catalogue"], responses=PROBLEMS)


class Models(Value):
    """The models that can be named."""

    models: list[ModelCard]


class Sampler(Value):
    """A sampler by its name and its title."""

    name: str
    title: str


class Samplers(Value):
    """What a request's `sampler` and `spacing` may be; other tools' names are understood, too."""

    samplers: list[Sampler]
    spacings: list[str]


class Prompt(Value):
    """A prompt to take apart."""

    prompt: Annotated[str, Field(max_length=100_000)]
    model: Annotated[str, Field(max_length=300)] | None = None


class Token(Value):
    """One token of a prompt and how strong it is; `chunk` counts from 0."""

    text: str
    id: int
    weight: float
    chunk: int


class Tokens(Value):
    """What becomes of a prompt; `cut` is what the model cannot take, `limit` the tokens of a chunk."""

    tokens: list[Token]
    chunks: int
    limit: int
    cut: str


class Style(Value):
    """Words that are put around a prompt: where it says {prompt}, or after it."""

    name: str
    prompt: str
    negative_prompt: str


class Styles(Value):
    """What a request's `styles` may name."""

    styles: list[Style]


class Secret(Value):
    """The server's token."""

    token: Annotated[str, Field(max_length=500)]


class SessionMade(Value):
    """Whether a token is needed at all."""

    needed: bool


@router.get("/models")
def models(service: Asked) -> Models:
    """The models."""
    return Models(models=service.models())


@router.get("/models/{name:path}")
def model(service: Asked, name: str) -> ModelCard:
    """One model."""
    return service.model(name)


@router.get("/loras")
def loras(service: Asked) -> dict[str, list[dict[str, Any]]]:
    """The LoRAs that can be named."""
    return {"loras": service.named_files("lora")}


@router.get("/embeddings")
def embeddings(service: Asked) -> dict[str, list[dict[str, Any]]]:
    """The embeddings that can be named."""
    return {"embeddings": service.named_files("embedding")}


@router.get("/vaes")
def vaes(service: Asked) -> dict[str, list[dict[str, Any]]]:
    """The autoencoders that can be named."""
    return {"vaes": service.named_files("vae")}


@router.get("/upscalers")
def upscalers(service: Asked) -> dict[str, list[dict[str, Any]]]:
    """The upscalers that can be named."""
    return {"upscalers": service.named_files("upscaler")}


@router.get("/styles")
def styles() -> Styles:
    """The styles that can be named, of our own styles.csv and of folders that were adopted."""
    return Styles(styles=[Style(**asdict(each)) for each in shelf().styles.values()])


@router.get("/samplers")
def samplers(service: Asked) -> Samplers:
    """The samplers and spacings."""
    facts = service.catalogue.samplers()
    return Samplers(samplers=[Sampler(**each) for each in facts["samplers"]], spacings=facts["spacings"])


@router.post("/tokens")
def tokens(service: Asked, body: Prompt) -> Tokens:
    """What becomes of a prompt."""
    found = service.catalogue.tokens(body.prompt, body.model)
    spelled = zip(found.tokens, found.ids, found.weights, found.places, strict=True)
    return Tokens(
        tokens=[Token(text=text.removesuffix("</w>"), id=id, weight=w, chunk=c) for text, id, w, c in spelled],
        chunks=len(found.chunks),
        limit=len(found.chunks[0].ids) - 2,
        cut=found.cut,
    )


@router.get("/vocabulary")
def words() -> Vocabulary:
    """The words that the embedded model knows."""
    return vocabulary()


@router.get("/fields")
def fields(request: Request) -> dict[str, Any]:
    """The JSON schema of a request: every field with its type, range, default and meaning."""
    from sfumato.server.schema_of_request import request_schema

    return request_schema()


@router.get("/system")
def system(service: Asked) -> dict[str, Any]:
    """The device, the precision, the version, the memory, the queue."""
    return service.system()


@router.post("/session")
def log_in(service: Asked, body: Secret, request: Request, response: Response) -> SessionMade:
    """Give the page its cookie, for the right token."""
    import hmac

    token = service.settings.token
    if token is None:
        return SessionMade(needed=False)
    if not hmac.compare_digest(body.token.encode(), token.encode()):
        raise Problem(401, "token", "that is not this server's token")
    response.set_cookie(
        COOKIE, session(token), httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return SessionMade(needed=True)
