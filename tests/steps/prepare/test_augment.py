"""Waveform augmentation: what each part does to the signal, and that the generator decides everything."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from lhotse import Recording, RecordingSet

from steps.prepare import augment
from steps.prepare.augment import WaveformAugment, add_noise, change_volume, noise_files, reverberate, room_responses
from steps.prepare.config import AugmentConfig, NoiseConfig, ReverbConfig
from utils.errors import UserError

RNG = np.random.default_rng(3)
SPEECH = (0.1 * RNG.normal(size=16000)).astype(np.float32)


def power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


@pytest.fixture
def noises(tmp_path):
    (tmp_path / "noise" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "noise" / "a.wav", 0.2 * rng.normal(size=5000), 16000)
    soundfile.write(tmp_path / "noise" / "deep" / "b.flac", 0.2 * rng.normal(size=(66150, 2)), 22050)
    (tmp_path / "noise" / "readme.txt").write_text("not audio")
    return tmp_path / "noise"


@pytest.mark.parametrize("snr", [-5.0, 0.0, 15.0])
@pytest.mark.parametrize("length", [3000, 16000, 50000])
def test_noise_has_the_snr_asked_for(snr, length):
    noise = np.random.default_rng(1).normal(size=length).astype(np.float32)
    mixed = add_noise(SPEECH, noise, snr, place=0.37)
    assert mixed.shape == SPEECH.shape
    assert 10 * np.log10(power(SPEECH) / power(mixed - SPEECH)) == pytest.approx(snr, abs=0.05)


def test_silent_noise_changes_nothing():
    np.testing.assert_array_equal(add_noise(SPEECH, np.zeros(100, np.float32), 10.0), SPEECH)


def test_volume():
    assert power(change_volume(SPEECH, -6.0)) == pytest.approx(power(SPEECH) * 10**-0.6, rel=1e-3)
    assert np.abs(change_volume(SPEECH, 60.0)).max() == pytest.approx(1.0)


def test_noise_folder_manifest_and_mistakes(noises, tmp_path):
    assert [file.name for file in noise_files(NoiseConfig(path=str(noises)))] == ["a.wav", "b.flac"]
    manifest = tmp_path / "noise.jsonl.gz"
    RecordingSet.from_recordings([Recording.from_file(noises / "a.wav")]).to_file(manifest)
    assert noise_files(NoiseConfig(path=str(manifest))) == [noises / "a.wav"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="no audio files"):
        noise_files(NoiseConfig(path=str(tmp_path / "nothing")))
    with pytest.raises(UserError, match="does not exist"):
        noise_files(NoiseConfig(path=str(tmp_path / "nowhere")))


def test_rooms_are_simulated_once(tmp_path, monkeypatch):
    config = ReverbConfig(cache=str(tmp_path), rooms=3, rt60=(0.2, 0.4), seed=5)
    rooms = room_responses(config, 16000)
    assert len(rooms) == 3 and all(len(room) > 0.05 * 16000 for room in rooms)
    assert not np.array_equal(rooms[0][:500], rooms[1][:500])
    monkeypatch.setattr(augment, "simulate_room", lambda *a: pytest.fail("simulated again"))
    for one, other in zip(rooms, room_responses(config, 16000), strict=True):
        np.testing.assert_array_equal(one, other)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="delete it"):
        room_responses(config, 16000)


def test_same_seed_same_rooms(tmp_path):
    one = room_responses(ReverbConfig(cache=str(tmp_path / "a"), rooms=2), 16000)
    other = room_responses(ReverbConfig(cache=str(tmp_path / "b"), rooms=2), 16000)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_reverberation_keeps_length_power_and_onset(tmp_path):
    response = room_responses(ReverbConfig(cache=str(tmp_path), rooms=1, rt60=(0.4, 0.4)), 16000)[0]
    click = np.zeros(8000, np.float32)
    click[1000] = 1.0
    wet = reverberate(click, response)
    assert wet.shape == click.shape and int(np.abs(wet).argmax()) == 1000
    assert power(wet) == pytest.approx(power(click), rel=1e-3)
    assert power(wet[1500:4000]) > 0  # the room rings on
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]  # Schroeder's backward integral
    decay = 10 * np.log10(energy / energy[0])
    slope = (np.argmax(decay < -20) - np.argmax(decay < -5)) / 15 * 60 / 16000  # seconds for 60 dB
    assert 0.15 < slope < 0.8


def test_generator_decides_everything(noises, tmp_path):
    values = {
        "speed": {"factors": [0.9, 1.1]},
        "reverb": {"cache": str(tmp_path / "rooms"), "rooms": 2, "probability": 0.5},
        "noise": {"path": str(noises), "snr": [5, 10]},
        "volume": {"gain": [-6, 0]},
    }
    change = WaveformAugment(AugmentConfig(**values))
    results = [change(SPEECH, np.random.default_rng(seed)) for seed in range(8)]
    for seed, result in enumerate(results):
        assert result.dtype == np.float32 and np.isfinite(result).all()
        np.testing.assert_array_equal(result, change(SPEECH, np.random.default_rng(seed)))
    assert {len(result) for result in results} == {17778, 14546}
    assert len({result[:1000].tobytes() for result in results}) == 8


def test_probabilities_are_kept(noises):
    change = WaveformAugment(AugmentConfig(noise={"path": str(noises), "probability": 0.25}))
    rng = np.random.default_rng(0)
    changed = sum(not np.array_equal(change(SPEECH, rng), SPEECH) for _ in range(400))
    assert 70 < changed < 130


def test_nothing_configured_changes_nothing():
    np.testing.assert_array_equal(WaveformAugment(AugmentConfig())(SPEECH, np.random.default_rng(0)), SPEECH)
