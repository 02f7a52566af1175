"""How far the running job is, in A1111's words: for `/sdapi/v1/progress` and the page's `/internal/progress`."""

from collections.abc import Mapping
from typing import Any

from sfumato.server.dialects.a1111_answers import timestamp
from sfumato.server.dialects.encoded import encode_picture
from sfumato.server.values import Job

IDLE: dict[str, Any] = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}


def progress(job: Job | None, preview: bytes | None, *, halting: bool = False) -> dict[str, Any]:
    """What is told of a running job; of none, that nothing is to be done.

    progress = 0.01 + batches done / batches + the part of this one, at most 1: modules/api/api.py. Times in seconds.
    """
    if job is None or job.progress is None:
        return {
            "progress": 0.0,
            "eta_relative": 0.0,
            "state": dict(IDLE),
            "current_image": None,
            "textinfo": None,
            "current_task": None,
        }
    batches, done = counted(job)
    told = job.progress
    share = done / batches + (told.step / told.steps / batches if told.steps else 0.0)
    whole = min(0.01 + share, 1.0)
    return {
        "progress": whole,
        "eta_relative": told.elapsed / whole - told.elapsed,
        "state": IDLE
        | {
            "interrupted": halting,
            "job": f"Batch {done + 1} out of {batches}" if batches > 1 else "scripts_txt2img",
            "job_count": batches,
            "job_timestamp": timestamp(job.started or job.created),
            "job_no": done,
            "sampling_step": told.step,
            "sampling_steps": told.steps,
        },
        "current_image": encode_picture(preview) if preview else None,
        "textinfo": f"Loading {told.loading}" if told.loading else None,
        "current_task": job.id,
    }


def counted(job: Job) -> tuple[int, int]:
    """How many batches a job has, and how many of them are done."""
    batch = int(job.request.get("batch") or 1)
    assert job.progress is not None
    return -(-max(job.progress.pictures, 1) // batch), job.progress.picture // batch


def task(job: Job | None, body: Mapping[str, Any], preview: bytes | None) -> dict[str, Any]:
    """What `/internal/progress` says of one task: the job that was posted with `force_task_id`."""
    active = job is not None and job.state == "running"
    queued = job is not None and job.state == "queued"
    told = progress(job if active else None, None)
    live = bool(body.get("live_preview", True)) and preview is not None
    step = job.progress.step if active and job is not None and job.progress else -1
    fresh = live and step != body.get("id_live_preview", -1)
    return {
        "active": active,
        "queued": queued,
        "completed": job is not None and job.over,
        "progress": told["progress"] if active else None,
        "eta": told["eta_relative"] if active else None,
        "live_preview": f"data:image/png;base64,{encode_picture(preview)}" if fresh and preview else None,
        "id_live_preview": step if live else body.get("id_live_preview", -1),
        "textinfo": "Waiting..." if not active else told["textinfo"],
    }
