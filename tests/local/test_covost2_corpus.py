"""CoVoST 2 from download to manifests, on a miniature in its layout."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import soundfile

import local.covost2 as corpus
from local.corpus import Unusable
from tests.corpora import covost2
from tests.local.written import left_out
from utils.errors import UserError
from utils.files import read_jsonl

SIZES = {"train": 45, "dev": 11, "test": 11}
RUN = Path(__file__).parents[2] / "egs/covost2/st/run.sh"


@pytest.fixture(scope="module")
def whole(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return covost2.make(tmp_path_factory.mktemp("covost2"), sizes=SIZES)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A corpus to break; its folder fr."""
    return Path(shutil.copytree(whole, tmp_path / "corpus")) / "fr"


def rows(folder: Path, split: str, kind: str = "supervisions") -> dict[str, dict]:
    return {row["id"]: row for row in read_jsonl(folder / f"{split}_{kind}.jsonl.gz")}


# ---- facts of the real corpus, and the miniature has them


def test_directions():
    # the authors' README and get_covost_splits.py: 21 languages into English, English into 15, which are among the 21
    into = {pair.removesuffix("_en") for pair in corpus.ARCHIVES if pair.endswith("_en")}
    out_of = {pair.removeprefix("en_") for pair in corpus.ARCHIVES if pair.startswith("en_")}
    assert len(into) == 21 and len(out_of) == 15 and out_of < into and len(corpus.ARCHIVES) == 36
    assert into - out_of == {"es", "fr", "it", "nl", "pt", "ru"} and {"sv-SE", "zh-CN"} < out_of
    run = RUN.read_text("utf-8")  # which says so before it makes a folder
    assert set(re.search(r'one_of --source "\$source" "en (.*)"', run)[1].split()) == into
    assert set(re.search(r'one_of --target "\$target" "(.*)"', run)[1].split()) == out_of


def test_published_sizes():
    # huggingface datasets' card of covost2, "Data Splits"; fairseq's issue 3026 shows a bar of 207374 for fr's train
    assert corpus.UTTERANCES["fr"] == (207374, 14760, 14760) and corpus.UTTERANCES["en"] == (289430, 15531, 15531)
    assert corpus.UTTERANCES["it"] == (31698, 8940, 8951) and len(corpus.UTTERANCES) == 22
    assert all(re.fullmatch("[0-9a-f]{64}", digest) and size > 0 for size, digest in corpus.ARCHIVES.values())
    assert corpus.ARCHIVES["fr_en"][0] == 7282129  # the card's download_size


def test_layout(whole: Path):
    # fairseq's covost_example.md: ${COVOST_ROOT}/${SOURCE_LANG_ID}; huggingface datasets' covost2.py: clips/ and
    # validated.tsv in it; its dummy data have common_voice_fr_17732749.mp3 and a client_id of 128 hexadecimal digits
    assert {path.name for path in whole.iterdir()} == {"fr", "covost_v2.fr_en.tsv"}
    header, *lines = (whole / "fr/validated.tsv").read_text("utf-8").splitlines()
    assert header.split("\t")[:3] == ["client_id", "path", "sentence"]  # torchaudio's COMMONVOICE: the same columns
    for line in lines:
        speaker, clip, *_ = line.split("\t")
        assert re.fullmatch(r"[0-9a-f]{128}", speaker) and re.fullmatch(r"common_voice_fr_\d+\.mp3", clip)
    header, *lines = (whole / "covost_v2.fr_en.tsv").read_text("utf-8").splitlines()
    assert header == "path\ttranslation\tsplit"
    # get_covost_splits.py takes train and train_covost for train, and leaves dev_covost and test_covost to version 1
    assert {line.split("\t")[2] for line in lines} == {"train", "train_covost", "dev", "test", "dev_covost", ""}
    clips = [path for path in sorted((whole / "fr/clips").iterdir()) if path.stat().st_size]
    # huggingface datasets' card: 48,000 Hz
    assert {(soundfile.info(p).format, soundfile.info(p).samplerate) for p in clips} == {
        ("MP3", rate) for rate in covost2.RATES
    }


