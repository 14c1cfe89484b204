"""Other programs' names for vidtrain's options, for "did you mean": `trainer.learning_rate` is optimizer.lr."""

from __future__ import annotations

from collections.abc import Collection

from vidtrain.errors import did_you_mean
from vidtrain.models.settings import START_KEYS

# the option or group -> what others call it. Where a command lacks the first option, a later one with the name counts.
SYNONYMS: dict[str, str] = {
    "optimizer.lr": "learning_rate base_lr init_lr initial_lr lr0 start_lr",
    "optimizer.weight_decay": "wd decay l2 l2_reg",
    "optimizer.momentum": "sgd_momentum",
    "optimizer.betas": "adam_betas beta1 beta2",
    "optimizer": "optim opt optimiser",
    "schedule": "scheduler lr_scheduler lr_schedule",
    "schedule.warmup_epochs": "warmup warm_up warmup_steps warmup_iters num_warmup_epochs",
    "schedule.milestones": "steps lr_steps decay_epochs",
    "model": "arch architecture backbone net network model_name",
    "model.weights": "checkpoint_path ckpt ckpt_path load_from init_checkpoint finetune model_path weights",
    "model.pretrained": "pretrained use_pretrained",
    "data": "dataset dataset_name data_name",
    "data.root": "data_path data_dir dataset_path dataset_dir video_dir video_root path_to_data root_dir datadir",
    "data.val_fraction": "val_split val_ratio validation_split val_size",
    "data.test_fraction": "test_split test_ratio test_size",
    "data.split_seed": "data_seed",
    "trainer.epochs": "num_epochs n_epochs max_epochs total_epochs nb_epochs epoch max_epoch",
    "trainer.batch_size": "bs batch batchsize train_batch_size batch_size_per_gpu samples_per_gpu batch_size",
    "trainer.num_workers": "workers n_workers nw dataloader_workers num_threads workers_per_gpu num_worker num_workers",
    "trainer.devices": "gpus num_gpus n_gpus ngpus nproc nproc_per_node world_size num_devices",
    "trainer.device": "gpu accelerator device cuda",
    "trainer.precision": "amp use_amp fp16 bf16 half mixed_precision dtype",
    "trainer.clip_grad": "grad_clip clip_grad_norm gradient_clip_val max_grad_norm max_norm clip_norm",
    "trainer.accumulate": "accumulate_grad_batches grad_accum gradient_accumulation_steps accum_iter accum_steps",
    "trainer.patience": "early_stopping early_stop early_stopping_patience",
    "trainer.seed": "random_seed random_state manual_seed rng_seed seed",
    "task.label_smoothing": "smoothing smooth label_smoothing",
    "trainer.ema": "ema_decay model_ema model_ema_decay use_ema",
    "trainer.log_every": "log_interval log_every_n_steps print_freq log_freq logging_steps log_period",
    "trainer.val_every": "eval_every val_interval check_val_every_n_epoch eval_period eval_freq val_freq",
    "trainer.save_minutes": "save_every save_freq save_interval checkpoint_period save_steps",
    "trainer.async_save": "async_checkpoint async_checkpoints async_mode async_checkpointing",
    "trainer.keep_last": "save_total_limit max_keep_ckpts save_top_k",
    "trainer.strategy": "ddp fsdp hsdp parallel distributed",
    "trainer.sync_bn": "sync_batchnorm syncbn sync_bnorm",
    "trainer.max_batches": "limit_train_batches max_iters max_steps",
    "trainer.checkpoint_activations": "grad_checkpointing gradient_checkpointing use_checkpoint act_checkpoint with_cp",
    "trainer.deterministic": "cudnn_deterministic reproducible",
    "transform.size": "image_size img_size imgsz input_size crop_size resolution train_crop_size size",
    "transform.resize": "short_side short_side_size resize_size scale_size jitter_scales",
    "transform.flip": "hflip random_flip horizontal_flip flip_prob",
    "transform.policy": "aa auto_augment autoaugment rand_aug randaug augment augmentation",
    "transform.erasing": "reprob random_erasing erase_prob",
    "transform.colour": "color color_jitter colour_jitter jitter",
    "sampler.num_frames": "clip_len clip_length frames n_frames sequence_length seq_len num_segments num_frames",
    "sampler.stride": "frame_interval sampling_rate frame_stride frame_step step_between_clips tau temporal_stride",
    "sampler.fps": "frame_rate target_fps framerate video_fps",
    "eval.clips": "num_clips test_clips n_clips clips num_ensemble_views test_num_segment",
    "eval.crops": "num_crops test_crops n_crops three_crop num_spatial_crops test_num_crop",
    "eval.batch_size": "test_batch_size val_batch_size eval_batch_size batch_size bs batch batchsize",
    "run_dir": "output_dir out_dir save_dir log_dir logdir work_dir workdir project exp_dir save_path name output",
    "resume": "resume_from auto_resume resume_from_checkpoint",
    "logger": "loggers tracker report_to",
    "hook": "hooks callback callbacks custom_hooks",
    "decoder": "reader backend video_backend decoding_backend",
    "checkpoint": "model_path ckpt ckpt_path checkpoint_path load_from weights model_file",
    "input": "source video videos video_path file files path inputs",
    "top": "topk top_k k",
    "output": "output_dir out_dir save_dir out save_path out_file output_file result_dir",
    "batch_size": "bs batch batchsize batch_sizes",
    "num_workers": "workers n_workers nw num_threads jobs",
    "num_classes": "classes n_classes nb_classes nc",
    "hop": "window_stride clip_stride",
}
# no option at all, with the reason
_NONE = {
    **dict.fromkeys(
        ["num_classes", "classes", "n_classes", "nb_classes", "nc"],
        "; the number of classes comes from the data",
    ),
    "experiment": ": vidtrain train and data take one, here give the keys that it sets (data.root=...)",
}


def suggestion(key: str, allowed: Collection[str]) -> str:
    """' (did you mean optimizer.lr?)' for another program's name of an option, or for its last part alone; '' for none.

    Args:
        key: as the user wrote it, dotted or not.
        allowed: the dotted names of all options of the command.
    """
    word = key.rpartition(".")[2]
    options = [option for option, words in SYNONYMS.items() if word in words.split() and _is_there(option, allowed)]
    options.sort(key=lambda option: "." in option)  # the command's own before those of its groups
    same = [option for option in allowed if option != key and option.rpartition(".")[2] == word]
    if options or len(same) == 1:
        return f" (did you mean {(options or same)[0]}?)"
    if word in _NONE:
        return _NONE[word]
    return did_you_mean(key, same)


def _is_there(option: str, allowed: Collection[str]) -> bool:
    """An option, a group of options, or one that every model takes."""
    return (
        option in allowed
        or any(name.startswith(f"{option}.") for name in allowed)
        or (option in {f"model.{key}" for key in START_KEYS} and any(name.startswith("model.") for name in allowed))
    )
