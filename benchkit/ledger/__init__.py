"""The ledger: trials in an Optuna storage, their files beside it, and a worker's hold on one."""

from benchkit.ledger.ledger import Ledger
from benchkit.ledger.readback import UntouchedLedger, read_results

__all__ = ["Ledger", "UntouchedLedger", "read_results"]
