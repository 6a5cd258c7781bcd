"""The runtime of a deployed predictor. It imports only numpy and the standard library, so that a server needs nothing else.

from analyzer.predictor import Predictor
predictor = Predictor.load("predictor.json")
predictor.predict([2.1, 0.3, -1.0, 0.2])    # which options are in the prediction set
predictor.decide([2.1, 0.3, -1.0, 0.2])     # "answer", "ask again", "review" or "abstain"
"""

from analyzer.predictor.partial import Partial
from analyzer.predictor.runtime import Predictor

__all__ = ["Partial", "Predictor"]
