"""The Asterisk corpus from packages to manifests, on the real packages."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, RecordingSet, SupervisionSet

import local.asterisk as corpus
from local.archives import download_archives
from local.asterisk_prompts import NON_SPEECH, find_language, read_lines, read_prompts, repair
from local.fetch import Archive
from local.text import LANGUAGES
from utils.errors import UserError

SPLITS = ("train", "dev", "test")


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "local.asterisk", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def manifests(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["asterisk", "manifests", *map(str, arguments)])
    corpus.main()


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        manifests(monkeypatch, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def supervisions(folder: Path) -> dict[str, list[dict]]:
    rows = {}
    for split in SPLITS:
        lines = gzip.decompress((folder / f"{split}_supervisions.jsonl.gz").read_bytes()).decode().splitlines()
        rows[split] = [json.loads(line) for line in lines]
    return rows


@pytest.fixture(scope="module")
def everything(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests of the whole real corpus."""
    out = tmp_path_factory.mktemp("whole") / "data" / "manifests"
    with pytest.MonkeyPatch.context() as patch:
        manifests(patch, "--corpus", real_corpus, "--out", out, "--audio", real_corpus / "audio")
    return out


# ---- prompt lists


def test_lists_with_marks_comments_and_second_lines(tmp_path: Path):
    path = tmp_path / "core-sounds-es.txt"
    path.write_bytes("\ufeff; Spanish\r\n\r\ndigits/0: cero\r\ndigits/0: diez\r\ndir-welcome:\r\nx: a: b\r\n".encode())
    assert read_lines(path) == {"digits/0": "cero", "digits/0 (again)": "diez", "dir-welcome": "", "x": "a: b"}
    prompts = read_prompts(path, "es", {"digits/0", "digits/10", "letters/ascii40"})
    assert {name: prompt.text for name, prompt in prompts.items()} == {
        "digits/0": "cero",
        "digits/10": "diez",
        "dir-welcome": "",
        "x": "a b",
        "letters/ascii40": "",
    }


def test_unreadable_lists(tmp_path: Path):
    path = tmp_path / "core-sounds-en.txt"
    path.write_text("hello: Hello.\nno prompt here\n")
    with pytest.raises(UserError, match=r"line 2 is not of the form"):
        read_lines(path)
    path.write_bytes(b"hello: \xff\xfe")
    with pytest.raises(UserError, match=r"core-sounds-en.txt cannot be read"):
        read_lines(path)
    packed = tmp_path / "core-sounds-en.txt.gz"
    packed.write_bytes(gzip.compress(b"hello: Hello." * 100)[:-20])
    with pytest.raises(UserError, match=r"core-sounds-en.txt.gz cannot be read"):
        read_lines(packed)


def test_lines_run_together_and_lost_letters():
    prompts = {"vm-tempremoved", "vm-then-pound", "conf-adminmenu", "conf-full"}
    joined = "Il tuo messaggio è stato eliminato vm-then-pound: poi premere cancelletto"
    assert repair("vm-tempremoved", joined, "it", prompts) == "Il tuo messaggio è stato eliminato"
    assert repair("conf-adminmenu", "conf-adminmenu: Нажмите 1", "ru", prompts) == "Нажмите 1"
    assert repair("conf-full", "La conferenza ? piena.", "it", prompts) == "La conferenza è piena."
    assert repair("conf-full", "non pu? essere cos? pi? tardi", "it", prompts) == "non può essere così più tardi"
    assert repair("conf-full", "Casella di posta?", "it", prompts) == "Casella di posta?"
    menu = "Marque 1 para oír, 2 para borrar, 4 o 6 para subir, o 3 para salir."
    spoken = "Marque el número 1 para oír, número 2 para borrar, número 4 o 6 para subir, o número 3 para salir."
    assert repair("vm-opts", menu, "es", prompts) == spoken
    assert (
        repair("vm-opts", "Presione 1 para oír, 2 para borrar.", "es", prompts) == "Presione 1 para oír, 2 para borrar."
    )
    assert repair("vm-opts", "marque 500 ahora", "es", prompts) == "marque 500 ahora"
    menu = "au menu poli (ne m'appelez plus, jamais), 4"
    assert repair("priv-callee-options", menu, "fr", prompts) == "au menu poli ne m'appelez plus, jamais, 4"
    assert repair("demo-instruct", "extension 1234, dial 500", "en", prompts) == "extension 1 2 3 4, dial 500"
    assert repair("conf-full", "comme suit: pour quitter", "fr", prompts) == "comme suit: pour quitter"


def test_real_lists_keep_no_traces_of_their_mistakes(real_corpus: Path):
    voices = corpus.read_corpus(real_corpus, list(LANGUAGES))
    for language, voice in voices.items():
        assert len(voice.prompts) > 480
        for name, prompt in voice.prompts.items():
            words = prompt.text.split()
            assert not set(prompt.text) & set("0123456789?!.,:;()[]<>\ufeff…“”«»*#"), (language, name)
            assert not any(word in voice.prompts and "-" in word and word != name for word in words), (language, name)
            assert prompt.text == prompt.text.lower().strip()
            assert name not in NON_SPEECH or prompt.text == ""
    assert voices["es"].prompts["digits/10"].text == "diez"
    assert voices["it"].prompts["letters/o"].text == "o"
    assert voices["it"].prompts["conf-full"].text == "la conferenza è piena"
    assert voices["ru"].prompts["vm-first"].text == "первое"
    assert voices["it"].prompts["vm-then-pound"].text == "poi premere cancelletto"
    assert voices["it"].prompts["vm-then-pound"].raw == "quindi premere sterlina"


