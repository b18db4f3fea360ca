"""Stage 9: the adapter that a pretrained model was given, in peft's own layout.

    python -m steps.lm.export_adapter --model exp/llm --head llm --out exp/llm/adapter
    python -m steps.lm.export_adapter --model exp/mt --out exp/mt/adapter

`peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path), "exp/llm/adapter")` puts it onto the
language model that it was trained on (`AutoModelForSeq2SeqLM`: onto a translator with an encoder of its own). The
projector of a head is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from steps.model_folder import load_model_config, read_checkpoint
from steps.nets.llm_head import LanguageModelConfig, LlmConfig
from steps.nets.lora import adapted
from steps.nets.seq2seq import Seq2SeqConfig
from steps.translator_folder import is_translator, load_config
from utils.errors import UserError, nearest, run
from utils.files import atomic_path
from utils.options import Parser


class Adapted(NamedTuple):
    """What has an adapter: its section of the YAML, how its parameters' names begin, its task as peft calls it."""

    config: LanguageModelConfig | Seq2SeqConfig
    prefix: str
    task: str | None


def adapter(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of an adapter by peft's names, from a model's state with the adapted model at `prefix`."""
    found = {}
    for name, value in state.items():
        if name.startswith(prefix) and adapted(name) is not None:
            found["base_model.model." + name[len(prefix) :].replace(".default.", ".")] = value.contiguous()
    return found


def find_adapted(folder: Path, head: str | None) -> Adapted:
    """A translator's model, or that of a head; `UserError` where there is no such head, or no adapter."""
    if is_translator(folder):
        if head is not None:
            raise UserError(f"--head {head}: {folder} is a translator of text, which has no heads: leave it out.")
        translator = load_config(folder).translator
        if getattr(translator, "lora", None) is None:
            raise UserError(f"{folder}: its translator has no adapter (lora), there is nothing to export.")
        if isinstance(translator, Seq2SeqConfig):
            # peft's own class for such models (SEQ_2_SEQ_LM) fails with transformers 5, and the plain one does as much
            return Adapted(translator, "net.model.", None)
        return Adapted(translator, "net.head.llm.", "CAUSAL_LM")
    head, heads = head or "llm", load_model_config(folder).heads
    if head not in heads:
        raise UserError(f"--head: {folder} has no head '{head}'{nearest(head, heads)}; its heads: {', '.join(heads)}.")
    config = heads[head]
    if not isinstance(config, LlmConfig) or config.lora is None:
        raise UserError(f"--head {head}: heads.{head} of {folder} has no language model with an adapter (lora).")
    return Adapted(config, f"heads.{head}.llm.", "CAUSAL_LM")


def export(folder: Path, checkpoint: str, head: str | None, out: Path) -> int:
    """Write `adapter_model.safetensors` and `adapter_config.json`; the number of tensors."""
    from peft import LoraConfig

    config, prefix, task = find_adapted(folder, head)
    tensors = adapter(read_checkpoint(folder, checkpoint)[0], prefix)
    base = Path(config.path)
    about = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.targets),
        task_type=task,
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
    parser.add_argument("--head", help="of a model of speech, the head with the language model (llm)")
    parser.add_argument("--out", required=True, help="folder to write")
    args = parser.parse_args(argv)
    count = export(Path(args.model), args.checkpoint, args.head, Path(args.out))
    print(f"{args.out}: adapter of {count} tensors")
    return 0


if __name__ == "__main__":
    run(main)
