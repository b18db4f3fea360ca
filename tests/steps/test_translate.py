"""steps.translate: cascades, n-best lists, transcripts, plain text; translators of ours and of transformers."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import torch
import yaml

from steps.score import main as score
from steps.search.translation import SearchOptions
from steps.train import main as train
from steps.translate import main
from steps.translator import TextTranslator, Translation
from steps.translator_folder import load_translator
from tests.steps.parallel import EN, FR, settings, write_langs, write_lines, write_rows, write_supervisions
from tests.steps.tiny_translators import WRITERS
from utils.errors import UserError
from utils.files import read_json, read_jsonl

CPU = torch.device("cpu")
LAYER = {"dim": 48, "layers": 2, "heads": 2, "feedforward_dim": 96, "dropout": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A transformer that has learned twenty sentences by heart."""
    root = tmp_path_factory.mktemp("mt")
    values = {**settings(root, LAYER), "epochs": 130, "log_every": 1000, "probe": False}
    (root / "conf.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["steps.train", str(root / "conf.yaml"), "--out", str(root / "exp" / "mt")])
        assert train() == 0
    return root / "exp" / "mt"


@pytest.fixture
def decoded(tmp_path):
    """What a recogniser heard of three utterances, with a second guess each; the third best is right twice."""
    folder = tmp_path / "asr" / "decode" / "dev.ctc.prefix_beam"
    heard = [[EN[0], EN[5]], ["a man rans on teh beach", EN[1]], ["", EN[2]]]
    rows, lists = [], []
    for i, texts in enumerate(heard):
        row = {"id": f"u{i:02d}", "language": "en", "target": "text", "ref": EN[i], "hyp": texts[0], "score": -1.0}
        rows.append({**row, "duration": 2.0, "translation": {"fr": FR[i]}, "subsets": {"odd": i % 2 == 1}})
        entries = [{"hyp": text, "score": -1.0 - 0.5 * rank} for rank, text in enumerate(texts)]
        lists.append({"id": row["id"], "nbest": [*entries, {**entries[0], "score": -9.0}]})
    write_rows(folder / "hyp.jsonl", rows)
    write_rows(folder / "nbest.jsonl", lists)
    about = {"model": "exp/asr", "split": "dev", "head": "ctc", "method": "prefix_beam", "target": "text"}
    about |= {"utterances": 3, "seconds": 0.5, "rtf": 0.1, "parameters": 1000}
    (folder / "decode.json").write_text(json.dumps(about))
    return folder


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def rows_of(folder) -> list[dict]:
    return list(read_jsonl(folder / "hyp.jsonl"))


def test_what_was_recognised_is_translated(model, decoded, tmp_path, capsys):
    out = tmp_path / "cascade" / "decode" / "dev.mt.beam"
    assert run("--model", model, "--in", decoded, "--out", out, "--system", "cascade") == 0
    assert "3 texts, 1 empty, whose translations are empty too" in capsys.readouterr().out
    first, second, third = rows_of(out)
    assert first["hyp"] == first["ref"] == FR[0] and first["source"] == first["input"] == EN[0]
    assert second["source"] == EN[1] and second["input"] == "a man rans on teh beach" and second["ref"] == FR[1]
    assert third["hyp"] == "" and third["input"] == "" and third["source"] == EN[2]
    assert second["subsets"] == {"odd": True} and second["duration"] == 2.0 and second["language"] == "en"
    about = read_json(out / "decode.json")
    assert about["system"] == "cascade" and about["target"] == "translation.fr" and about["split"] == "dev"
    asr, mt = about["stages"]
    assert (asr["model"], mt["model"]) == ("exp/asr", str(model)) and about["utterances"] == 3
    assert about["seconds"] == pytest.approx(asr["seconds"] + mt["seconds"], abs=1e-5)
    assert about["rtf"] == pytest.approx(about["seconds"] / 6.0, abs=1e-5)
    assert 10 < about["peak_memory_mb"] < 1 << 20
    assert about["parameters"] == 1000 + mt["parameters"] and not (out / "nbest.jsonl").exists()


def test_the_translation_chooses_among_hypotheses(model, decoded, tmp_path):
    out = tmp_path / "out"
    common = ("--model", model, "--in", decoded, "--nbest", 3, "--out", out)
    assert run(*common, "--asr-scale", 0.0) == 0
    found, lists = rows_of(out), list(read_jsonl(out / "nbest.jsonl"))
    assert [len(row["nbest"]) for row in lists] == [2, 2, 2]  # a text that is there twice counts once
    for row, entries in zip(found, lists, strict=True):
        scores = [entry["score"] for entry in entries["nbest"]]
        assert scores == sorted(scores, reverse=True) and row["hyp"] == entries["nbest"][0]["hyp"]
    assert found[1]["hyp"] == FR[1] and found[1]["asr_score"] == -1.5  # what it knows is likelier to be translated
    assert run(*common, "--asr-scale", 1000.0) == 0
    assert [row["input"] for row in rows_of(out)] == [EN[0], "a man rans on teh beach", ""]
    assert read_json(out / "decode.json")["stages"][1]["options"]["asr_scale"] == 1000.0


def test_the_reference_is_translated_beside_it(model, decoded, tmp_path, capsys):
    out = tmp_path / "mt" / "decode" / "dev.reference.beam"
    assert run("--model", model, "--in", decoded, "--reference", "--out", out) == 0
    assert [row["hyp"] for row in rows_of(out)] == FR[:3] and [row["input"] for row in rows_of(out)] == EN[:3]
    about = read_json(out / "decode.json")
    assert "stages" not in about and about["split"] == "dev" and "asr_score" not in rows_of(out)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["steps.score", str(out), "--bootstrap", "0"])
        score()
    assert "bleu 100.00" in capsys.readouterr().out