@pytest.mark.parametrize(
    ("line", "sentence", "text", "language"),
    [  # real rows: the dummy data of huggingface datasets' covost2
        ('"She\'ll be all right."', "She'll be all right.", "she'll be all right", "en"),
        (
            '"These data components in turn serve as the ""building blocks"" of data exchanges."',
            'These data components in turn serve as the "building blocks" of data exchanges.',
            "these data components in turn serve as the building blocks of data exchanges",
            "en",
        ),
        (
            '"Une partie, fûts, fut dirigée vers le port de L\'Ardoise."',
            "Une partie, fûts, fut dirigée vers le port de L'Ardoise.",
            "une partie fûts fut dirigée vers le port de l'ardoise",
            "fr",
        ),
        (".هذه ملحوظة مهمة للغاية", ".هذه ملحوظة مهمة للغاية", "هذه ملحوظة مهمة للغاية", "ar"),
        ("Morgenstund' hat Gold im Mund.", "Morgenstund' hat Gold im Mund.", "morgenstund hat gold im mund", "de"),
    ],
)
def test_sentences_of_real_rows(tmp_path: Path, line: str, sentence: str, text: str, language: str):
    (tmp_path / "validated.tsv").write_text(f"client_id\tpath\tsentence\nabc\tx.mp3\t{line}\n", "utf-8")
    ((found,),) = corpus.read_table(tmp_path / "validated.tsv", ("sentence",), "")
    assert corpus.unwrap(found) == sentence and corpus.spelling(sentence, language) == text


def test_tables_are_read_as_the_authors_script_reads_them(tmp_path: Path):
    # values: what pandas 2.3.3 reads with the options of get_covost_splits.py
    cells = {
        'a "b" c': 'a "b" c',
        '"d': '"d',
        '\\"e\\"': '"e"',
        "f\\\\g": "f\\g",
        "null": "null",
        "NA": "NA",
        "": "",
        "#": "#",
    }
    path = tmp_path / "t.tsv"
    path.write_text("path\ttranslation\tsplit\n" + "".join(f"{n}\t{c}\ttrain\n" for n, c in enumerate(cells)), "utf-8")
    assert [cell for (cell,) in corpus.read_table(path, ("translation",), "")] == list(cells.values())


# ---- manifests


def test_manifests(whole: Path, tmp_path: Path, manifests, capsys):
    manifests("--corpus", whole, "--out", tmp_path)
    said = capsys.readouterr().out
    assert "test: 11 utterances, 0.01 h (published: 14760): -14749 utterances, so scores do not" in said
    assert "lacks 1 clips that are translated" in said
    table = [line.split("\t") for line in (whole / "covost_v2.fr_en.tsv").read_text("utf-8").splitlines()]
    for split, size in SIZES.items():
        found, recordings = rows(tmp_path, split), rows(tmp_path, split, "recordings")
        assert len(found) == size + (split == "train")  # the one that says nothing odd
        for key, row in found.items():
            clip, translation, name = next(line for line in table if line[0] == f"{key}.mp3")
            assert name.removesuffix("_covost") == split and row["language"] == "fr" and len(row["speaker"]) == 128
            assert row["custom"]["translation"] == {"en": translation.replace("\\", "")}
            assert re.fullmatch(r"[^\W_A-Z]+(?:['’ -][^\W_A-Z]+)*", row["text"]), row["text"]
            decoded, rate = soundfile.read(whole / "fr/clips" / clip)
            assert (recordings[key]["num_samples"], recordings[key]["sampling_rate"]) == (len(decoded), rate)
    assert sorted(left_out(tmp_path).values()) == ["empty", "missing file", "no text", "no translation"]
    marked = next(row for row in rows(tmp_path, "train").values() if '"mot"' in row["custom"]["raw_text"])
    assert marked["text"].startswith("le mot ") and marked["custom"]["translation"]["en"].startswith('The "word": ')
    assert {"en": "null"} in [row["custom"]["translation"] for row in rows(tmp_path, "train").values()]


