"""How the server is, for those who watch over it: without a token, because it says nothing about anybody."""

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sfumato.server.routes.parts import Asked
from sfumato.server.service import Service
from sfumato.server.values import Value

router = APIRouter(tags=["status"])


class Health(Value):
    """Whether the server answers; `worker` whether it could draw at once."""

    status: str
    worker: bool


@router.get("/health")
async def health(service: Asked) -> Health:
    """Answers while the server lives."""
    return Health(status="stopping" if service.draining else "ok", worker=service.runner.ready)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(service: Asked) -> Response:
    """Figures in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(service))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class Figures:
    """The server's figures, read when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> list[Metric]:
        """The figures."""
        told = self._service.system()
        states = GaugeMetricFamily("sfumato_jobs", "Jobs in the queue and the history, by state.", labels=["state"])
        for state, number in told["queue"].items():
            states.add_metric([state], number)
        memory = GaugeMetricFamily("sfumato_resident_bytes", "Memory of the processes.", labels=["process"])
        for process, size in told["memory"].items():
            if size is not None:
                memory.add_metric([process], size)
        return [
            states,
            memory,
            GaugeMetricFamily("sfumato_worker_ready", "Whether a worker is ready.", float(told["worker"]["ready"])),
            CounterMetricFamily("sfumato_worker_restarts", "Workers replaced.", float(told["worker"]["restarts"])),
            GaugeMetricFamily("sfumato_listeners", "Who listens to events.", float(told["listeners"])),
            GaugeMetricFamily("sfumato_disk_free_bytes", "Free space for pictures.", float(told["disk_free"])),
        ]
