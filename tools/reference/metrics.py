"""Every metric, from the module that creates them all."""

from prometheus_client.metrics import MetricWrapperBase

from reference.markdown import code, table
from reference.texts import texts
from toolbus_common.observability import metrics
from toolbus_common.observability.call_metrics import CallDurations

Described = MetricWrapperBase | CallDurations


def catalogue() -> list[Described]:
    """Return every metric, in the order of the module."""
    return [each for each in vars(metrics).values() if isinstance(each, Described)]


def exposed(metric: Described) -> str:
    """Return the name that Prometheus sees."""
    return f"{metric._name}_total" if metric._type == "counter" else str(metric._name)  # noqa: SLF001


def described() -> set[str]:
    """Return every name that texts/metrics.yaml must describe."""
    return set(map(exposed, catalogue()))


def generated() -> str:
    """Return one row for each metric; its service and meaning are hand-written."""
    result = texts("metrics")
    rows = []
    for metric in sorted(catalogue(), key=exposed):
        service, _, meaning = result[exposed(metric)].partition(": ")
        labels = ", ".join(map(code, metric._labelnames))  # noqa: SLF001
        rows.append((code(exposed(metric)), str(metric._type), labels, service, meaning))  # noqa: SLF001
    return table(("metric", "type", "labels", "service", "meaning"), rows)