# ---- splits


def test_no_prompt_and_no_text_is_in_two_splits(everything: Path):
    by_split = supervisions(everything)
    for key in ("prompt", "family"):
        seen = [{row["custom"][key] for row in by_split[split]} for split in SPLITS]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    texts = defaultdict(set)
    for split, rows in by_split.items():
        for row in rows:
            for language, text in {row["language"]: row["text"], **row["custom"]["translation"]}.items():
                if text:
                    texts[language, text].add(split)
    assert len(texts) > 2000
    assert all(len(splits) == 1 for splits in texts.values())
    families = {row["custom"]["prompt"]: row["custom"]["family"] for rows in by_split.values() for row in rows}
    for group in ("vm-", "conf", "agent-"):
        assert len({family for prompt, family in families.items() if prompt.startswith(group)}) == 1


def test_shares_and_kinds_of_the_splits(everything: Path):
    by_split = {split: [row for row in rows if row["text"]] for split, rows in supervisions(everything).items()}
    minutes = {split: sum(row["duration"] for row in rows) / 60 for split, rows in by_split.items()}
    total = sum(minutes.values())
    assert 120 < total < 130
    assert 0.07 < minutes["dev"] / total < 0.10
    assert 0.08 < minutes["test"] / total < 0.12
    for split in ("dev", "test"):
        sizes = np.array([len(row["text"].split()) for row in by_split[split]])
        assert np.mean(sizes <= 2) < 0.7
        assert np.sum((sizes > 2) & (sizes <= 30)) > 60
        for language in LANGUAGES:
            assert sum(row["language"] == language for row in by_split[split]) >= 30


def test_splits_do_not_depend_on_the_languages_asked_for(everything: Path, real_corpus: Path, tmp_path, monkeypatch):
    audio = ("--audio", real_corpus / "audio")
    manifests(monkeypatch, "--corpus", real_corpus, "--out", tmp_path / "m", "--languages", "fr", *audio)
    whole, part = supervisions(everything), supervisions(tmp_path / "m")
    for split in SPLITS:
        assert part[split] == [row for row in whole[split] if row["language"] == "fr"]
        assert part[split]


# ---- manifests


def test_manifests_load_with_their_audio_from_anywhere(everything: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cuts = CutSet.from_manifests(
        recordings=RecordingSet.from_file(everything / "test_recordings.jsonl.gz"),
        supervisions=SupervisionSet.from_file(everything / "test_supervisions.jsonl.gz"),
    )
    for cut in list(cuts)[::20]:
        audio = cut.load_audio()
        assert cut.sampling_rate == 16000
        assert audio.shape == (1, cut.num_samples)
        assert 0.001 < np.abs(audio).max() <= 1 or not cut.supervisions[0].text
        (supervision,) = cut.supervisions
        assert supervision.id == supervision.recording_id == cut.recording.id
        assert supervision.language not in supervision.custom["translation"]


def test_translations_are_the_texts_of_the_same_prompt(everything: Path):
    rows = [row for split in supervisions(everything).values() for row in split]
    text = {(row["language"], row["custom"]["prompt"]): row["text"] for row in rows}
    checked = 0
    for row in rows:
        for language, translation in row["custom"]["translation"].items():
            if (language, row["custom"]["prompt"]) in text:
                assert translation == text[language, row["custom"]["prompt"]]
                checked += 1
    assert checked > 8000


def test_miniature_with_damaged_audio(miniature: Path, tmp_path: Path, monkeypatch, capsys):
    sounds = find_language(miniature, "it")[1]
    first, second, *_ = sorted(sounds.rglob("*.g722"))
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:801])
    out = tmp_path / "data/manifests"
    manifests(monkeypatch, "--corpus", miniature, "--out", out, "--languages", "it", "ru")
    name = str(first.relative_to(sounds).with_suffix("")).replace("/", "-")
    assert [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()] == [
        {"id": f"it_{name}", "reason": "empty", "detail": "empty"}
    ]
    rows = [row for split in supervisions(out).values() for row in split]
    assert len(rows) == 23
    assert all("en" in row["custom"]["translation"] for row in rows)
    assert "1 left out" in capsys.readouterr().out
    flacs = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/audio").rglob("*.flac")}
    broken = sorted(flacs)[3]
    broken.write_bytes(b"half a file")
    manifests(monkeypatch, "--corpus", miniature, "--out", out, "--languages", "it", "ru")
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/audio").rglob("*.flac")}
    assert [path for path in flacs if flacs[path] != again[path]] == [broken]  # only what was broken is made again
    assert summary_minutes(out) == pytest.approx(sum(row["duration"] for row in rows) / 60, abs=0.05)


