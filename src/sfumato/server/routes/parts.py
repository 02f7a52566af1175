"""What the routes share: the service, who asks, pages of a list, and the answers that say what is wrong."""

from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from sfumato.server.problems import Problem
from sfumato.server.service import Service
from sfumato.server.values import Value

Responses = dict[int | str, dict[str, Any]]


class ProblemBody(Value):
    """What is wrong (RFC 9457): `code` for programs, `detail` for people, `field` of a request, `hint` what to do."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    hint: str | None = None


_SCHEMA = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
_TOLD = {
    400: "Not to be understood",
    401: "The token is missing or wrong",
    403: "From another site's page",
    404: "There is no such thing",
    408: "The body did not come in time",
    409: "Not possible in this state",
    410: "No longer there",
    413: "Too large",
    415: "Another type of body is needed",
    421: "Called by a wrong name",
    422: "A wrong request; `field` says where",
    429: "Too much at once; see Retry-After",
    503: "Not now; see Retry-After",
    507: "No room on the disk",
}
PROBLEMS: Responses = {status: {"description": told, "content": _SCHEMA} for status, told in _TOLD.items()}


async def service_of(request: Request) -> Service:  # async, as `client_of`: else each is a turn in a thread
    """The service of the application that a request is for."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


async def client_of(
    request: Request,
    named: Annotated[
        str | None,
        Header(alias="X-Sfumato-Client", max_length=64, pattern=r"^[\x21-\x7e]*$", description="Whose job it is."),
    ] = None,
) -> str:
    """Who asks: the name that it gives itself, or its address. Jobs of different clients take turns."""
    return named or (request.client.host if request.client else "")


Asked = Annotated[Service, Depends(service_of)]
Client = Annotated[str, Depends(client_of)]
Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(max_length=20, pattern=r"^[0-9]+$", description="`next` of the page before.")]
Search = Annotated[str, Query(max_length=500, description="Words that must all occur.")]


def place(cursor: str | None) -> int | None:
    """Where a page begins. Raises Problem for a cursor that is none."""
    if cursor is None:
        return None
    if int(cursor) >= 2**63:
        raise Problem(422, "cursor", "the cursor is none that was given here", field="cursor")
    return int(cursor)