def test_references_may_come_from_cuts(model, decoded, tmp_path):
    rows = [{key: row[key] for key in row if key != "translation"} for row in rows_of(decoded)]
    write_rows(decoded / "hyp.jsonl", rows)
    cuts = write_supervisions(tmp_path / "cuts.jsonl.gz")
    assert run("--model", model, "--in", decoded, "--cuts", cuts, "--out", tmp_path / "out") == 0
    assert [row["ref"] for row in rows_of(tmp_path / "out")] == FR[:3]
    assert run("--model", model, "--in", decoded, "--out", tmp_path / "out") == 0
    assert [row["ref"] for row in rows_of(tmp_path / "out")] == [None] * 3


def test_transcripts_and_plain_text(model, tmp_path, capsys, monkeypatch):
    cuts, names = write_supervisions(tmp_path / "data" / "dev" / "cuts.jsonl.gz"), write_lines(tmp_path, "test")
    assert run("--model", model, "--in", cuts, "--out", tmp_path / "a") == 0
    assert run("--model", model, "--in", names["source"], "--references", names["target"], "--out", tmp_path / "b") == 0
    for folder, split in (("a", "dev"), ("b", "test")):
        assert [row["hyp"] for row in rows_of(tmp_path / folder)] == [row["ref"] for row in rows_of(tmp_path / folder)]
        assert read_json(tmp_path / folder / "decode.json")["split"] == split
        assert [row["language"] for row in rows_of(tmp_path / folder)] == ["en"] * 20
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{EN[3]}\n\n{EN[4]}\n"))
    assert run("--model", model, "--in", "-") == 0
    assert capsys.readouterr().out == f"{FR[3]}\n\n{FR[4]}\n"
    assert run("--model", model, "--in", names["source"], "--out", tmp_path / "test.fr") == 0
    assert (tmp_path / "test.fr").read_text().splitlines() == FR


def test_the_batch_changes_nothing(model):
    def translate(texts, tokens) -> list[list[Translation]]:
        options = SearchOptions(beam=3, nbest=3)
        return TextTranslator(*load_translator(model), options, CPU, max_tokens=tokens)(texts, ["en"] * len(texts))

    texts = [*EN[:6], "", "a man", "two dogs look at the red book on the beach"]
    for one, other in zip(translate(texts, 1), translate(texts, 10000), strict=True):
        assert [found.text for found in one] == [found.text for found in other]
        assert [found.score for found in one] == pytest.approx([found.score for found in other], abs=1e-4)