def test_utterances_are_in_the_order_of_validated(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole / "fr", "--translations", whole, "--out", tmp_path)
    order = [line.split("\t")[1][:-4] for line in (whole / "fr/validated.tsv").read_text("utf-8").splitlines()]
    for split in SIZES:  # as pandas' merge in the authors' script keeps it
        assert list(rows(tmp_path, split)) == [key for key in order if key in rows(tmp_path, split)]


@pytest.mark.parametrize(("target", "code"), [("de", "de"), ("zh-CN", "zh")])
def test_out_of_english(real_corpus: Path, tmp_path: Path, manifests, target: str, code: str):
    covost2.make(tmp_path, "en", target, SIZES)
    manifests("--corpus", tmp_path, "--source", "en", "--target", target, "--out", tmp_path / "m")
    row = next(iter(rows(tmp_path / "m", "dev").values()))
    assert row["language"] == "en" and row["custom"]["translation"].keys() == {code}


def test_clips_without_a_tag_are_measured_by_decoding(whole: Path, tmp_path: Path):
    clip = next(path for path in sorted((whole / "fr/clips").iterdir()) if path.stat().st_size)
    content = bytearray(clip.read_bytes())
    assert soundfile.info(clip).frames == corpus.measure_mp3(clip).samples
    tag = next(content.find(name) for name in (b"Xing", b"Info") if name in content)
    content[tag : tag + 4] = b"gone"
    path = tmp_path / "untagged.mp3"
    path.write_bytes(content)
    assert corpus.measure_mp3(path).samples == len(soundfile.read(path)[0])
    path.write_bytes(b"not audio" * 100)
    with pytest.raises(Unusable, match="is not audio"):
        corpus.measure_mp3(path)


# ---- wrong input


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "sv",
            "en",
            r"no 'sv' \(did you mean 'sv-SE'\?\) into English: give --source one of ar ca .* sv-SE ta tr zh-CN\.",
        ),
        ("zh", "en", "give --source one of"),
        ("pl", "en", "give --source one of"),
        ("en", "fr", r"no English into 'fr'.*: give --target one of ar ca cy de et fa .* zh-CN\."),
        ("en", "zh_CN", r"did you mean 'zh-CN'\?"),
        ("fr", "de", r"no 'fr' into 'de': one of --source and --target has to be en\."),
    ],
)
def test_directions_that_are_not_there(whole: Path, command, refused, tmp_path: Path, source, target, message):
    assert re.search(message, refused("--corpus", whole, "--source", source, "--target", target))
    with pytest.raises(UserError, match=message):
        command("download", "--out", tmp_path / "d", "--source", source, "--target", target)


def test_download(server, monkeypatch, tmp_path: Path, command, capsys):
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w:gz") as tar:
        content = b"path\ttranslation\tsplit\n"
        member = tarfile.TarInfo("covost_v2.fr_en.tsv")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    data = packed.getvalue()
    server.files["covost_v2.fr_en.tsv.tar.gz"] = data
    monkeypatch.setattr(corpus, "URL", server.url("{}"))
    monkeypatch.setitem(corpus.ARCHIVES, "fr_en", (len(data), hashlib.sha256(data).hexdigest()))
    command("download", "--out", tmp_path)
    assert (tmp_path / "covost_v2.fr_en.tsv").read_bytes() == content
    assert "get Common Voice's release 4 (cv-corpus-4-2019-12-10) of 'fr' from https" in capsys.readouterr().out


