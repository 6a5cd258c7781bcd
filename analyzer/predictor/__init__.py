"""The runtime of a shipped predictor. It imports numpy and nothing else that is not Python's own, so that a server can carry it.

    from analyzer.predictor import Predictor
    predictor = Predictor.load("predictor.json")
    predictor.predict([2.1, 0.3, -1.0, 0.2])    # which options are in the set
    predictor.decide([2.1, 0.3, -1.0, 0.2])     # "answer", "ask again", "review" or "abstain"
"""

from analyzer.predictor.partial import Partial
from analyzer.predictor.runtime import Predictor

__all__ = ["Partial", "Predictor"]
