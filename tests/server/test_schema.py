"""The API does what its schema says, for whatever the schema allows and for much that it does not."""

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from servers import Running

# What the native API promises; streams never end, so they are not asked
ENDLESS = ("/events",)
SEED = 20_261_126
API = "/sfumato/v1"
MORE_THAN_A_SCHEMA = {
    ("POST", f"{API}/jobs"),  # names must be known, pictures handed in, fields fit each other
    ("POST", f"{API}/uploads"),  # the body must be a picture
    ("POST", f"{API}/read"),
    ("POST", f"{API}/preprocess"),  # the picture must be one that is here, the preprocessor have the options
    ("POST", f"{API}/tokens"),  # a prompt's weights must be numbers, a model's name known
    ("PATCH", f"{API}/jobs/{{id}}"),  # one of two fields
    ("GET", f"{API}/jobs"),  # a cursor below 2^63
    ("GET", f"{API}/pictures"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("schema") / "data")
    yield running
    assert running.stop() == 0


def test_the_schema_holds_for_some_requests(server: Running) -> None:
    ask(server, examples=2)


@pytest.mark.slow
def test_the_schema_holds_for_five_hundred_requests_of_every_kind(server: Running) -> None:
    """SFUMATO_TEST_EXAMPLES is another number of requests."""
    ask(server, examples=int(os.environ.get("SFUMATO_TEST_EXAMPLES", 500)))


def ask(server: Running, examples: int) -> None:
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json", timeout=60)
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation is None or operation.path.endswith(ENDLESS) or not operation.path.startswith("/sfumato/"):
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            asked += one(operation, mode, examples)
    assert asked > 30 * examples


def one(operation: Any, mode: GenerationMode, examples: int) -> int:
    count = 0

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        nonlocal count
        count += 1
        response = case.call(timeout=60)
        case.validate_response(response, excluded_checks=excluded(operation, response))

    try:
        run()
    except hypothesis.errors.Unsatisfiable:  # nothing wrong can be sent where nothing is asked
        return 0
    return count


def excluded(operation: Any, response: Any) -> list[Any]:
    """Checks that do not fit: where more is asked than a schema can say, it may refuse what the schema allows.

    That a body which is too large for the path is refused before it is read is a refusal, too.
    """
    more = (operation.method.upper(), operation.path) in MORE_THAN_A_SCHEMA
    return [positive_data_acceptance] * more + [negative_data_rejection] * (response.status_code == 413)
