"""Tables: columns by many names, quotation marks, encodings, splits, and what is wrong with them, a sentence each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import local.own as corpus  # noqa: F401  of the fixtures
from tests.corpora import own
from tests.local.own_data import change, left_out, rows, table, twelve


def test_columns_by_their_usual_names(tmp_path: Path, manifests, capsys):
    # Common Voice's header (cv-corpus-17.0), its paths without folders
    header = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale"
    header = f"{header} segment".replace(" ", "\t")
    lines = [f"sp{n % 4}\t{n:02d}.wav\t{n:x}\tText {n}\t\t2\t0\t\t\t\t\ten\t" for n in range(12)]
    manifests("--corpus", table(tmp_path, [header, *lines]), "--out", tmp_path / "m")
    row = rows(tmp_path / "m")["05"]
    assert (row["text"], row["speaker"], row["language"], row.get("custom")) == ("Text 5", "sp1", "en", {})
    assert "audio is column 'path', text is column 'sentence', speaker is column 'client_id'" in capsys.readouterr().out
    # NeMo's manifests: audio_filepath, offset, duration, text
    nemo = [
        json.dumps({"audio_filepath": f"{n:02d}.wav", "offset": 0.25, "duration": 0.5, "text": f"a {n}"})
        for n in range(12)
    ]
    manifests("--corpus", table(tmp_path / "nemo", nemo, "nemo.jsonl"), "--out", tmp_path / "n")
    row = rows(tmp_path / "n")["05-0000025"]
    assert (row["start"], row["duration"], row["recording_id"]) == (0.25, 0.5, "05")
    # Hugging Face's audio folders: <split>/metadata.csv with file_name
    for split in ("train", "validation", "test"):
        lines = ["file_name,transcription", *(f"{n:02d}.wav,a {split} text" for n in range(12))]
        table(tmp_path / "hf" / split, lines, "metadata.csv")
    for split in ("train", "validation", "test"):
        for path in sorted((tmp_path / "hf" / split).glob("*.wav")):
            path.rename(path.with_name(f"{split}-{path.name}"))
        change(tmp_path / "hf" / split / "metadata.csv", "\n0", f"\n{split}-0")
        change(tmp_path / "hf" / split / "metadata.csv", "\n1", f"\n{split}-1")
    manifests("--corpus", tmp_path / "hf", "--out", tmp_path / "h")
    assert {row["text"] for row in rows(tmp_path / "h", "dev").values()} == {"a validation text"}


def test_columns_that_have_other_names(tmp_path: Path, manifests, refused):
    path = table(tmp_path / "t", twelve("clip\tutterence"))
    message = refused("--corpus", path)
    assert f"{path} has no column 'text': it has clip, utterence; name it one of text, sentence, transcript," in message
    assert "has no column 'utterance' (did you mean 'utterence'?)" in refused(
        "--corpus", path, "--columns", "text=utterance"
    )
    assert "--columns txt=clip: 'txt' (did you mean 'text'?) is none of" in refused(
        "--corpus", path, "--columns", "txt=clip"
    )
    manifests("--corpus", path, "--out", tmp_path / "m", "--columns", "text=utterence")
    assert rows(tmp_path / "m")["03"]["text"] == "what 3 says"


def test_quotation_marks(tmp_path: Path, manifests, refused):
    # a TSV's are letters, as in Common Voice; a spreadsheet's and pandas's are quotes
    stray = twelve("audio\ttext", '00.wav\t"Hello, he said', '01.wav\t"Yes" or "no"', '02.wav\t"All of it."')
    manifests("--corpus", table(tmp_path / "a", stray), "--out", tmp_path / "l")
    texts = [rows(tmp_path / "l")[key]["text"] for key in ("00", "01", "02")]
    assert texts == ['"Hello, he said', '"Yes" or "no"', '"All of it."']
    pandas = twelve("audio\ttext", '00.wav\t"He said ""yes"""', "01.wav\tno")
    manifests("--corpus", table(tmp_path / "b", pandas), "--out", tmp_path / "n")
    assert rows(tmp_path / "n")["00"]["text"] == 'He said "yes"'
    csv = ["audio,text", '00.wav,"Yes, ""sir"""', *(f"{n:02d}.wav,what {n}" for n in range(1, 12))]
    manifests("--corpus", table(tmp_path / "c", csv, "own.csv"), "--out", tmp_path / "o")
    assert rows(tmp_path / "o")["00"]["text"] == 'Yes, "sir"'
    semicolons = [line.replace(",", ";", 1) for line in csv]
    manifests("--corpus", table(tmp_path / "d", semicolons, "own.csv"), "--out", tmp_path / "p")
    assert rows(tmp_path / "p")["00"]["text"] == 'Yes, "sir"'
    path = table(tmp_path / "e", ["audio,text", '00.wav,"Yes', "01.wav,no"], "own.csv")
    assert f"{path}, line 3: a quotation mark is not closed" in refused("--corpus", path)


