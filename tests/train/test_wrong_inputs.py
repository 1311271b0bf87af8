"""What a user may get wrong at the command line: each is one line and exit status 2."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data.trees import imagenet_tree
from PIL import Image
from safetensors.torch import save_file
from train.runs import options

from pyg_avig.train.cli import main

# Words behind those of a small training on digits, and what the line must say.
OF_MODEL = """
--model.lr=-1                                   lr must be above 0
--model.lr=0                                    lr must be above 0
--model.lr=1e10                                 lr must be above 0 and at most 100
--model.lr=.nan                                 lr must be
--model.lr=.inf                                 lr must be
--model.lr=fast                                 lr: expected float (got fast)
--model.lrr=1                                   lrr
--model.learning_rate=1                         learning_rate
--model.lr_batch_size=0                         lr_batch_size must be at least 1
--model.lr_batch_size=1.5                       lr_batch_size
--model.weight_decay=-0.1                       weight_decay must be at least 0
--model.layer_decay=-1                          layer_decay must be above 0
--model.layer_decay=0                           layer_decay must be above 0
--model.layer_decay=2                           layer_decay must be above 0 and at most 1
--model.beta_lr=-1                              beta_lr must be at least 0
--model.beta_bound=0.5                          beta_bound must be at least 1
--model.warmup_epochs=-1                        warmup_epochs must be at least 0
--model.warmup_epochs=1.5                       warmup_epochs: expected int
--model.warmup_lr=-1                            warmup_lr must be at least 0
--model.min_lr=-1                               min_lr must be at least 0
--model.opt=foo                                 opt must be an optimiser of timm
--model.opt=                                    opt must be an optimiser of timm
--model.opt_args={foo:1}                        opt_args
--model.opt_args={betas:3}                      opt_args {'betas': 3}
--model.opt_args={betas:[2,2]}                  opt_args {'betas': [2, 2]}
--model.opt_args={eps:-1}                       opt_args {'eps': -1}
--model.opt_args=3                              opt_args: expected dict
--model.sched=foo                               sched must be one of
--model.sched_args={foo:1}                      expected sched_args among
--model.sched_args=3                            sched_args: expected dict
--model.label_smoothing=2                       label_smoothing must be at least 0 and at most 1
--model.label_smoothing=-0.1                    label_smoothing must be at least 0
--model.mixup={foo:1}                           expected mixup as arguments of timm's Mixup
--model.mixup={mixup_alpha:big}                 expected mixup as arguments of timm's Mixup
--model.mixup={mixup_alpha:1,mode:foo}          mode of mixup must be
--model.mixup=1                                 mixup: expected dict
--model.name=attentionvig_xl                    name must be a model that timm knows
--model.name=                                   name must be a model that timm knows
--model.name=[a]                                name
--model.model_args={foo:1}                      expected model_args as arguments of
--model.swap_attention={foo:1}                  expected swap_attention as its arguments
--model.swap_attention={}                       expected a model with layers timm.layers.Attention
--model.swap_attention=1                        swap_attention: expected dict
--model.model_args={channels:[8]}               got
--model.model_args={channels:[0,8,8,8]}         got 0
--model.model_args={channels:[-8,8,8,8]}        got -8
--model.model_args={graph:foo}                  foo
--model.model_args={stem_strides:[0,1]}         got
--model.model_args={heads:0}                    expected model_args as arguments of
--model.model_args={heads:[0,1,1,1]}            got
--model.initial_weights=nowhere.safetensors     nowhere.safetensors: expected an exported model
--model.initial_weights=nowhere                 nowhere: expected an exported model
--model.freeze_beta=maybe                       freeze_beta: expected bool
--model.grad_checkpointing=3                    grad_checkpointing: expected bool
--model.distillation={name:foo}                 foo
--model.distillation={nome:resnet18}            nome
--model=Foo                                     model: expected
--model=torch.nn.Linear                         model:
--model=pyg_avig.train.GraphTask                GraphTask
"""
OF_DATA = """
--data.batch_size=0                             batch_size must be at least 1
--data.batch_size=-8                            batch_size must be at least 1
--data.batch_size=1                             at least 2 images in a training batch
--data.batch_size=many                          batch_size: expected int (got many)
--data.batch_size=1.5                           batch_size: expected int
--data.batch_size=null                          expected
--data.num_workers=-1                           num_workers must be at least 0
--data.num_workers=x                            num_workers: expected int
--data.image_size=0                             image_size must lie in 1 to 8192
--data.image_size=-32                           image_size must lie in 1 to 8192
--data.image_size=16                            at least 32
--data.image_size=big                           image_size: expected int
--data.limit=0                                  limit must be at least 1
--data.limit=-1                                 limit must be at least 1
--data.limit=1                                  at least 2 images in a training batch
--data.interpolation=foo                        interpolation
--data.root=here                                root
--data.augmentation={foo:1}                     create_transform
--data.augmentation={scale:3}                   create_transform
--data.augmentation={scale:[a,b]}               create_transform
--data.augmentation={auto_augment:foo}          create_transform
--data.augmentation={re_mode:foo,re_prob:1}     create_transform
--data.augmentation=[1]                         augmentation: expected dict
--data=Foo                                      data: expected
--data=torch.nn.Linear                          data:
--data=pyg_avig.data.Images                     root
"""
OF_TRAINER = """
--trainer.max_epochs=x                          trainer.max_epochs: expected int
--trainer.max_epochs=-7                         max_epochs
--trainer.max_steps=-5                          max_steps
--trainer.max_time=foo                          foo
--trainer.devices=0                             devices
--trainer.devices=-3                            devices
--trainer.devices=9999                          trainer.devices must be at most
--trainer.num_nodes=0                           num_nodes
--trainer.accelerator=foo                       foo
--trainer.accelerator=cuda                      accelerator
--trainer.strategy=foo                          foo
--trainer.precision=foo                         trainer.precision: expected
--trainer.precision=12                          12
--trainer.accumulate_grad_batches=0             accumulate_grad_batches must be at least 1
--trainer.accumulate_grad_batches=3             3 accumulated batches divide
--trainer.gradient_clip_val=-1                  gradient_clip_val must be at least 0
--trainer.gradient_clip_algorithm=foo           foo
--trainer.limit_train_batches=2.5               limit_train_batches
--trainer.limit_train_batches=0.01              batch
--trainer.limit_val_batches=-1                  limit_val_batches
--trainer.overfit_batches=5.5                   overfit_batches
--trainer.val_check_interval=99                 val_check_interval
--trainer.val_check_interval=0                  val_check_interval must be above 0
--trainer.check_val_every_n_epoch=0             check_val_every_n_epoch must be at least 1
--trainer.log_every_n_steps=-1                  log_every_n_steps must be at least 0
--trainer.num_sanity_val_steps=-5               num_sanity_val_steps must be at least -1
--trainer.profiler=foo                          profiler
--trainer.detect_anomaly=maybe                  trainer.detect_anomaly: expected bool
--trainer.enable_checkpointing=false            enable_checkpointing
--trainer.logger=foo                            trainer.logger: expected
--trainer.callbacks=Foo                         trainer.callbacks: expected
--trainer.callbacks+=Foo                        trainer.callbacks
--trainer.callbacks+=EarlyStopping              monitor
--trainer.callbacks+={class_path:EarlyStopping,init_args:{monitor:foo}}   got 'foo'
--trainer.callbacks+={class_path:EarlyStopping,init_args:{monitor:val_acc,mode:foo}}   mode
--trainer.callbacks+={class_path:ModelCheckpoint,init_args:{monitor:foo}}   got 'foo'
--trainer.callbacks+={class_path:ModelCheckpoint,init_args:{save_top_k:-3}}   save_top_k
--trainer.plugins=Foo                           trainer.plugins: expected
--trainer.foo=1                                 foo
--seed_everything=-1                            -1
--seed_everything=foo                           seed_everything: expected
--seed_everything=99999999999999                99999999999999
--foo=1                                         foo
--ckpt_path=nowhere.ckpt                        nowhere.ckpt: expected a checkpoint file
--ckpt_path=.                                   expected a checkpoint file
--ckpt_path=nowhere://a.ckpt                    nowhere://a.ckpt
--config=nowhere.yaml                           nowhere.yaml: expected --config
--config=.                                      expected a config (got a folder)
--config={foo                                   config: while parsing
"""
TABLE = [
    (word.replace(":", ": ").replace(": //", "://") if "{" in word else word, said.strip())
    for line in (OF_MODEL + OF_DATA + OF_TRAINER).strip().splitlines()
    for word, _, said in [line.partition("  ")]
    if line
]


@pytest.mark.filterwarnings("ignore")  # What dependencies say beside it.
@pytest.mark.parametrize(("word", "said"), TABLE, ids=[word for word, _ in TABLE])
def test_a_wrong_field_is_one_line(word, said, tmp_path, capsys):
    assert main(["fit", *options(tmp_path), word]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("pyg-avig: ")
    assert said in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def foreign(checkpoint, tmp_path_factory):
    """Files that are not what their name says, and some that are for something else."""
    folder = tmp_path_factory.mktemp("foreign")
    whole = Path(checkpoint).read_bytes()
    (folder / "text").write_text("hello\nworld")
    (folder / "empty").write_bytes(b"")
    (folder / "noise").write_bytes(np.random.default_rng(0).bytes(4096))
    (folder / "truncated").write_bytes(whole[: len(whole) // 2])
    (folder / "pickle").write_bytes(pickle.dumps({"state_dict": {}}))
    Image.new("RGB", (32, 32)).save(folder / "image", format="PNG")
    torch.save([1, 2], folder / "list")
    torch.save({"state_dict": {}}, folder / "weights")
    torch.save(
        {"state_dict": {}, "hyper_parameters": {"facts": {}, "model_args": {}}}, folder / "graphs"
    )
    torch.save(torch.nn.Linear(1, 1), folder / "object")
    save_file({"a": torch.zeros(1)}, folder / "tensors")
    return folder


NAMES = ("text", "empty", "noise", "truncated", "pickle", "image", "list", "weights", "object")
USES = {
    "test": ("test", "--config=digits/nano", "--ckpt_path={file}.ckpt"),
    "fit": ("fit", "--config=digits/nano", "--ckpt_path={file}.ckpt"),
    "predict": ("predict", "{file}.ckpt", "a.png"),
    "export": ("export", "{file}.ckpt", "{out}/a.safetensors"),
    "explore": ("explore", "{file}.ckpt", "a.png", "--out={out}/a.html"),
    "predict, exported": ("predict", "{file}.safetensors", "a.png"),
    "export, exported": ("export", "{file}.safetensors", "{out}/b.safetensors"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", [*NAMES, "tensors", "graphs", "nowhere"])
def test_a_foreign_file_is_one_line(name, use, foreign, tmp_path, capsys):
    words = USES[use]
    file = str(tmp_path / name)
    if name != "nowhere":
        ending = ".safetensors" if "exported" in use else ".ckpt"
        shutil.copy(foreign / name, file + ending)
    if words[0] == "fit":
        words += (f"--trainer.logger.init_args.save_dir={tmp_path}/runs",)
    status = main([word.format(file=file, out=tmp_path) for word in words])
    (*_, line) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith(f"pyg-avig: {file}")
    assert "weights_only" not in line
    assert "expected" in line
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] in (
        [],
        [".ckpt"],
        [".safetensors"],
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "{image}", "{checkpoint}"], "got an image; the checkpoint comes before"),
        (["predict", "{checkpoint}"], "expected image files (got none)"),
        (["predict", "{checkpoint}", "{image}", "--top=0"], "must be at least 1"),
        (["predict", "{checkpoint}", "{image}", "--top=-1"], "must be at least 1"),
        (["predict", "{checkpoint}", "{image}", "--top=x"], "top"),
        (["predict", "{checkpoint}", "{image}", "--batch_size=0"], "must be at least 1"),
        (["predict", "{checkpoint}", "{image}", "--batch_size=x"], "batch_size"),
        (["predict", "{checkpoint}", "{image}", "--format=xml"], "format"),
        (["predict", "{checkpoint}", "{image}", "--out=a"], "leave out --out"),
        (["predict", "{checkpoint}", "{image}", "--split=val"], "for --config and --split"),
        (["predict", "{checkpoint}", "--config=digits/nano"], "for --config and --split"),
        (["predict", "{checkpoint}", "{image}", "--foo=1"], "foo"),
        (["predict"], "checkpoint"),
        (["export", "{checkpoint}"], "out"),
        (["export", "{checkpoint}", "{out}/a.pdf"], "expected out as a file"),
        (["export", "{checkpoint}", "/dev/full/a.safetensors"], "/dev/full"),
        (["export", "{checkpoint}", "{image}/a.safetensors"], "a.png/a.safetensors: "),
        (["export", "{checkpoint}", "/proc/a.safetensors"], "/proc/a.safetensors"),
        (["explore", "{checkpoint}", "{image}", "--out=a.pdf"], "expected out as a page *.html"),
        (
            ["explore", "{checkpoint}", "nowhere.png", "--out={out}/a.html"],
            "expected an image file",
        ),
        (["explore", "{checkpoint}", "{image}", "--out={image}/a.html"], "a.png/a.html: "),
        (["explore", "{checkpoint}"], "images"),
        (["fit", "--model.initial_weights={checkpoint}", "{small}"], "`pyg-avig export"),
        (
            ["fit", "--config=digits/nano", "--ckpt_path=best", "{runs}"],
            "best.ckpt (there is none)",
        ),
        (["fit", "--config=digits/nano", "{in_image}"], "Not a directory"),
        (["fit", "--config=digits/nano", "{in_proc}"], "/proc"),
        (["test", "--config=digits/nano"], "add --ckpt_path"),
        (["validate", "--config=digits/nano"], "add --ckpt_path"),
        (["fly"], "fly"),
    ],
    ids=str,
)
def test_wrong_files_and_options(words, said, checkpoint, tmp_path, capsys):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    save_dir = "--trainer.logger.init_args.save_dir="
    known = {
        "{image}": str(tmp_path / "a.png"),
        "{checkpoint}": checkpoint,
        "{out}": str(tmp_path),
        "{small}": None,
        "{runs}": f"{save_dir}{tmp_path}/runs",
        "{in_image}": f"{save_dir}{tmp_path}/a.png/runs",
        "{in_proc}": f"{save_dir}/proc/runs",
    }
    found = []
    for word in words:
        if word == "{small}":
            found[1:1] = options(tmp_path / "runs")
            continue
        for key, value in known.items():
            word = word.replace(key, value or "")
        found.append(word)
    assert main(found) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("pyg-avig: ")
    assert said in line
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.png"]


IMAGES = {
    "nothing": lambda root: None,
    "no folder": shutil.rmtree,
    "images in no folder": lambda root: (
        imagenet_tree(root, 1, 1)
        and [path.rename(root / "train" / path.name) for path in (root / "train").rglob("*.JPEG")]
    ),
    "one class": lambda root: (
        imagenet_tree(root, 4, 2)
        and [shutil.rmtree(path) for path in sorted((root / "train").iterdir())[1:]]
    ),
    "no images": lambda root: (
        imagenet_tree(root, 1, 1) and [path.unlink() for path in root.rglob("*.JPEG")]
    ),
    "broken images": lambda root: (
        imagenet_tree(root, 4, 2)
        and [path.write_bytes(b"no image") for path in root.rglob("*.JPEG")]
    ),
    "one broken image": lambda root: (
        imagenet_tree(root, 4, 2)
        and next((root / "train").rglob("*.JPEG")).write_bytes(b"no image")
    ),
    "texts": lambda root: (
        imagenet_tree(root, 1, 1)
        and [path.rename(path.with_suffix(".txt")) for path in root.rglob("*.JPEG")]
    ),
    "a file": lambda root: root.rmdir() or root.write_text("a file"),
}


@pytest.mark.parametrize("data", ["OwnImages", "Images"])
@pytest.mark.parametrize("content", IMAGES)
def test_a_wrong_folder_of_images_is_one_line(content, data, tmp_path, capsys):
    root = tmp_path / "images"
    root.mkdir()
    IMAGES[content](root)
    words = ["--config=own_images", f"--data.class_path=pyg_avig.data.{data}"]
    words += [
        f"--data.init_args.root={root}",
        f"--trainer.logger.init_args.save_dir={tmp_path}/runs",
    ]
    words += ["--data.init_args.image_size=32", "--data.init_args.bad_share=0.0"]
    assert main(["fit", *words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("pyg-avig: ")
    assert "expected" in line
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("version_*"))


def test_there_are_two_hundred():
    rows = len(TABLE) + len(USES) * (len(NAMES) + 3) + 29 + 2 * len(IMAGES)
    assert rows >= 200
