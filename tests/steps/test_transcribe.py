"""steps.transcribe: any format, rate and length; bad files cost nobody else; outputs in each form."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pysubs2
import pytest
import soundfile

from steps.decode import main as decode
from steps.lang.tokenizer import Tokenizer
from steps.prepare.audio import resample
from steps.search.hypothesis import Hypothesis
from steps.subtitles import subtitles
from steps.transcribe import cut_at_pauses, main
from utils.errors import UserError
from utils.files import read_jsonl


def transcribe(world, *arguments) -> int:
    return main(["--model", str(world.model), "--device", "cpu", *map(str, arguments)])


def lines(capsys) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_the_same_text_as_decode(world, tmp_path, capsys):
    decode(["--model", str(world.model), "--cuts", str(world.cuts), "--out", str(tmp_path), "--device", "cpu"])
    capsys.readouterr()
    text = {row["id"]: row["hyp"] for row in read_jsonl(tmp_path / "test.ctc.prefix_beam" / "hyp.jsonl")}
    english = {row["id"]: row["hyp"] for row in read_jsonl(tmp_path / "test.speech.modified_beam" / "hyp.jsonl")}
    files = [world.audio / f"{name}.wav" for name in english]
    assert transcribe(world, *files) == 0
    expected = []
    for path in files:
        expected += [[str(path), "text", text[path.stem]], [str(path), "translation.en", english[path.stem]]]
    assert lines(capsys) == expected
    assert len(set(text.values())) > 3


@pytest.mark.parametrize(("suffix", "rate", "channels"), [("flac", 22050, 2), ("ogg", 44100, 1), ("wav", 8000, 3)])
def test_any_format_rate_and_number_of_channels(world, tmp_path, capsys, suffix, rate, channels):
    samples = resample(world.speech(1.5, seed=3), 16000, rate)
    path = tmp_path / f"a b.{suffix}"
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    assert transcribe(world, path, "--search", "ctc:greedy") == 0
    ((name, label, text),) = lines(capsys)
    assert (name, label) == (str(path), "text") and text


def test_what_only_ffmpeg_reads(world, tmp_path, capsys):
    av = pytest.importorskip("av")
    samples = (world.speech(1.5, seed=3) * 20000).astype(np.int16)
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=16000, frame_size=1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    assert transcribe(world, tmp_path / "film.mp4", "--search", "ctc:greedy") == 0
    assert lines(capsys)[0][2]


def test_bad_files_are_named_and_the_others_go_on(world, tmp_path, capsys):
    soundfile.write(tmp_path / "short.wav", np.zeros(500), 16000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "scrambled.wav").write_bytes(b"RIFF" + bytes(range(200)))
    soundfile.write(tmp_path / "nan.wav", np.r_[world.speech(1.0, seed=1), np.nan], 16000, subtype="FLOAT")
    bad = [tmp_path / name for name in ("missing.wav", "empty.wav", "scrambled.wav", "short.wav", "nan.wav", ".")]
    good = world.audio / "fr-0.wav"
    assert transcribe(world, *bad[:2], good, *bad[2:], "--search", "ctc:greedy") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{good}\ttext\t") and captured.out.count("\n") == 1
    errors = captured.err.splitlines()
    assert [error.split(":")[0:2] for error in errors] == [["error", f" {path}"] for path in bad]


def test_long_audio_is_cut_and_keeps_its_times(world, tmp_path, capsys):
    part, silence = world.speech(2.0, seed=5), np.zeros(8000, dtype=np.float32)
    soundfile.write(tmp_path / "long.wav", np.concatenate([part, silence] * 6), 16000)
    assert transcribe(world, tmp_path / "long.wav", "--longest", "3", "--format", "json", "--max-duration", "6") == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert row["duration"] == 15.0 and row["searches"]["translation.en"] == "speech:modified_beam"
    pieces = row["pieces"]
    assert len(pieces) == 6 and pieces[0]["start"] == 0 and pieces[-1]["end"] == 15.0
    for piece, after in zip(pieces, [*pieces[1:], None], strict=True):
        assert piece["end"] - piece["start"] <= 3
        assert after is None or piece["end"] == after["start"]
        assert after is None or piece["end"] % 2.5 > 2  # in the silence
        for target in ("text", "translation.en"):
            assert all(piece["start"] <= start < piece["end"] for _, start, _ in piece[target]["tokens"])
    for target in ("text", "translation.en"):
        joined = [piece[target]["text"] for piece in pieces if piece[target]["text"]]
        assert row["text"][target] == " ".join(joined) != ""


@pytest.mark.parametrize("seconds", [0.5, 3.0, 3.01, 5.9, 6.1, 31.7])
def test_pieces_cover_everything(world, seconds):
    samples = world.speech(seconds, seed=2)
    spans = cut_at_pauses(samples, 16000, 3.0)
    assert spans[0][0] == 0 and spans[-1][1] == len(samples)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert all(end - start <= 48000 for start, end in spans)
    assert len(spans) == 1 or all(end - start >= 19000 for start, end in spans)


def test_files_instead_of_the_screen(world, tmp_path, capsys):
    files = [world.audio / "it-1.wav", world.audio / "fr-1.wav"]
    for form in ("txt", "json", "srt", "vtt"):
        assert transcribe(world, *files, "--format", form, "--out", tmp_path) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"{stem}.{kind}"
        for stem in ("it-1", "fr-1")
        for kind in ("txt", "json", "text.srt", "translation.en.srt", "text.vtt", "translation.en.vtt")
    }
    assert sorted(capsys.readouterr().out.split()) == sorted(str(tmp_path / name) for name in names)
    rows = (tmp_path / "it-1.txt").read_text("utf-8").splitlines()
    text, english = (row.split("\t")[2] for row in rows)
    for label, said in (("text", text), ("translation.en", english)):
        for form in ("srt", "vtt"):
            shown = pysubs2.load(str(tmp_path / f"it-1.{label}.{form}"))
            assert " ".join(event.plaintext.replace("\n", " ") for event in shown) == said


def test_two_searches_of_one_target_are_told_apart(world, capsys):
    searches = [word for name in ("ctc:greedy", "ctc:prefix_beam", "speech:greedy") for word in ("--search", name)]
    transcribe(world, *searches, world.audio / "it-1.wav")  # a file after the options is no search
    labels = [label for _, label, _ in lines(capsys)]
    assert labels == ["text.ctc.greedy", "text.ctc.prefix_beam", "translation.en"]


def test_outputs_that_would_collide(world, tmp_path):
    other = tmp_path / "it-1.flac"
    shutil.copy(world.audio / "it-1.wav", other)
    with pytest.raises(UserError, match="would both be written as 'it-1'"):
        transcribe(world, world.audio / "it-1.wav", other, "--out", tmp_path / "out")
    with pytest.raises(UserError, match="--format srt makes a file per recording and target"):
        transcribe(world, other, "--format", "srt")


@pytest.mark.parametrize("longest", ["0.01", "0.1", "0.99", "0", "-3"])
def test_pieces_too_short_for_words(world, capsys, longest):
    with pytest.raises(SystemExit) as stop:
        transcribe(world, world.audio / "it-1.wav", "--longest", longest)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and f"argument --longest: {longest} is " in error
    assert transcribe(world, world.audio / "it-1.wav", "--longest", "1", "--search", "ctc:greedy") == 0


def test_a_file_where_the_model_folder_belongs(world):
    with pytest.raises(UserError, match=f"a model is a folder: give {world.model} with --checkpoint averaged.pt"):
        main(["--model", str(world.model / "averaged.pt"), str(world.audio / "it-1.wav")])
    with pytest.raises(UserError, match=r"it-1\.wav is a file, a model is a folder: give exp/<model>\."):
        main(["--model", str(world.audio / "it-1.wav"), str(world.audio / "it-1.wav")])


def test_tokens_without_times_are_spread_over_the_piece(world):
    tokenizer = Tokenizer.load(world.model / "lang" / "ctc")
    tokens = tokenizer.encode(" ".join(["grazie"] * 40))
    hypothesis = Hypothesis(tokens, [0] * len(tokens), 0.0, [0.0] * len(tokens))
    shown = pysubs2.SSAFile.from_string(subtitles([(10.0, 30.0, hypothesis)], tokenizer, 0.04, "srt"))
    assert shown[0].start == 10000 and 29000 < shown[-1].end <= 30000
    assert all(event.duration <= 5500 for event in shown) and " ".join(event.plaintext for event in shown) == " ".join(
        ["grazie"] * 40
    )


def test_cues_end_at_pauses_and_before_they_are_full(world):
    tokenizer = Tokenizer.load(world.model / "lang" / "ctc")
    words = [tokenizer.encode(word) for word in (world.texts["it"][0], "no", *["grazie"] * 30)]
    tokens, frames, clock = [], [], 0
    for number, word in enumerate(words):
        clock += 50 if number == 2 else 1  # two seconds of silence before the first "grazie"
        for token in word:
            tokens.append(token)
            frames.append(clock)
            clock += 1
    hypothesis = Hypothesis(tokens, frames, 0.0, [0.0] * len(tokens))
    shown = pysubs2.SSAFile.from_string(subtitles([(10.0, 60.0, hypothesis)], tokenizer, 0.04, "srt"))
    texts = [event.plaintext for event in shown]
    assert texts[0] == "buongiorno no" and shown[0].start == 10000 + 40
    assert " ".join(texts[1:]) == " ".join(["grazie"] * 30) and len(texts) == 4
    assert all(len(text) <= 84 and event.duration <= 5500 for text, event in zip(texts, shown, strict=True))
    assert all(event.end <= after.start for event, after in pairwise(shown))