def test_wrong_folders(whole: Path, copy: Path, tmp_path: Path, refused):
    message = refused("--corpus", tmp_path / "nothing")
    assert "nothing does not exist: get Common Voice's release 4 (cv-corpus-4-2019-12-10) of 'fr' from" in message
    assert f"(did you mean '--corpus {copy}'?)" in refused("--corpus", copy / "clips")
    shutil.rmtree(copy / "clips")
    assert refused("--corpus", copy.parent).startswith(f"{copy} lacks clips: get Common Voice's")
    message = refused("--corpus", whole / "fr", "--translations", tmp_path, "--source", "de")
    assert message == f"covost_v2.de_en.tsv is not in {tmp_path}: run 'python -m local.covost2 download' (stage 0)."


def test_tables_that_cannot_be_read(copy: Path, refused):
    table, validated = copy.parent / "covost_v2.fr_en.tsv", copy / "validated.tsv"
    kept = validated.read_text("utf-8")
    validated.write_bytes(kept.encode("latin-1", "replace"))
    assert f"{validated} is not text in UTF-8: unpack Common Voice's archive again" in refused("--corpus", copy.parent)
    validated.write_text(kept.replace("sentence", "text", 1), "utf-8")
    message = refused("--corpus", copy.parent)
    assert message.startswith(f"{validated} has no column 'sentence' but client_id, path, text, up_votes")
    validated.write_text(kept.replace("common_voice_fr", "common_voice_de"), "utf-8")
    message = refused("--corpus", copy.parent)
    assert message.startswith(f"{validated} has none of the clips that {table} has in train and dev and test: is it")
    lines = kept.splitlines(keepends=True)
    validated.write_text("".join(lines[: len(lines) * 4 // 5]), "utf-8")  # half a download
    message = refused("--corpus", copy.parent)
    assert re.search(rf"{validated} lacks \d+ of the \d+ clips that {table} has: unpack Common Voice's", message)
    validated.write_text(kept.replace(lines[3][:9], f"\0{lines[3][:9]}", 1) + "a" * 200_000, "utf-8")
    assert re.search(
        rf"{validated}, line \d+, is damaged \(.*\): unpack Common Voice's", refused("--corpus", copy.parent)
    )
    validated.write_text(kept, "utf-8")
    table.write_text("")
    assert f"{table} has no column 'path' but no line: run" in refused("--corpus", copy.parent)


def test_rows_that_differ_are_left_out(copy: Path, tmp_path: Path, manifests):
    table = copy.parent / "covost_v2.fr_en.tsv"
    clip = table.read_text("utf-8").splitlines()[1].split("\t")[0]
    with open(table, "a", encoding="utf-8") as file:
        file.write(f"{clip}\tSomething else.\ttrain\n")
    lines = (copy / "validated.tsv").read_text("utf-8")
    (copy / "validated.tsv").write_text(lines + lines.splitlines()[5] + "\n", "utf-8")  # the same row twice: once
    manifests("--corpus", copy.parent, "--out", tmp_path / "m")
    assert left_out(tmp_path / "m")[clip.removesuffix(".mp3")] == "duplicate id"
    assert len(rows(tmp_path / "m", "train")) == SIZES["train"]


@pytest.mark.parametrize(("name", "column"), [("validated.tsv", 2), ("../covost_v2.fr_en.tsv", 1)])
def test_a_row_with_a_tab_too_many_is_left_out(name: str, column: int, copy: Path, tmp_path: Path, manifests):
    lines = (copy / name).read_text("utf-8").splitlines()
    cells = lines[5].split("\t")
    cells[column] = "a\tb"
    (copy / name).write_text("\n".join([*lines[:5], "\t".join(cells), *lines[6:], ""]), "utf-8")
    manifests("--corpus", copy.parent, "--out", tmp_path / "m")
    assert list(left_out(tmp_path / "m").values()).count("malformed") == 1


def test_half_an_unpacked_archive(copy: Path, refused):
    for path in sorted((copy / "clips").iterdir())[::3]:
        path.unlink()
    message = refused("--corpus", copy.parent)
    assert "of its 50 utterances are unusable" in message and message.endswith("unpack Common Voice's archive again.")
