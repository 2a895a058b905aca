"""The server keeps to its own OpenAPI document, whatever is thrown at it."""

import pytest
from server_support import needs, serving

needs("schemathesis")

import schemathesis  # noqa: E402
from hypothesis import HealthCheck, Phase, settings  # noqa: E402

from flashrank_lite.server.app import create_app  # noqa: E402
from flashrank_lite.server.openapi import document  # noqa: E402
from flashrank_lite.server.settings import Settings  # noqa: E402

schema = schemathesis.openapi.from_dict(document(Settings()))


@pytest.fixture(scope="module")
def url():
    with serving(app=create_app()) as running:
        yield running.url


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_brings_a_server_error_or_an_undocumented_answer(case, url):
    response = case.call(base_url=url, timeout=600)
    assert response.status_code < 500, response.text
    case.validate_response(
        response,
        checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance,
        ],
    )
