"""What every `TaskStore` promises. A backend passes by inheriting this class, with three fixtures of its own:

- `make_store(**options)`: a new, empty store each time;
- `store`: one of them;
- `front_end`: writes rows of `store` with plain SQL (contract_rows.FrontEnd).
"""

from __future__ import annotations

from contract_adding import AddingContract
from contract_circumstances import CircumstancesContract
from contract_claims import ClaimContract
from contract_endings import EndingContract
from contract_facts import FactsContract
from contract_graphs import GraphContract
from contract_interventions import InterventionContract
from contract_lists import ListContract
from contract_order import OrderContract
from contract_parents import ParentContract
from contract_previews import PreviewContract


class StoreContract(
    AddingContract,
    ClaimContract,
    OrderContract,
    CircumstancesContract,
    EndingContract,
    FactsContract,
    ParentContract,
    GraphContract,
    InterventionContract,
    ListContract,
    PreviewContract,
):
    """All of it."""
