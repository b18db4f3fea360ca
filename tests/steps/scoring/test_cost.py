"""What a system costs, summed over what it was initialised from and over the stages of a cascade, each once."""

from __future__ import annotations

import json

import pytest

from steps.scoring.cost import cost, lineage
from steps.scoring.hypotheses import read_decoded


@pytest.fixture
def train(tmp_path):
    """Writes exp/<model>/train.json."""

    def write(model, hours, parameters=1000, **more):
        folder = tmp_path / "exp" / model
        folder.mkdir(parents=True, exist_ok=True)
        record = {"seconds": 3600 * hours, "parameters": parameters, "parameters_trained": parameters // 2}
        record |= {"peak_memory_mb": 100 * hours, "processes": 4, "hardware": {"gpu": "NVIDIA H100", "cores": 64}}
        (folder / "train.json").write_text(json.dumps({**record, **more}))
        return folder

    return write


def spent(folder) -> dict:
    decoded = read_decoded(folder)
    return cost(decoded, lineage(decoded))


def test_training_with_all_that_it_began_with(decode_folder, train, tmp_path):
    pretrained = train("pretrained", 8)
    train("asr", 2, init={"encoder": "exp/pretrained"})  # found from the folders above the run
    checkpoint = tmp_path / "exp" / "asr" / "averaged.pt"
    model = train("joint", 1, init={"encoder": f"{checkpoint}:encoder", "head": "openai/whisper"})
    checkpoint.write_text("")
    found = spent(decode_folder(about={"rtf": 0.25, "peak_memory_mb": 70}))
    assert found == {
        **{"parameters": 1000, "parameters_trained": 500, "training_hours": 1.0, "training_hours_with_init": 11.0},
        **{"not_counted": ["openai/whisper"], "hardware": ["4 × NVIDIA H100"], "rtf": 0.25},
        **{"training_memory_mb": 100, "decoding_memory_mb": 70},
    }
    family = lineage(read_decoded(decode_folder()))
    assert list(family.models) == [model] and set(family.ancestors) == {pretrained, tmp_path / "exp" / "asr"}


def test_models_that_began_with_each_other_end(decode_folder, train):
    train("joint", 1, init={"encoder": "exp/other"})
    train("other", 2, init={"encoder": "exp/joint"})
    assert spent(decode_folder())["training_hours_with_init"] == 3.0


def test_a_cascade_is_the_sum_of_its_stages(decode_folder, train):
    train("pretrained", 4)
    for model, hours, parameters in (("asr", 1, 3000), ("mt", 2, 5000)):
        train(model, hours, parameters, init={"encoder": "exp/pretrained"})
    stages = [{"model": "exp/asr", "rtf": 0.1, "parameters": 1, "peak_memory_mb": 90}]
    stages += [{"model": "exp/mt", "rtf": 0.2, "parameters": 1, "peak_memory_mb": 80}]
    about = {"system": "cascade", "model": None, "stages": stages, "rtf": None}
    found = spent(decode_folder("cascade", about=about))
    assert (found["parameters"], found["parameters_trained"]) == (8000, 4000)
    assert (found["training_hours"], found["training_hours_with_init"]) == (3.0, 7.0)
    assert found["rtf"] == pytest.approx(0.3) and found["not_counted"] == []
    assert (found["training_memory_mb"], found["decoding_memory_mb"]) == (200, 90)
    found = spent(decode_folder("cascade", about={**about, "rtf": 0.5, "parameters": 4321}))
    assert found["rtf"] == 0.5 and found["parameters"] == 4321


def test_a_stage_that_was_trained_elsewhere(decode_folder, train):
    train("asr", 1, 3000)
    stages = [{"model": "exp/asr"}, {"model": "Helsinki-NLP/opus-mt", "parameters": 70, "rtf": 0.2}]
    found = spent(decode_folder("cascade", about={"system": "cascade", "stages": stages, "rtf": None}))
    assert found["parameters"] == 3070 and found["training_hours"] == 1.0 and found["rtf"] == 0.2
    assert found["not_counted"] == ["Helsinki-NLP/opus-mt"]


def test_a_model_without_records(decode_folder):
    found = spent(decode_folder(about={"parameters": 7, "rtf": "fast"}))
    assert found["parameters"] == 7 and found["not_counted"] == ["exp/joint"]
    assert found["training_hours"] is found["rtf"] is found["training_memory_mb"] is None
    assert found["hardware"] == ["Sim | 9000 (2 cores)"]  # of decoding
