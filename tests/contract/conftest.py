"""The contract's modules hold tests, so their asserts explain themselves like those of test modules."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "contract_adding",
    "contract_circumstances",
    "contract_claims",
    "contract_endings",
    "contract_facts",
    "contract_graphs",
    "contract_interventions",
    "contract_lists",
    "contract_order",
    "contract_parents",
)
