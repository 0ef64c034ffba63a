"""A scrape as a test reads it."""

from prometheus_client.parser import text_string_to_metric_families
from rig import Rig

Samples = dict[tuple[str, ...], float]


def samples(text: str, name: str) -> Samples:
    """The samples of that name, by their labels' values in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


async def scraped(rig: Rig, name: str) -> Samples:
    """The same, from the gateway's own /metrics."""
    answer = await rig.http.get("/metrics")
    assert 200 == answer.status_code
    return samples(answer.text, name)
