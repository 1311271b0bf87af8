"""`python -m benchmarks NAME`: a table, and JSON.

NAME is ops, layer, roofline, growth, models, loader, serving, sag_vit, seeds, accuracy,
images, dense, attention, small_graphs or large_graphs; `tables` writes what they measured
into the pages.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
import yaml
from jsonargparse import auto_cli

from benchmarks import accuracy as accuracy_module
from benchmarks import attention as attention_module
from benchmarks import degraded as degraded_module
from benchmarks import dense as dense_module
from benchmarks import growth as growth_module
from benchmarks import images as images_module
from benchmarks import large_graphs as large_graphs_module
from benchmarks import loader as loader_module
from benchmarks import models as models_module
from benchmarks import ops as ops_module
from benchmarks import roofline as roofline_module
from benchmarks import sag_vit as sag_vit_module
from benchmarks import seeds as seeds_module
from benchmarks import serving as serving_module
from benchmarks import small_graphs as small_graphs_module
from benchmarks import tables as tables_module
from benchmarks import trainings as trainings_module
from benchmarks.timing import caption, environment, save

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def ops(device: str = "cpu", threads: int = 2, dtype: str = "fp32", repeats: int = 9) -> None:
    """The operator on lattices; on the CPU on each instruction set, and without kernels.

    Args:
        device: cpu or cuda.
        threads: CPU threads.
        dtype: fp32, bf16 or fp16.
        repeats: Calls of each rival; the median counts.
    """
    where = _begin(device, threads)
    rows = ops_module.lattice(where, DTYPES[dtype], repeats)
    print("\nThe operator on the lattices of AttentionViG-S, batch 16")
    print("\n".join([caption(where), "", *ops_module.report(rows)]))
    name = f"ops-{where.type}-{dtype}-threads-{threads}"
    print(f"\nwritten: {save(name, where, rows)}")


def layer(device: str = "cpu", threads: int = 2, dtype: str = "fp32", repeats: int = 3) -> None:
    """The whole layer on a sparse graph; on the CPU on each instruction set, and without kernels.

    Args:
        device: cpu or cuda.
        threads: CPU threads.
        dtype: fp32, bf16 or fp16.
        repeats: Calls of each rival; the median counts.
    """
    where = _begin(device, threads)
    rows = ops_module.sparse(where, DTYPES[dtype], repeats)
    print("\nThe whole layer on a random graph, 128 channels")
    print("\n".join([caption(where), "", *ops_module.report(rows)]))
    name = f"layer-{where.type}-{dtype}-threads-{threads}"
    print(f"\nwritten: {save(name, where, rows)}")


def roofline(
    device: str | None = None, threads: int = 2, dtype: str = "fp32", repeats: int = 9
) -> None:
    """The bytes that the operator's products must move, computed; on a device their time beside it.

    Args:
        device: cpu or cuda, to measure; by default nothing is.
        threads: CPU threads.
        dtype: fp32, bf16 or fp16, of what is measured.
        repeats: Calls of each product; the median counts.
    """
    print("Bytes that the products must move, computed and not measured\n")
    print("\n".join(roofline_module.report(roofline_module.on_paper())))
    if device is not None:
        where = _begin(device, threads)
        rows = roofline_module.measured(where, DTYPES[dtype], repeats)
        print("\nThe products, measured")
        print("\n".join([caption(where), "", *roofline_module.report_measured(rows)]))
        print(f"\nwritten: {save(f'roofline-{where.type}-{dtype}', where, rows)}")


def growth(device: str = "cpu", threads: int = 2, dtype: str = "fp32", repeats: int = 5) -> None:
    """How the operator's cost grows with the side of the image, the edges and the channels.

    Args:
        device: cpu or cuda.
        threads: CPU threads.
        dtype: fp32, bf16 or fp16.
        repeats: Calls; the median counts.
    """
    where = _begin(device, threads)
    rows = growth_module.growth(where, DTYPES[dtype], repeats)
    print("\nForward plus backward, one head\n")
    print("\n".join(growth_module.report(rows)))
    print(f"\nwritten: {save(f'growth-{where.type}-{dtype}', where, rows)}")


def models(
    device: str = "cpu",
    threads: int = 2,
    dtype: str = "fp32",
    repeats: int = 5,
    batch_size: int = 8,
    names: tuple[str, ...] = ("attentionvig_s", "convnextv2_pico", "repvit_m1_1"),
    dense_names: tuple[str, ...] = ("attentionvig_s", "resnet18", "repvit_m1_1"),
    dense_sizes: tuple[tuple[int, int], ...] = ((800, 1333), (512, 512)),
    num_workers: int | None = None,
) -> None:
    """Inference and training: classifiers at 224 x 224, features at the sizes of dense tasks.

    Args:
        device: cpu or cuda.
        threads: CPU threads.
        dtype: fp32, bf16 or fp16.
        repeats: Calls of each rival; the median counts.
        batch_size: Images in a batch.
        names: Models of timm's registry; the first is compared with the others.
        dense_names: The same for the features.
        dense_sizes: Heights and widths of the images that features are taken of, one at a time.
        num_workers: Processes of a loader; with it, training steps wait for its images, and the
            share of the time that they wait is measured too.
    """
    where = _begin(device, threads)
    rows = models_module.models(where, DTYPES[dtype], repeats, list(names), batch_size)
    print(f"\nAt 224 x 224, batch {batch_size}\n")
    print("\n".join(models_module.report(rows)))
    dense_rows = models_module.features(
        where, DTYPES[dtype], repeats, list(dense_names), dense_sizes
    )
    print("\nFeatures at strides 4 to 32, one image\n")
    print("\n".join(models_module.report(dense_rows)))
    rows += dense_rows
    if num_workers is not None:
        fed = models_module.fed(where, DTYPES[dtype], list(names), batch_size, num_workers)
        print(f"\nTraining steps on what {num_workers} workers decode and augment\n")
        print("\n".join(models_module.report_fed(fed)))
        rows += fed
    print(f"\nwritten: {save(f'models-{where.type}-{dtype}', where, rows)}")


def loader(repeats: int = 15, batch_size: int = 32) -> None:
    """Images as graphs against images as tensors, from JPEG files to a batch, in one process.

    Args:
        repeats: Batches of each; the median counts.
        batch_size: Images in a batch.
    """
    where = _begin("cpu", threads=1)
    rows = loader_module.loader(repeats, batch_size)
    print("\n" + "\n".join(loader_module.report(rows)))
    print(f"\nwritten: {save('loader', where, rows)}")


def serving(
    checkpoints: list[str], repeats: int = 15, batch_size: int = 64, threads: int = 1
) -> None:
    """Accuracy, size and speed of classifiers in each form of export.

    Args:
        checkpoints: Checkpoints in the folders of their runs.
        repeats: Calls of each form; the median counts.
        batch_size: Images in a call.
        threads: CPU threads.
    """
    where = _begin("cpu", threads)
    rows = [row for c in checkpoints for row in serving_module.serving(c, repeats, batch_size)]
    print("\n".join(["", caption(where), "", *serving_module.report(rows)]))
    print(f"\nwritten: {save('serving-cpu', where, rows)}")


def sag_vit(
    device: str = "cpu",
    threads: int = 2,
    repeats: int = 9,
    batch_size: int = 16,
    sides: tuple[int, ...] = (224, 448),
) -> None:
    """SAG-ViT with its graph built once a size, against one built in Python for each image.

    Args:
        device: cpu or cuda.
        threads: CPU threads.
        repeats: Batches of each; the median counts.
        batch_size: Images in a batch.
        sides: Heights and widths of the images.
    """
    where = _begin(device, threads)
    rows = sag_vit_module.sag_vit(where, repeats, batch_size, sides)
    print("\n" + "\n".join(sag_vit_module.report(rows)))
    print(f"\nwritten: {save(f'sag-vit-{where.type}', where, rows)}")


def seeds(name: str, configs: list[str], number: int = 3, options: list[str] | None = None) -> None:
    """Train each config with several seeds; mean and spread of the test accuracy.

    Args:
        name: Name of the results.
        configs: Files for `pyg-avig fit`.
        number: Number of seeds.
        options: Further options of `pyg-avig fit`, for all of them.
    """
    rows = seeds_module.seeds(configs, number, options or [])
    print("\n" + "\n".join(seeds_module.report(rows)))
    print(f"\nwritten: {save(name, torch.device('cpu'), rows)}")


def accuracy(
    domain: str,
    name: str | None = None,
    root: str | None = None,
    number: int = 5,
    rivals: list[str] | None = None,
    max_epochs: int | None = None,
    metrics: list[str] | None = None,
    data: str = "{}",
    model: str = "{}",
    on_degraded: bool = False,
    threads: int = 2,
) -> None:
    """Cross-attention against other aggregations, in the same model with the same budget.

    Runs that the results have already are not run again.

    Args:
        domain: Folder of the config under configs/, such as pbmc68k.
        name: Name of the results; by default the domain, and what is not as in its config.
        root: Folder of the data set, in place of the config's.
        number: Number of seeds; where the data are dealt into folds, of folds.
        rivals: Some of the aggregations; by default all.
        max_epochs: In place of the config's.
        metrics: Columns of the table, such as acc; by default all that the model logs.
        data: Arguments of the data in place of the config's, in YAML, such as {batch_size: 8}.
        model: The same of the model, such as {model_args: {channels: 32}}.
        on_degraded: Replace 10, 30 and 50 per cent of the edges by random ones, too; the first of
            the metrics is shown.
        threads: CPU threads.
    """
    _begin("cpu", threads)
    place = None if root is None else {"dataset": {"init_args": {"root": root}}}
    budget = "" if max_epochs is None else f"-{max_epochs}-epochs"
    budget += "-degraded" * on_degraded
    rows = trainings_module.trainings(
        f"accuracy-{name or domain + budget}",
        f"configs/{domain}/vig.yaml",
        number,
        accuracy_module.changes(rivals or accuracy_module.RIVALS, on_degraded),
        _changes(max_epochs, data, model),
        None if place is None else {"data": {"init_args": place}},
    )
    if on_degraded:
        report = degraded_module.report(rows, "aggregation", (metrics or ["acc"])[0])
    else:
        report = trainings_module.report(rows, "aggregation", metrics)
    print("\n" + "\n".join(report))


def images(
    study: Literal["graphs", "degraded", "attention"],
    number: int = 3,
    max_epochs: int | None = None,
    limit: int | None = None,
    threads: int = 2,
) -> None:
    """Graphs or attentions in the same model of Fashion-MNIST, with the same budget and seeds.

    Runs that the results have already are not run again.

    Args:
        study: graphs (those of images), degraded (edges replaced by random ones) or attention (that
            of a ViT).
        number: Number of seeds.
        max_epochs: In place of the config's.
        limit: Images to train on, in place of the config's.
        threads: CPU threads.
    """
    _begin("cpu", threads)
    rows = trainings_module.trainings(
        f"image-{study}",
        images_module.CONFIGS[study],
        number,
        images_module.rivals(study),
        {
            "trainer": {"max_epochs": max_epochs} if max_epochs else {},
            "data": {"init_args": {"limit": limit} if limit else {}},
        },
    )
    print("\n" + "\n".join(images_module.report(rows, study)))


def dense(
    name: str,
    recipe: str,
    root: str | None = None,
    number: int = 3,
    rivals: list[str] | None = None,
    max_epochs: int | None = None,
    data: str = "{}",
    model: str = "{}",
    threads: int = 2,
) -> None:
    """Backbones in the same detector or segmenter, from scratch, with the same budget and seeds.

    Runs that the results have already are not run again.

    Args:
        name: Name of the results.
        recipe: A config for `pyg-avig fit` with a Detector or a Segmenter.
        root: Folder of the data, in place of the recipe's.
        number: Number of seeds.
        rivals: Names of timm, "attentionvig_nano, softmax" or "attentionvig_s, softmax".
        max_epochs: In place of the recipe's.
        data: Arguments of the data in place of the recipe's, in YAML, such as {test_split: test}.
        model: The same of the model, such as {detector_args: {min_size: 128}}.
        threads: CPU threads.
    """
    _begin("cpu", threads)
    names = rivals or ["attentionvig_nano", "attentionvig_nano, softmax", "resnet18"]
    rows = trainings_module.trainings(
        f"dense-{name}",
        recipe,
        number,
        {rival: dense_module.change(rival) for rival in names},
        _changes(max_epochs, data, model),
        None if root is None else {"data": {"init_args": {"root": root}}},
    )
    print("\n" + "\n".join(trainings_module.report(rows, "backbone")))


def large_graphs(threads: int = 2) -> None:
    """An epoch on random graphs of up to a million nodes, whole or by sampled neighbours.

    Args:
        threads: CPU threads.
    """
    where = _begin("cpu", threads)
    rows = large_graphs_module.large_graphs(threads)
    print("\n" + "\n".join(large_graphs_module.report(rows)))
    print(f"\nwritten: {save('large-graphs-cpu', where, rows)}")


def small_graphs(
    root: str | None = None,
    number: int = 8,
    rivals: list[str] | None = None,
    epochs: int = 200,
    threads: int = 1,
) -> None:
    """Layers in a plain model of two, on graphs with few labels: which options of a layer serve.

    Args:
        root: Folder of PyG's Planetoid, for Cora and CiteSeer; without it Zachary's club.
        number: Number of seeds.
        rivals: Some of the layers; by default all.
        epochs: Updates of a training.
        threads: CPU threads.
    """
    where = _begin("cpu", threads)
    names = rivals or list(small_graphs_module.RIVALS)
    rows = small_graphs_module.small_graphs(root, number, names, epochs)
    print("\n" + "\n".join(small_graphs_module.report(rows)))
    graphs = "citations" if root else "karate"
    print(f"\nwritten: {save(f'small-graphs-{graphs}', where, rows)}")


def attention(domain: str = "digits", number: int = 5, threads: int = 2) -> None:
    """Does attention say anything? Predictions as edges go, by weight, gradient and chance.

    Args:
        domain: digits or freesolv.
        number: Number of seeds.
        threads: CPU threads.
    """
    where = _begin("cpu", threads)
    rows = attention_module.attention(domain, number)
    print(f"\nChange of the {attention_module.DOMAINS[domain][1]}")
    print("\n".join(["", *attention_module.report(rows)]))
    print(f"\nwritten: {save(f'attention-{domain}', where, rows)}")


def tables() -> None:
    """Write the tables of the pages anew, from the results that they name."""
    for page in tables_module.tables():
        print(f"written: {page}")


def _changes(max_epochs: int | None, data: str, model: str) -> dict[str, Any]:
    return {
        "trainer": {"max_epochs": max_epochs} if max_epochs else {},
        "model": {"init_args": yaml.safe_load(model)},
        "data": {"init_args": yaml.safe_load(data)},
    }


def _begin(device: str, threads: int) -> torch.device:
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"device {device}: torch {torch.__version__} sees no GPU here")
    print(environment(where))
    return where


def main(args: list[str] | None = None) -> None:
    """Run a command."""
    commands: dict[str, Any] = {
        "ops": ops,
        "layer": layer,
        "roofline": roofline,
        "growth": growth,
        "models": models,
        "loader": loader,
        "serving": serving,
        "sag_vit": sag_vit,
        "seeds": seeds,
        "accuracy": accuracy,
        "dense": dense,
        "attention": attention,
        "small_graphs": small_graphs,
        "images": images,
        "large_graphs": large_graphs,
        "tables": tables,
    }
    auto_cli(commands, as_positional=False, args=args)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=r".torch\.jit\.", category=FutureWarning)
    main()
