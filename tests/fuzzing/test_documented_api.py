"""schemathesis asks a live node what our OpenAPI document says: no fault, documented statuses, answers as described."""

import os
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.specs.openapi import checks

from tests.fuzzing import node

CHECKS: Final = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = int(os.environ.get("QUORATE_API_EXAMPLES", "1"))  # of each operation
SEED = int(os.environ.get("QUORATE_SEED", "6"))
LEFT_OUT: Final = (  # streams of JSON values, which the checks take for one, and calls that wait for somebody
    "/v3/maintenance/snapshot",
    "/v3/watch",
    "/v3/lease/keepalive",
    "/v3/election/observe",
    "/v3/election/campaign",
    "/v3/lock/lock",
)


@pytest.mark.timeout(400)
def test_the_node_answers_as_documented() -> None:
    failures: list[str] = []
    with node.world():
        schema = schemathesis.openapi.from_url(f"http://{node.live().node.endpoint}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()  # type: ignore[union-attr]  # the document is valid
            if operation.path in LEFT_OUT:
                continue
            try:
                _ask(operation)
            except (AssertionError, BaseExceptionGroup) as failure:
                failures.append(f"{operation.method} {operation.path}: {failure}")
            node.live().look()
    assert not failures, "\n".join(failures)


def _ask(operation: "schemathesis.APIOperation[Any, Any, Any, Any]") -> None:
    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def asked(case: "schemathesis.Case[Any]") -> None:
        case.call_and_validate(timeout=20, checks=CHECKS)

    asked()