def test_out_of_memory_goes_on_in_halves_and_then_on_the_cpu(model, monkeypatch, capsys):
    translator = TextTranslator(*load_translator(model), SearchOptions(), CPU)
    sizes, original = [], TextTranslator._search

    def search(self, source, *more):
        sizes.append((self.device.type, len(source)))
        if self.device.type == "meta" or len(source) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(self, source, *more)

    monkeypatch.setattr(TextTranslator, "_search", search)
    whole = translator(EN[:5], ["en"] * 5)
    assert [best[0].text for best in whole] == FR[:5] and max(sizes) == ("cpu", 5)
    translator.device = torch.device("meta")
    assert [best[0].text for best in translator(EN[:3], ["en"] * 3)] == FR[:3]
    assert translator.device.type == "cpu" and "has no room for a single text: the CPU" in capsys.readouterr().err
    nowhere = replace(translator, device=torch.device("meta"))
    monkeypatch.setattr(TextTranslator, "_search", lambda self, *batch: search(nowhere, *batch))
    with pytest.raises(UserError, match="Out of memory on cpu for a single text"):
        translator(EN[:3], ["en"] * 3)


def test_a_text_that_is_too_long_is_cut(model):
    translator = TextTranslator(*load_translator(model), SearchOptions(), CPU)
    translator.model.longest = 10
    assert translator(["a man sleeps on the beach"], ["en"])[0][0].text and translator.cut == 1


@pytest.mark.parametrize("kind", sorted(WRITERS))
@pytest.mark.parametrize("beam", [1, 3])
def test_a_model_of_transformers_as_it_is(kind, beam, tmp_path, capsys):
    folder, names = WRITERS[kind](tmp_path), write_lines(tmp_path, "test")
    options = ("--in", names["source"], "--max-tokens", 12, "--beam", beam)
    assert run("--model", folder, *options, "--target-language", "fr") == 0
    lines = capsys.readouterr().out.splitlines()
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    theirs, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    first = {"forced_bos_token_id": tokenizer.get_lang_id("fr")} if kind == "m2m100" else {}
    for line, text in zip(lines, EN[:4], strict=False):
        ids = theirs.generate(
            **tokenizer(text, return_tensors="pt", return_token_type_ids=False),
            num_beams=beam,
            max_new_tokens=12,
            **first,
        )
        kept = [i for i in ids[0].tolist() if i != first.get("forced_bos_token_id")]
        assert line == " ".join(tokenizer.decode(kept, skip_special_tokens=True).split())
    out = tmp_path / "out"
    options += ("--target-language", "fr", "--references", names["target"])
    assert run("--model", folder, *options, "--out", out) == 0
    assert [row["hyp"] for row in rows_of(out)] == lines and rows_of(out)[0]["target"] == "translation.fr"
    row = rows_of(out)[0]
    assert row["translation_score"] / 12 - 0.01 <= row["score"] < 0 or row["score"] == row["translation_score"]


