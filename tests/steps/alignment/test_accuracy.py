"""A small CTC model learns a voice of espeak-ng, which tells when it says what: words are found within 40 ms."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import soundfile
import torch
import yaml
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from steps.align import main
from steps.lang.tokenizer import Tokenizer
from steps.nets.model import Model, ModelConfig
from steps.objectives.ctc import ctc_loss
from steps.prepare.audio import compute_features
from steps.prepare.config import FeatureConfig
from steps.prepare.dataset import pad_features, pad_targets
from tests.steps.espeak import Spoken, speak
from utils.checkpoint import save_checkpoint

# Spanish, with a letter for each sound
WORDS = "mano pelo lima tapa foco gato sopa nube rana bota dedo muro pino vela tomate patata semana fino lobo camino"
WORDS = [*WORDS.split(), "luna", "sal", "sol", "pan", "tren", "mes"]
RATE, TRAINING, STEPS, BATCH, RATE_OF_LEARNING = 16000, 300, 400, 16, 3e-3
CONFIG = {
    "encoder": {
        **{"name": "stored", "downsample": 2, "layers": 2, "dim": 64},
        **{"heads": 2, "feedforward_dim": 128, "dropout": 0.0},
    },
    "heads": {"ctc": {"target": "text", "lang": "unused", "dropout": 0.0}},
    "feature_dim": 80,
}


def sentences(count: int, seed: int) -> list[Spoken]:
    rng = random.Random(seed)
    spoken = [speak(" ".join(rng.choices(WORDS, k=rng.randint(3, 6))), "es") for _ in range(count)]
    return [one.at(RATE) for one in spoken]


def train(model: Model, tokenizer: Tokenizer) -> None:
    """CTC alone, from nothing."""
    spoken = sentences(TRAINING, seed=1)
    features = [compute_features(one.samples, FeatureConfig()) for one in spoken]
    tokens = [tokenizer.encode(one.text) for one in spoken]
    rng, optimizer = random.Random(2), torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98))
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE_OF_LEARNING * min(1.0, (step + 1) / 30) * max(0.02, 1 - step / STEPS)
        batch = rng.sample(range(len(spoken)), BATCH)
        encoded, targets = (
            model.encode(*pad_features([features[i] for i in batch])),
            pad_targets([tokens[i] for i in batch]),
        )
        log_probs = model.heads["ctc"].log_probs(encoded.out)
        loss = ctc_loss(log_probs, encoded.lens, targets.tokens, targets.lens, "torch").sum() / encoded.lens.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder."""
    folder = tmp_path_factory.mktemp("exp") / "voice"
    lang = folder / "lang" / "ctc"
    lang.mkdir(parents=True)
    tokens = ["<blk>", "<sos/eos>", "<unk>", "▁", *sorted(set("".join(WORDS)))]
    (lang / "tokens.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(tokens)), "utf-8")
    (lang / "lang.json").write_text('{"type": "char", "languages": ["es"], "tags": false}', "utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), "utf-8")
    (folder / "features.yaml").write_text(yaml.safe_dump(FeatureConfig().model_dump(mode="json")), "utf-8")
    tokenizer = Tokenizer.load(lang)
    torch.manual_seed(0)
    net = Model(ModelConfig.model_validate(CONFIG), {"ctc": tokenizer.vocab_size})
    train(net, tokenizer)
    save_checkpoint(folder / "averaged.pt", {"model": net.state_dict()})
    return folder


def distances(found, told: list[tuple[str, float, float]]) -> list[tuple[float, float]]:
    """How far each word's start and end are from the truth."""
    assert [word.symbol for word in found] == [word for word, *_ in told]
    return [(abs(word.start - start), abs(word.end - end)) for word, (_, start, end) in zip(found, told, strict=True)]


def align(model, out, *options) -> CutSet:
    assert main(["--model", str(model), "--device", "cpu", "--out", str(out), *map(str, options)]) == 0
    return CutSet.from_file(out / "cuts.jsonl.gz")


def within(pairs: list[tuple[float, float]]) -> np.ndarray:
    """The shares of starts and of ends that are within 40 ms."""
    return (np.array(pairs) <= 0.04).mean(axis=0)


def test_words_are_within_40_ms(model, tmp_path):
    """Sentences that the model was not trained on."""
    spoken, cuts = sentences(80, seed=7), []
    for number, one in enumerate(spoken):
        path, name = tmp_path / f"{number}.wav", f"{number:02d}"
        soundfile.write(path, one.samples, RATE)
        recording = Recording.from_file(path, recording_id=name)
        segment = SupervisionSegment(name, name, 0.0, recording.duration, text=one.text, language="es")
        cuts.append(MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[segment]))
    (tmp_path / "data").mkdir()
    CutSet.from_cuts(cuts).to_file(tmp_path / "data" / "cuts.jsonl.gz")
    (tmp_path / "data" / "features.yaml").write_text((model / "features.yaml").read_text())
    found = align(model, tmp_path / "out", "--cuts", tmp_path / "data" / "cuts.jsonl.gz")
    pairs = [
        pair
        for cut, one in zip(found, spoken, strict=True)
        for pair in distances(cut.supervisions[0].alignment["word"], one.words)
    ]
    starts, ends = within(pairs)
    assert len(pairs) > 300 and starts >= 0.95 and ends >= 0.95


def test_a_long_recording_with_other_speech_and_other_text(model, tmp_path):
    """Forty sentences on end: the text lacks the tenth, and has one that is not said."""
    spoken = sentences(39, seed=8)
    spoken.insert(10, speak("muro fino pelo dedo patata semana foco rana", "es").at(RATE))
    samples = np.concatenate([one.samples for one in spoken])
    offsets = np.cumsum([0, *(len(one.samples) for one in spoken)]) / RATE
    soundfile.write(tmp_path / "talk.flac", samples, RATE)
    unsaid = "camino tomate patata semana camino tomate"
    lines = [one.text for one in spoken]
    lines[20:20] = [unsaid]
    del lines[10]
    (tmp_path / "talk.txt").write_text("\n".join(lines), "utf-8")
    options = ["--recording", tmp_path / "talk.flac", "--text", tmp_path / "talk.txt", "--chunk", 10]
    (cut,) = align(model, tmp_path / "out", *options)
    listed = [json.loads(line) for line in (tmp_path / "out" / "doubtful.jsonl").read_text("utf-8").splitlines()]
    left_out = [word for row in listed if row["reason"] == "words that are not said" for word in row["words"]]
    assert sorted(left_out) == sorted(unsaid.split())  # where words are said twice, either may be the one
    gap = next(row for row in listed if row["reason"] == "nothing of the text")
    assert gap["start"] == pytest.approx(offsets[10], abs=0.5) and gap["end"] == pytest.approx(offsets[11], abs=0.5)
    told = [
        (word, offset + start, offset + end)
        for number, (one, offset) in enumerate(zip(spoken, offsets, strict=False))
        for word, start, end in one.words
        if number != 10
    ]
    starts, ends = within(distances(cut.supervisions[0].alignment["word"], told))
    assert starts >= 0.95 and ends >= 0.93  # words beside what is missing are less certain
