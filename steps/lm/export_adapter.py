"""Stage 9: the adapter that a head's language model was given, in peft's own layout.

    python -m steps.lm.export_adapter --model exp/llm --head llm --out exp/llm/adapter

`peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path), "exp/llm/adapter")` puts it onto the
language model that it was trained on. The projector is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from steps.model_folder import load_model_config, read_checkpoint
from steps.nets.llm_head import LlmConfig
from utils.errors import UserError, nearest, run
from utils.files import atomic_path
from utils.options import Parser


def adapter(state: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """The tensors of a head's adapter by peft's names, from a model's state."""
    prefix, found = f"heads.{head}.llm.", {}
    for name, value in state.items():
        if name.startswith(prefix) and ".lora_" in name:
            found["base_model.model." + name[len(prefix) :].replace(".default.", ".")] = value.contiguous()
    return found


def head_config(folder: Path, head: str) -> LlmConfig:
    """The head's configuration; `UserError` where the model has no such head, or that has no adapter."""
    heads = load_model_config(folder).heads
    if head not in heads:
        raise UserError(f"--head: {folder} has no head '{head}'{nearest(head, heads)}; its heads: {', '.join(heads)}.")
    config = heads[head]
    if not isinstance(config, LlmConfig) or config.lora is None:
        raise UserError(f"--head {head}: heads.{head} of {folder} has no language model with an adapter (lora).")
    return config


def export(folder: Path, checkpoint: str, head: str, out: Path) -> int:
    """Write `adapter_model.safetensors` and `adapter_config.json`; the number of tensors."""
    from peft import LoraConfig

    config = head_config(folder, head)
    tensors = adapter(read_checkpoint(folder, checkpoint)[0], head)
    base = Path(config.path)
    about = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base.resolve()) if base.is_dir() else config.path,
        inference_mode=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "adapter_model.safetensors") as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    about.save_pretrained(str(out))
    return len(tensors)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.lm.export_adapter", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder, exp/<model>")
    parser.add_argument("--checkpoint", default="averaged.pt", help="a file of the model folder")
    parser.add_argument("--head", default="llm", help="the head with the language model")
    parser.add_argument("--out", required=True, help="folder to write")
    args = parser.parse_args(argv)
    count = export(Path(args.model), args.checkpoint, args.head, Path(args.out))
    print(f"{args.out}: adapter of {count} tensors")
    return 0


if __name__ == "__main__":
    run(main)
