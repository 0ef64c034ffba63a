"""What is measured, for Prometheus: the catalogue, the counting, and the samples of what stands.

Counted is what a batch has committed, never what it tried. No label holds anything a caller or a
provider can choose: routes, channels, words of our own tables.
"""

from gateway.metrics.catalogue import CATALOGUE, Metric
from gateway.metrics.meter import MeteredTally, PrometheusMeter
from gateway.metrics.sampling import Sampler, Standing
from gateway.metrics.shared import clear, folder_of, forget

__all__ = [
    "CATALOGUE",
    "MeteredTally",
    "Metric",
    "PrometheusMeter",
    "Sampler",
    "Standing",
    "clear",
    "folder_of",
    "forget",
]
