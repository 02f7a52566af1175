"""Every code of a problem that the native API answers or a job fails with: its status, and what it means.

The tests hold that no other code is used, and that `docs/errors.md` says the same.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A code's status (None: a job that failed has it, and no answer) and what it means, for people who meet it."""

    status: int | None
    meaning: str


CODES: dict[str, Code] = {
    # what was sent
    "body.json": Code(422, "the body is not JSON; the place is told"),
    "body.large": Code(413, "the body is larger than this path takes"),
    "body.slow": Code(408, "the body did not come in time"),
    "content_type": Code(415, "a form that another site's page could send unasked needs the header X-Requested-By"),
    "headers.large": Code(431, "too many header fields, or too large ones"),
    "request.form": Code(400, "the form cannot be read, or has too many parts"),
    "method": Code(405, "the path is there, the method is not"),
    "route.unknown": Code(404, "there is no such path"),
    "accept": Code(406, "none of the asked-for types can be answered"),
    "cursor": Code(422, "the cursor is none that was given here"),
    # who asks
    "host": Code(421, "the server is not called by this name; --allow-host gives it another"),
    "origin": Code(403, "another site's page may change nothing here"),
    "token": Code(401, "the token is missing or wrong"),
    "rate": Code(429, "too many requests at once; Retry-After says when to come back"),
    # the request
    "request": Code(422, "the request is wrong; no single field is to blame"),
    "request.FIELD": Code(422, "this field of the request is wrong, or cannot be honoured; `field` is its whole name"),
    "request.prompt": Code(422, "a prompt cannot be read; `field` says which"),
    "request.shape": Code(422, "the body has another shape than the schema"),
    "request.unsupported": Code(422, "it asks for something that sfumato does not have"),
    "request.state": Code(422, "the history is asked for a state that there is not"),
    "request.change": Code(422, "a queued job is changed by a priority, or by the job that it should come before"),
    "model.none": Code(409, "no model was named, and there is none"),
    "model.unknown": Code(404, "there is no model of this name"),
    "model.unread": Code(503, "the model is still being read; try again"),
    "model.unusable": Code(409, "the model's files cannot be drawn with"),
    "starting": Code(503, "the server is still starting; try again"),
    "stopping": Code(503, "the server is stopping; what waits is kept"),
    "idempotency.mismatch": Code(409, "this Idempotency-Key was used for another request"),
    # jobs
    "job.unknown": Code(404, "there is no such job"),
    "job.not_queued": Code(409, "only queued jobs can be moved"),
    "job.not_ended": Code(409, "only ended jobs can be tried again or forgotten"),
    "queue.full": Code(429, "so many jobs wait that no more are taken"),
    "cancelled": Code(409, "the job was cancelled before it was done"),
    # pictures
    "picture.empty": Code(422, "the body is empty where a picture should be"),
    "picture.type": Code(415, "the body is no PNG, JPEG or WebP picture"),
    "picture.unreadable": Code(422, "the picture is damaged, or its decoder gave up"),
    "picture.large": Code(413, "the picture has more pixels than are taken"),
    "picture.address": Code(422, "an address stands where a picture must be sent; none is fetched"),
    "picture.encoding": Code(422, "the picture is not base64"),
    "picture.missing": Code(404, "img2img was asked for without a picture"),
    "picture.unknown": Code(404, "there is no such picture"),
    "picture.gone": Code(410, "the picture's file is not there any more"),
    "upload.unknown": Code(404, "there is no upload of this name"),
    "upload.file": Code(422, "the form has no part `file` that is a file"),
    "busy": Code(503, "too many pictures are being read; try again"),
    "interrogate": Code(501, "there is no model that captions pictures"),
    # the machine
    "disk.full": Code(507, "there is no room on the disk; free some, nothing needs to be restarted"),
    "output.failed": Code(507, "a result could not be written"),
    "out_of_memory": Code(507, "the memory was not enough; smaller pictures need less"),
    "failed": Code(500, "it failed for the reason that is told"),
    "internal": Code(500, "something went wrong that should not; the server's log says more"),
    # jobs that were accepted and failed
    "worker_crashed": Code(None, "the worker died each time that it drew this; others went on"),
    "model.changed": Code(None, "the model's files are not those of when the job was accepted"),
    "file.changed": Code(None, "a LoRA's or another file is not the one of when the job was accepted"),
    "words.changed": Code(None, "wildcards or styles name another LoRA than when the job was accepted"),
}
