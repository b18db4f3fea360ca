"""Reading audio of any format, rate and number of channels; features that equal stage 2's."""

from __future__ import annotations

import pickle

import av
import numpy as np
import pytest
import soundfile

from steps.prepare.audio import AudioError, change_speed, compute_features, load_audio, read_audio, resample
from steps.prepare.config import FeatureConfig
from utils.errors import UserError


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def peak_hertz(samples: np.ndarray, rate: int = 16000) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def encode(path, codec: str, rate: int, samples: np.ndarray, sample_format: str, layout: str = "mono") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate, frame_size=stream.frame_size or 0)
        frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(part):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 11127])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_become_16k_mono(tmp_path, rate, channels):
    samples = tone(rate)
    soundfile.write(tmp_path / "a.wav", np.stack([samples] * channels, axis=1), rate)
    loaded = load_audio(tmp_path / "a.wav")
    assert loaded.dtype == np.float32 and loaded.shape == (16000,)
    assert peak_hertz(loaded) == pytest.approx(440, abs=1.5)
    assert np.abs(loaded[1000:-1000]).max() == pytest.approx(0.4, rel=0.03)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(16000), 0 * tone(16000)], axis=1), 16000)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), tone(16000) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "sample_format"),
    [
        ("a.mp3", "libmp3lame", 44100, "s16p"),
        ("a.m4a", "aac", 44100, "fltp"),
        ("a.ogg", "libopus", 48000, "flt"),
        ("a.mkv", "aac", 44100, "fltp"),
        ("a.g722", "g722", 16000, "s16"),
        ("a.flac", "flac", 22050, "s16"),
    ],
)
def test_formats(tmp_path, name, codec, rate, sample_format):
    encode(tmp_path / name, codec, rate, tone(rate), sample_format)
    loaded = load_audio(tmp_path / name)
    assert abs(len(loaded) - 16000) < 1600  # codecs pad
    assert peak_hertz(loaded) == pytest.approx(440, abs=2)


def test_a_part_of_a_file(tmp_path):
    whole = tone(16000, 3.0)
    soundfile.write(tmp_path / "a.wav", whole, 16000, subtype="FLOAT")
    part, rate = read_audio(tmp_path / "a.wav", start=1.25, duration=0.5)
    assert rate == 16000
    np.testing.assert_array_equal(part[0], whole[20000:28000])
    encode(tmp_path / "a.g722", "g722", 16000, whole, "s16")
    np.testing.assert_array_equal(
        read_audio(tmp_path / "a.g722", 1.25, 0.5)[0], read_audio(tmp_path / "a.g722")[0][:, 20000:28000]
    )


def test_what_is_not_audio_is_one_sentence(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello " * 1000)
    (tmp_path / "random.mp3").write_bytes(np.random.default_rng(0).bytes(3000))
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    for name, reason in [("no.wav", "missing file"), ("empty.wav", "empty"), ("text.wav", "corrupt")]:
        with pytest.raises(AudioError, match=name) as caught:
            load_audio(tmp_path / name)
        assert caught.value.reason == reason and "\n" not in str(caught.value)
    with pytest.raises(AudioError, match=r"none.wav: no samples"):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(UserError, match=r"random.mp3: "):
        load_audio(tmp_path / "random.mp3")
    with pytest.raises(AudioError, match="a folder, not a file"):
        load_audio(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(tmp_path, value):
    samples = np.stack([tone(22050), tone(22050)], axis=1)
    samples[5000, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: it holds samples that are not numbers") as caught:
        load_audio(tmp_path / "a.wav")
    assert caught.value.reason == "corrupt"


def test_audio_error_survives_another_process():
    error = pickle.loads(pickle.dumps(AudioError("corrupt", "x.wav", "bad")))
    assert (error.reason, str(error)) == ("corrupt", "x.wav: bad.")


def test_resampling_removes_what_the_new_rate_cannot_hold():
    high = tone(48000, hertz=11000.0)  # would fold to 5 kHz
    assert np.abs(resample(high, 48000, 16000)[500:-500]).max() < 0.01
    assert resample(high, 48000, 48000) is high


def test_speed_changes_length_and_pitch():
    changed = change_speed(tone(16000)[None], 0.9)[0]
    assert len(changed) == pytest.approx(16000 / 0.9, abs=1)
    assert peak_hertz(changed) == pytest.approx(440 * 0.9, abs=1.5)


@pytest.mark.parametrize(("kind", "dim"), [("fbank", 80), ("mfcc", 13)])
def test_feature_shapes(kind, dim):
    config = FeatureConfig(type=kind, num_ceps=13)
    assert config.feature_dim == dim
    values = compute_features(tone(16000, 1.234), config)
    assert values.shape == (123, dim) and values.dtype == np.float32
    assert compute_features(tone(16000, 0.025), config).shape[1] == dim
    with pytest.raises(AudioError, match="less than one window"):
        compute_features(tone(16000, 0.02), config)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [1.0, 2.37])
def test_whispers_features_are_transformers(bins, seconds):
    from transformers import WhisperFeatureExtractor

    rng = np.random.default_rng(1)
    samples = (tone(16000, seconds) + 0.1 * rng.normal(size=round(16000 * seconds))).astype(np.float32)
    found = compute_features(samples, FeatureConfig(type="whisper", num_mel_bins=bins))
    theirs = WhisperFeatureExtractor(feature_size=bins)
    unpadded = theirs(samples, sampling_rate=16000, padding="do_not_pad").input_features[0].T
    assert found.shape == (round(100 * seconds), bins) and found.dtype == np.float32
    np.testing.assert_allclose(found, unpadded, atol=1e-5)
    padded = theirs(samples, sampling_rate=16000).input_features[0].T  # to 30 s; the last frames hear the border
    np.testing.assert_allclose(found[:-2], padded[: len(found) - 2], atol=1e-5)


def test_whispers_features_want_its_rate():
    with pytest.raises(ValueError, match="type whisper is made of 16000 samples a second, not 8000"):
        FeatureConfig(type="whisper", sampling_rate=8000)
