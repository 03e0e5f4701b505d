"""The jobs that are to be considered: in order, each once."""

from __future__ import annotations

from mumian_orchestrator.services.evaluation_queue import EvaluationQueue


def test_each_tenants_jobs_come_in_their_order_and_each_once() -> None:
    queue = EvaluationQueue()
    for job_id, tenant_id in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("a1", "a")):
        queue.add(job_id, tenant_id)
    assert (len(queue), list(queue.tenants())) == (3, ["a", "b"])
    assert [queue.pop("a"), queue.pop("a"), queue.pop("b")] == ["a1", "a2", "b1"]
    assert (len(queue), list(queue.tenants())) == (0, [])


def test_those_that_go_first_leave_their_lines_and_the_newest_of_them_lead() -> None:
    queue = EvaluationQueue()
    for job_id in ("a1", "a2", "a3"):
        queue.add(job_id, "a")
    queue.add_first(["a3"])
    queue.add_first(["a2", "a3"])
    queue.add("a2", "a")
    assert len(queue) == 3
    assert [queue.pop_first(), queue.pop_first(), queue.pop_first()] == ["a2", "a3", None]
    assert queue.pop("a") == "a1"