def test_a_byte_order_mark_and_other_encodings(tmp_path: Path, manifests, refused):
    manifests("--corpus", table(tmp_path / "a", twelve("audio\ttext"), encoding="utf-8-sig"), "--out", tmp_path / "x")
    assert rows(tmp_path / "x")["03"]["text"] == "what 3 says"
    for name, encoding in (("b", "latin-1"), ("c", "utf-16")):
        path = table(tmp_path / name, twelve("audio\ttext", "00.wav\tété"), encoding=encoding)
        assert f"{path} is not text in UTF-8: save it as UTF-8" in refused("--corpus", path)


def test_rows_that_are_bad(tmp_path: Path, manifests):
    lines = twelve("audio\ttext") + twelve("x")[1:]  # twice the same: once
    lines[12] = "11.wav\tanother text"  # the same id, another text
    path = table(tmp_path, lines)
    manifests("--corpus", path, "--out", tmp_path / "m")
    assert left_out(tmp_path / "m") == {"11": "duplicate id"}
    path = table(tmp_path / "b", [*twelve("audio\ttext"), "12.wav\tone\tmany"])
    manifests("--corpus", path, "--out", tmp_path / "n")
    assert left_out(tmp_path / "n") == {"line 14": "corrupt"}


def test_channels_and_times_that_are_none(tmp_path: Path, manifests):
    odd = {0: "\t\t1.0", 1: "\t\tleft", 2: "0\tnan\t", 3: "0\t0.5\t0.0", 4: "0\t0.5\t"}
    lines = ["audio\ttext\tstart\tend\tchannel"]
    lines += [f"{n:02d}.wav\twhat {n} says\t{odd.get(n, chr(9) * 2)}" for n in range(12)]
    path = table(tmp_path, lines + [f"{n:02d}.wav\tmore {n}\t0.25\t0.75\t" for n in range(12)] * 2)
    own.write(tmp_path / "00.wav", np.zeros((16000, 2), dtype=np.int16), 16000)
    manifests("--corpus", path, "--out", tmp_path / "m")
    assert left_out(tmp_path / "m") == {"line 3": "no channel", "line 4": "wrong times"}
    assert rows(tmp_path / "m")["00"]["channel"] == 1  # as pandas writes it beside empty cells


def test_columns_that_nobody_can_tell_apart(tmp_path: Path, refused):
    path = table(tmp_path, ["audio\ttext\ttext", *(f"{n:02d}.wav\tone\ttwo" for n in range(12))])
    assert f"{path} has several columns 'text': give them different names." in refused("--corpus", path)
    path = table(tmp_path, ["audio\ttext\tend", *(f"{n:02d}.wav\tone\t0.5" for n in range(12))])
    assert f"{path} has a column 'end' and none for where utterances begin" in refused("--corpus", path)
    path = table(tmp_path, ["", "", " "])
    assert f"{path} has no rows: a line with" in refused("--corpus", path)


def test_a_list_in_the_place_of_a_text(tmp_path: Path, manifests):
    lines = [json.dumps({"audio": f"{n:02d}.wav", "text": ["a", "b"] if n == 3 else f"a {n}"}) for n in range(12)]
    manifests("--corpus", table(tmp_path, lines, "own.jsonl"), "--out", tmp_path / "m")
    assert left_out(tmp_path / "m") == {"line 4": "corrupt"}


def test_splits_of_a_column_and_of_files(tmp_path: Path, manifests):
    lines = ["audio\ttext\tsplit", *(f"{n:02d}.wav\ttext {n}\t{('train', 'valid', 'eval')[n % 3]}" for n in range(12))]
    manifests("--corpus", table(tmp_path / "a", lines), "--out", tmp_path / "m")
    assert set(rows(tmp_path / "m", "dev")) == {"01", "04", "07", "10"} and len(rows(tmp_path / "m", "test")) == 4
    for split, start in (("train", 0), ("dev", 6), ("test", 9)):
        lines = ["audio\ttext", *(f"{n:02d}.wav\ttext {n}" for n in range(start, start + 3))]
        table(tmp_path / "b", lines, f"{split}.tsv")
    manifests("--corpus", tmp_path / "b", "--out", tmp_path / "n")
    assert set(rows(tmp_path / "n", "dev")) == {"06", "07", "08"}
