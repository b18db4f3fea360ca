"""Waveform augmentation: what each part does to the signal, and that the generator decides everything."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import soundfile
from lhotse import Recording, RecordingSet

from steps.prepare import augment
from steps.prepare.augment import (
    Rooms,
    WaveformAugment,
    audio_files,
    change_volume,
    read_noise,
    reverberate,
    room_responses,
    scale_noise,
)
from steps.prepare.config import AugmentConfig, ReverbConfig
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
    mixed = SPEECH + scale_noise(SPEECH, noise, snr, place=0.37)
    assert mixed.shape == SPEECH.shape
    assert 10 * np.log10(power(SPEECH) / power(mixed - SPEECH)) == pytest.approx(snr, abs=0.05)


def test_silent_noise_changes_nothing():
    assert not scale_noise(SPEECH, np.zeros(100, np.float32), 10.0).any()


def test_volume():
    assert power(change_volume(SPEECH, -6.0)) == pytest.approx(power(SPEECH) * 10**-0.6, rel=1e-3)
    assert np.abs(change_volume(SPEECH, 60.0)).max() == pytest.approx(1.0)


def test_noise_folder_manifest_and_mistakes(noises, tmp_path):
    assert [file.name for file in audio_files(noises, "augment.noise.path")] == ["a.wav", "b.flac"]
    manifest = tmp_path / "noise.jsonl.gz"
    RecordingSet.from_recordings([Recording.from_file(noises / "a.wav")]).to_file(manifest)
    assert audio_files(manifest, "x") == [noises / "a.wav"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"no audio files: check augment.reverb.path"):
        audio_files(tmp_path / "nothing", "augment.reverb.path")
    with pytest.raises(UserError, match="does not exist"):
        audio_files(tmp_path / "nowhere", "x")


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


def test_at_most_one_kind_of_noise_each_as_often_as_asked(tmp_path):
    """The kinds are told apart by the power that they add: 20, 10 and 0 dB."""
    kinds = []
    for name, snr, probability in (("noise", 20, 0.1), ("music", 10, 0.3), ("speech", 0, 0.2)):
        soundfile.write(tmp_path / f"{name}.wav", 0.2 * RNG.normal(size=4000), 16000)
        kinds.append({"path": str(tmp_path / f"{name}.wav"), "snr": [snr, snr], "probability": probability})
    change, rng = WaveformAugment(AugmentConfig(noise=kinds)), np.random.default_rng(0)
    added = [power(change(SPEECH, rng) - SPEECH) / power(SPEECH) for _ in range(1000)]
    found = [sum(abs(x - 10 ** (-snr / 10)) < 0.01 * 10 ** (-snr / 10) for x in added) for snr in (20, 10, 0)]
    assert sum(found) + added.count(0.0) == 1000
    for count, probability in zip(found, (0.1, 0.3, 0.2), strict=True):
        assert abs(count - 1000 * probability) < 45  # three standard deviations
    alone = WaveformAugment(AugmentConfig(noise=kinds[1]))
    listed = WaveformAugment(AugmentConfig(noise=[kinds[1]]))
    for seed in range(5):
        np.testing.assert_array_equal(*(each(SPEECH, np.random.default_rng(seed)) for each in (alone, listed)))
    with pytest.raises(ValueError, match=r"add up to 1.1: at most one"):
        AugmentConfig(noise=[{"path": "a", "probability": 0.6}, {"path": "b"}])


def test_babble_is_several_files_each_at_a_ratio_of_its_own(tmp_path, monkeypatch):
    for name in range(20):
        soundfile.write(tmp_path / f"{name:02}.wav", RNG.normal(size=5000), 16000, subtype="FLOAT")
    sounds = [soundfile.read(file, dtype="float32")[0] for file in sorted(tmp_path.iterdir())]
    kind = {"path": str(tmp_path), "snr": [13, 20], "probability": 1.0, "mix": [3, 7]}
    change, scale, calls = WaveformAugment(AugmentConfig(noise=kind)), augment.scale_noise, []
    monkeypatch.setattr(augment, "scale_noise", lambda *values: calls.append(values) or scale(*values))
    counts, files, ratios = Counter(), Counter(), []
    for seed in range(200):
        noisy = change(SPEECH, np.random.default_rng(seed))
        parts = [10 * np.log10(power(SPEECH) / power(scale(*values))) for values in calls]
        np.testing.assert_allclose(noisy, SPEECH + sum(scale(*values) for values in calls), atol=1e-6)
        files.update(next(i for i, sound in enumerate(sounds) if np.array_equal(sound, values[1])) for values in calls)
        counts[len(calls)] += 1
        ratios += parts
        calls.clear()
        np.testing.assert_array_equal(noisy, change(SPEECH, np.random.default_rng(seed)))
        calls.clear()
    assert set(counts) == {3, 4, 5, 6, 7} and min(counts.values()) > 20
    assert set(files) == set(range(20))
    assert 12.99 < min(ratios) < 13.2 and 19.8 < max(ratios) < 20.01


def test_of_a_long_file_only_a_part_is_read(tmp_path):
    """Music of minutes: the part that an utterance needs is what a whole reading has at that place."""
    long = 0.3 * np.random.default_rng(2).normal(size=60 * 16000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", long, 16000, subtype="FLOAT")
    augment._load_noise.cache_clear()
    for place in (0.0, 0.37, 1.0):
        part, start = read_noise(tmp_path / "long.wav", 16000, 20000, place)
        first = round(place * (len(long) - 20000))
        assert start == 0.0 and augment._load_noise.cache_info().currsize == 0
        np.testing.assert_allclose(part, long[first : first + 20000], atol=1e-6)
    soundfile.write(tmp_path / "short.wav", long[:8000], 16000, subtype="FLOAT")
    whole, start = read_noise(tmp_path / "short.wav", 16000, 20000, 0.37)
    assert start == 0.37 and len(whole) == 8000
    assert len(read_noise(tmp_path / "long.wav", 8000, 20000, 0.5)[0]) == 20000


def test_measured_rooms_and_simulated_ones(tmp_path):
    """A response of several channels gives each of them; with `cache` as well, half are simulated, as before."""
    (tmp_path / "rirs").mkdir()
    responses = np.zeros((3, 4000), np.float32)
    for channel, delay in enumerate((100, 200, 300)):
        responses[channel, [delay, delay + 50 * (channel + 1)]] = 1.0, 0.5
    soundfile.write(tmp_path / "rirs/a.wav", responses[0], 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "rirs/b.wav", responses[1:].T, 16000, subtype="FLOAT")
    measured = Rooms(ReverbConfig(path=str(tmp_path / "rirs")), 16000)
    drawn = {measured[number].tobytes() for number in range(40)}
    assert drawn == {response.tobytes() for response in responses}
    click = np.zeros(1000, np.float32)
    click[10] = 1.0
    wet = reverberate(click, measured[0])
    np.testing.assert_allclose(wet[[10, 60]] / wet[10], [1.0, 0.5], atol=1e-5)
    simulated = room_responses(ReverbConfig(cache=str(tmp_path / "rooms"), rooms=2), 16000)
    both = Rooms(ReverbConfig(path=str(tmp_path / "rirs"), cache=str(tmp_path / "rooms"), rooms=2), 16000)
    kinds = [both[number].tobytes() for number in range(400)]
    assert set(kinds) == drawn | {response.tobytes() for response in simulated}
    assert sum(kind in drawn for kind in kinds) == 200
    with pytest.raises(ValueError, match="give 'path'"):
        ReverbConfig(rooms=3)
    soundfile.write(tmp_path / "rirs/a.wav", np.zeros(100), 16000)
    augment.load_response.cache_clear()
    with pytest.raises(UserError, match=r"a.wav is no room response"):
        measured[0]


def test_nothing_configured_changes_nothing():
    np.testing.assert_array_equal(WaveformAugment(AugmentConfig())(SPEECH, np.random.default_rng(0)), SPEECH)