def test_case_and_punctuation_between_recogniser_and_translator(model, decoded, tmp_path):
    langs = write_langs(tmp_path)
    sides = {"source": {"strip": True, "lang": langs["source"]}, "target": {"target": "text", "lang": langs["source"]}}
    lines = write_lines(tmp_path)["source"]
    values = {"translator": {"name": "transformer", "encoder": LAYER, "decoder": LAYER}, **sides, "epochs": 1}
    values |= {"data": {"train": {"source": lines, "target": lines}}, "precision": "float32", "probe": False}
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["steps.train", str(tmp_path / "conf.yaml"), "--out", str(tmp_path / "restore")])
        assert train() == 0
    middle, end = tmp_path / "restored", tmp_path / "cascade"
    assert run("--model", tmp_path / "restore", "--in", decoded, "--out", middle, "--max-tokens", 5) == 0
    assert [row["ref"] for row in rows_of(middle)] == EN[:3] and read_json(middle / "decode.json")["target"] == "text"
    assert run("--model", model, "--in", middle, "--out", end) == 0
    assert [row["ref"] for row in rows_of(end)] == FR[:3] and [row["source"] for row in rows_of(end)] == EN[:3]
    assert [row["input"] for row in rows_of(end)] == [row["hyp"] for row in rows_of(middle)]
    stages = read_json(end / "decode.json")["stages"]
    assert [stage["model"] for stage in stages] == ["exp/asr", str(tmp_path / "restore"), str(model)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--model": "nowhere/at/all"}, r"used as it is: give the --target-language"),
        ({"--model": "nowhere/at/all", "--target-language": "fr"}, r"nowhere/at/all is no folder"),
        ({"--in": "nowhere"}, r"nowhere does not exist"),
        ({"--out": None}, r"give the decode folder to write with --out"),
        ({"--target-language": "fr"}, r"--target-language is for a model of transformers as it is"),
        ({"--prefix": "x"}, r"--prefix is for a model of transformers as it is"),
        ({"--nbest": 4, "--reference": True}, r"--reference translates what was said"),
        ({"--references": "x.fr"}, r"--references is for plain text"),
        ({"--source-language": "en"}, r"--source-language is for plain text"),
        ({"--checkpoint": "epoch-9.pt"}, r"epoch-9\.pt does not exist: there are averaged\.pt"),
        ({"--cuts": "nowhere.jsonl.gz"}, r"nowhere\.jsonl\.gz does not exist"),
        ({"--precision": "fp16"}, r"--precision fp16 needs a GPU"),
        ({"--device": "cuda:77"}, r"cuda"),
    ],
)
def test_a_mistake_is_one_sentence(model, decoded, tmp_path, change, sentence):
    options = {"--model": model, "--in": decoded, "--out": tmp_path / "out", "--device": "cpu", **change}
    given = [(key, value) for key, value in options.items() if value is not None]
    words = [word for pair in given for word in pair if word is not True]
    with pytest.raises(UserError, match=sentence) as caught:
        run(*words)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_what_is_in_the_target_language_already_is_left_out(model, decoded, tmp_path):
    rows = list(read_jsonl(decoded / "hyp.jsonl"))
    write_rows(decoded / "hyp.jsonl", [{**rows[0], "language": "fr"}, *rows[1:]])
    assert run("--model", model, "--in", decoded, "--out", tmp_path / "out") == 0
    assert [row["id"] for row in rows_of(tmp_path / "out")] == ["u01", "u02"]
    write_rows(decoded / "hyp.jsonl", [{**row, "language": "fr"} for row in rows])
    with pytest.raises(UserError, match=r"has no utterance to translate into fr in any of its 3 rows"):
        run("--model", model, "--in", decoded, "--out", tmp_path / "out")


def test_inputs_that_do_not_fit_are_one_sentence(model, decoded, tmp_path):
    common = ("--model", model, "--in", decoded, "--out", tmp_path / "out")
    cuts = write_rows(tmp_path / "cuts.jsonl", [])
    with pytest.raises(UserError, match=r"--cuts .* has none of the utterances"):
        run(*common, "--cuts", cuts)
    (decoded / "nbest.jsonl").unlink()
    with pytest.raises(UserError, match=r"--nbest 2: .*nbest\.jsonl does not exist: decode with --nbest 2"):
        run(*common, "--nbest", 2)
    write_rows(decoded / "hyp.jsonl", [{"id": "u", "hyp": "a", "ref": None}])
    with pytest.raises(UserError, match=r"has no transcript \('ref'\)"):
        run(*common, "--reference")
    write_rows(decoded / "hyp.jsonl", [{"id": "u"}])
    with pytest.raises(UserError, match=r"entry 1: no 'id' and 'hyp'"):
        run(*common)
    write_rows(decoded / "hyp.jsonl", [{"id": "u", "hyp": "a"}])
    write_rows(decoded / "nbest.jsonl", [{"id": "u", "nbest": [{"hyp": "a"}]}])
    with pytest.raises(UserError, match=r"nbest.jsonl, entry 1: no n-best list of an utterance"):
        run(*common, "--nbest", 2)
    (decoded / "hyp.jsonl").write_text("")
    with pytest.raises(UserError, match=r"hyp.jsonl is empty"):
        run(*common)
    for name in ("a.en", "a.fr"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"a.en is empty: give a text"):
        run("--model", model, "--in", tmp_path / "a.en", "--references", tmp_path / "a.fr", "--out", tmp_path / "out")
    names = write_lines(tmp_path)
    (tmp_path / "short.fr").write_text("Un seul.\n")
    with pytest.raises(UserError, match=r"short\.fr has 1 lines, .* has 20"):
        run("--model", model, "--in", names["source"], "--references", tmp_path / "short.fr", "--out", tmp_path / "out")
    (decoded.parent / "config.yaml").write_text("encoder: {name: zipformer}\n")
    with pytest.raises(UserError, match="is a model of speech: give a translator"):
        run("--model", decoded.parent, *common[2:])
