"""The shipped configs of digit scenes, cut down to seconds."""

SMALL = "{stem_strides: [2, 2], channels: [8, 8, 8, 8], layer_scale: 1.0}"


def scene_options(task, folder, *more):
    """Options of `pyg-avig fit` for the task ``mask_rcnn`` or ``semantic_fpn``."""
    small = {
        "mask_rcnn": ["pyramid_channels=16", "box_features=32", "mask_channels=[16]"],
        "semantic_fpn": ["pyramid_channels=16", "segmentation_channels=32"],
    }[task]
    group = {"mask_rcnn": "detector_args", "semantic_fpn": "segmenter_args"}[task]
    return [
        f"--config=configs/digit_scenes/{task}.yaml",
        "--trainer.max_epochs=2",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--trainer.enable_model_summary=false",
        "--trainer.log_every_n_steps=1",
        "--data.init_args.batch_size=4",
        "--data.init_args.scenes=8",
        f"--model.init_args.model_args={SMALL}",
        *(f"--model.init_args.{group}.{option}" for option in small),
        *more,
    ]
