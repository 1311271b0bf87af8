"""One epoch on graphs too large for one update: seconds, and the memory of the process."""

from __future__ import annotations

import multiprocessing
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytorch_lightning as pl
import torch
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data import GraphData
from pyg_avig.train import GraphTask
from pyg_avig.train.report import hush_lightning

SIZES = ((200_000, 2_000_000, False), (200_000, 2_000_000, True), (1_000_000, 10_000_000, True))
"""Nodes, edges, and whether nodes come in batches of sampled neighbours."""
CHANNELS, BLOCKS, NEIGHBORS, BATCH = 64, 2, 10, 1024
TRAIN, VAL = 0.1, 0.02  # Shares of the nodes; of ogbn-products it is 0.08 and 0.02.


class RandomGraph(InMemoryDataset):
    """Random edges; a node's class is the largest of the sums over its neighbours' features.

    Args:
        nodes: Number of nodes.
        edges: Number of edges.
    """

    def __init__(self, nodes: int, edges: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        edge_index = torch.randint(nodes, (2, edges), generator=generator)
        x = torch.randn(nodes, CHANNELS, generator=generator)
        sums = torch.zeros(nodes, 8).index_add(0, edge_index[1], x[edge_index[0], :8])
        place = torch.rand(nodes, generator=generator)
        data = Data(x=x, edge_index=edge_index, y=sums.argmax(-1))
        data.train_mask = place < TRAIN
        data.val_mask = (place >= TRAIN) & (place < TRAIN + VAL)
        data.test_mask = place >= TRAIN + VAL
        self.data, self.slices = self.collate([data])


def large_graphs(
    threads: int, sizes: tuple[tuple[int, int, bool], ...] = SIZES
) -> list[dict[str, Any]]:
    """Each size in a process of its own, as the highest memory of a process never falls.

    Args:
        threads: CPU threads.
        sizes: As ``SIZES``.
    """
    rows = []
    for nodes, edges, sampled in sizes:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            rows.append(process.submit(_epoch, nodes, edges, sampled, threads).result())
    return rows


def _epoch(nodes: int, edges: int, sampled: bool, threads: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    hush_lightning()
    torch.set_num_threads(threads)
    pl.seed_everything(0, verbose=False)
    data = GraphData(
        RandomGraph(nodes, edges),
        level="node",
        batch_size=BATCH,
        num_neighbors=[NEIGHBORS] * BLOCKS if sampled else None,
    )
    task = GraphTask(data.facts, {"channels": CHANNELS, "num_blocks": BLOCKS})
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    row: dict[str, Any] = {"nodes": nodes, "edges": edges, "sampled": sampled}
    row["before"] = _peak_bytes()
    start = time.perf_counter()
    trainer.fit(task, data)
    row |= {"train_seconds": time.perf_counter() - start, "updates": trainer.global_step}
    trainer.limit_val_batches = 1.0
    start = time.perf_counter()
    (metrics,) = trainer.validate(task, data, verbose=False)
    seconds = time.perf_counter() - start
    return row | {"val_seconds": seconds, "bytes": _peak_bytes(), "val_acc": metrics["val_acc"]}


def _peak_bytes() -> int:
    """The most memory that this process has had; Linux counts KiB."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    lines = [
        "| nodes | edges | batches | updates | training, s | validation, s | memory, GiB |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {row['nodes']:,} | {row['edges']:,} | "
        f"{f'{BATCH} nodes, neighbours' if row['sampled'] else 'whole graph'} | {row['updates']} | "
        f"{row['train_seconds']:.0f} | {row['val_seconds']:.0f} | {row['bytes'] / 2**30:.1f} |"
        for row in rows
    ]
    return lines
