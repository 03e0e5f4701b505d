"""Decisions made again from the bytes that were recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.storage.v1.decision_pb2 import DecisionRecord
from mumian_core import Engine as NativeEngine
from mumian_core import Snapshot
from mumian_core.v1.engine_pb2 import Delta, PlaceRequest, Plan, UsedResources

from mumian_orchestrator.adapters.core.wire import refusals_named


@dataclass(frozen=True, slots=True)
class MadeAgain:
    """One decision as it was recorded, and whether it comes out the same again."""

    number: int  # of the question
    time_unix_ms: int
    request: PlaceRequest
    plan: Plan
    is_same: bool  # bit for bit


def made_again(
    records: Iterator[DecisionRecord], is_wanted: Callable[[PlaceRequest], bool]
) -> Iterator[MadeAgain]:
    """Those of the decisions that are wanted, in the order in which they were answered.

    Raises:
        EngineRefusedError: the engine, of another version perhaps, takes something recorded no more.
    """
    engine = NativeEngine()
    asked: dict[int, tuple[DecisionRecord, Snapshot]] = {}
    for record in records:
        match record.WhichOneof("what"):
            case "whole":
                engine = NativeEngine()
                if record.whole:
                    refusals_named(engine.apply, record.whole)
            case "delta":
                refusals_named(engine.apply, record.delta)
            case "question" if is_wanted(PlaceRequest.FromString(record.question)):
                asked[record.number] = record, engine.snapshot()
            case "answer" if found := asked.pop(record.answer.question_number, None):
                question, snapshot = found
                again = refusals_named(snapshot.place, question.question)
                yield MadeAgain(
                    question.number,
                    question.time_unix_ms,
                    PlaceRequest.FromString(question.question),
                    Plan.FromString(record.answer.plan),
                    again == record.answer.plan,
                )


def condensed(records: Iterator[DecisionRecord]) -> bytes:
    """One Delta that makes a new engine what it is after the records; empty if it is new."""
    sites, nodes = dict[str, Site](), dict[str, Node]()
    links, allocations = dict[tuple[str, str], Link](), dict[str, UsedResources]()
    generation = 0
    for record in records:
        if not record.whole and not record.delta:
            continue
        delta = Delta.FromString(record.whole or record.delta)
        generation = delta.base_generation + 1
        gone_sites, gone_nodes = set(delta.removed_site_ids), set(delta.removed_node_ids)
        gone_nodes |= {node.id for node in nodes.values() if node.site_id in gone_sites}
        # A node that changes its site leaves what it holds behind, as in the engine.
        moved = {n.id for n in delta.nodes if n.id in nodes and nodes[n.id].site_id != n.site_id}
        lost = gone_nodes | moved
        for allocation_id in delta.removed_allocation_ids:
            allocations.pop(allocation_id, None)
        if lost:
            allocations = {id_: used for id_, used in allocations.items() if used.node_id not in lost}
        sites = {id_: site for id_, site in sites.items() if id_ not in gone_sites} if gone_sites else sites
        links = (
            {key: link for key, link in links.items() if key[1] not in gone_sites} if gone_sites else links
        )
        for node_id in gone_nodes:
            nodes.pop(node_id, None)
        sites |= {site.id: site for site in delta.sites}
        nodes |= {node.id: node for node in delta.nodes}
        links |= {(link.from_id, link.to_site_id): link for link in delta.links}
        allocations |= {used.allocation_id: used for used in delta.allocations}
    if not generation:
        return b""
    whole = Delta(
        base_generation=generation - 1,
        reset=True,
        sites=sites.values(),
        nodes=nodes.values(),
        links=links.values(),
        allocations=allocations.values(),
    )
    return whole.SerializeToString()