def summary_minutes(out: Path) -> float:
    summary = json.loads((out / "summary.json").read_text())
    return sum(split["languages"]["all"]["minutes"] for split in summary["splits"].values())


def test_miniature_has_all_splits_and_is_the_same_each_time(miniature: Path, tmp_path: Path, monkeypatch):
    for name in ("a", "b"):
        manifests(monkeypatch, "--corpus", miniature, "--out", tmp_path / name, "--languages", "en", "it", "ru")
    assert supervisions(tmp_path / "a") == supervisions(tmp_path / "b")
    assert all(supervisions(tmp_path / "a").values())


# ---- downloads


def test_damaged_folder_is_repaired_without_the_network(real_corpus: Path, tmp_path: Path, monkeypatch):
    archives = real_corpus / "archives"
    if not list(archives.glob("*.deb")):
        pytest.skip("the corpus came from upstream here")
    real = next(archives.glob("asterisk-core-sounds-it-g722_*.deb"))
    archive = Archive(real.name, real.stat().st_size, corpus.DEBIAN["asterisk-core-sounds-it-g722"])
    path = tmp_path / "archives" / real.name
    path.parent.mkdir()
    path.symlink_to(real.resolve())
    assert download_archives([archive], tmp_path) > 590
    sounds = sorted((tmp_path / "usr/share/asterisk/sounds").rglob("*.g722"))
    whole = sounds[7].read_bytes()
    sounds[7].write_bytes(whole[:100])
    sounds[8].unlink()
    stamp = path.with_name(path.name + ".files.json").read_text()
    download_archives([archive], tmp_path)
    assert sounds[7].read_bytes() == whole and sounds[8].exists()
    assert path.with_name(path.name + ".files.json").read_text() == stamp


def test_upstream_archives(miniature: Path, tmp_path: Path, monkeypatch):
    """Upstream's flat archives from a file:// address, made of the miniature; then manifests of them."""
    known = {}
    for language in ("en", "ru"):
        listing, sounds = find_language(miniature, language)
        path = tmp_path / "server" / f"asterisk-core-sounds-{language}-g722-1.6.1.tar.gz"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            text = gzip.decompress(listing.read_bytes())
            member = tarfile.TarInfo(f"./core-sounds-{language}.txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
            tar.addfile(evil := tarfile.TarInfo("../outside.g722"), io.BytesIO(b""))
            assert evil.isfile()
            for sound in sorted(sounds.rglob("*.g722")):
                tar.add(sound, str(sound.relative_to(sounds)))
        known[language] = (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(corpus, "UPSTREAM", known)
    monkeypatch.setattr(corpus, "UPSTREAM_URL", f"file://{tmp_path}/server/")
    out = tmp_path / "downloads"
    argv = ["asterisk", "download", "--out", str(out), "--source", "upstream", "--languages", "en", "ru"]
    monkeypatch.setattr(sys, "argv", argv)
    corpus.main()
    assert not list(tmp_path.rglob("outside*"))
    (tmp_path / "server").rename(tmp_path / "gone")
    corpus.main()  # all there: needs no server
    manifests(monkeypatch, "--corpus", out, "--out", tmp_path / "m", "--languages", "en", "ru")
    assert sum(map(len, supervisions(tmp_path / "m").values())) == 24


# ---- wrong input


def test_wrong_folders(miniature: Path, tmp_path: Path, monkeypatch):
    out = ("--out", tmp_path / "m")
    assert "does not exist: run 'python -m local.asterisk download" in refused(
        monkeypatch, "--corpus", tmp_path / "nowhere", *out
    )
    assert "lacks the Spanish transcripts and sounds" in refused(monkeypatch, "--corpus", miniature, *out)
    assert "(did you mean 'it'?)" in refused(monkeypatch, "--corpus", miniature, *out, "--languages", "ita")
    listing, sounds = find_language(miniature, "en")
    for path in sorted(sounds.rglob("*.g722"))[:5]:
        path.unlink()
    message = refused(monkeypatch, "--corpus", miniature, *out, "--languages", "en")
    assert "is half there: 5 of the 12 prompts in its list have no audio" in message
    listing.unlink()
    message = refused(monkeypatch, "--corpus", miniature, *out, "--languages", "en")
    assert "lacks the English transcripts (core-sounds-en.txt)" in message
    assert not (tmp_path / "m").exists()


def test_a_mistake_is_one_line_and_a_failure(tmp_path: Path):
    result = command("manifests", "--corpus", tmp_path / "nowhere", "--out", tmp_path / "m")
    assert result.returncode == 1
    assert result.stderr.startswith("error: Corpus folder") and result.stderr.count("\n") == 1
    result = command("manifests", "--corpora", "x", "--corpus", "x", "--out", "y")
    assert result.returncode == 2 and "--corpora x (did you mean '--corpus'?)" in result.stderr


def test_output_that_cannot_be_made(miniature: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = command("manifests", "--corpus", miniature, "--out", tmp_path / "file/m", "--languages", "en")
    assert result.returncode == 1 and "not a folder" in result.stderr and "Traceback" not in result.stderr
