"""The shipped digits config, cut down to seconds."""


def options(folder, *more):
    return [
        "--config=configs/digits/nano.yaml",
        "--trainer.max_epochs=2",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--trainer.enable_model_summary=false",
        "--trainer.log_every_n_steps=1",
        "--data.init_args.batch_size=8",
        "--data.init_args.limit=16",
        "--model.warmup_epochs=1",
        "--model.model_args={channels: [8, 8, 8, 8], head_hidden_size: 16}",
        *more,
    ]
