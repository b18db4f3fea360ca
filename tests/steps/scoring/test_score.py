"""steps.score as a user runs it: score.json, errors.txt, and one sentence for what is wrong with a decode folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from sacrebleu.metrics import BLEU


def result(folder) -> dict:
    return json.loads((folder / "score.json").read_text("utf-8"))


def utterance(**changes) -> dict:
    return {"id": "u1", "language": "fr", "target": "text", "ref": "a b c d", "hyp": "a x d", **changes}


def test_recognition(decode_folder, score):
    folder = decode_folder()
    status, out, _ = score(folder)
    found = result(folder)
    assert status == 0 and out.startswith(f"{folder}: wer ") and "(36 utterances" in out
    assert set(found["languages"]) == {"en", "fr", "ru"} and "bleu" not in found["all"]
    for key in ("insertions", "deletions", "substitutions", "reference", "hypothesis"):
        for measure in ("wer", "cer"):
            parts = [found["languages"][language][measure][key] for language in found["languages"]]
            assert found["all"][measure][key] == sum(parts)
    wer = found["all"]["wer"]
    errors = wer["insertions"] + wer["deletions"] + wer["substitutions"]
    assert wer["value"] == pytest.approx(100 * errors / wer["reference"], abs=1e-4)
    assert wer["low"] < wer["value"] < wer["high"]
    assert found["all"]["utterances"] == 36 and found["all"]["reference_words"] == wer["reference"]
    assert (folder / "errors.txt").read_text("utf-8").startswith(f"%WER {wer['value']:.2f} [ {errors} / ")


def test_known_numbers(decode_folder, score):
    rows = [utterance(), utterance(id="u2", language="it", ref="e f", hyp="e f g")]
    folder = decode_folder(rows=rows)
    score(folder)
    found = result(folder)
    assert found["all"]["wer"]["value"] == 50.0 and found["all"]["length_ratio"] == 1.0
    assert found["languages"]["fr"]["wer"] == {
        **{"value": 50.0, "low": 50.0, "high": 50.0, "insertions": 0, "deletions": 1, "substitutions": 1},
        **{"reference": 4, "hypothesis": 3},
    }
    assert found["languages"]["it"]["wer"]["value"] == 50.0 and found["languages"]["it"]["wer"]["insertions"] == 1


def test_translation_leaves_out_what_is_already_in_the_target_language(decode_folder, score):
    folder = decode_folder(target="translation.en")
    status, out, _ = score(folder)
    found = result(folder)
    assert status == 0 and "24 utterances, 12 same language" in out
    assert set(found["languages"]) == {"fr", "ru"} and "wer" not in found["all"]
    assert found["not_scored"] == {"without_reference": 0, "same_language": 12}
    rows = sorted(map(json.loads, (folder / "hyp.jsonl").read_text("utf-8").splitlines()), key=lambda row: row["id"])
    for language in ("fr", "ru"):
        chosen = [row for row in rows if row["language"] == language]
        expected = BLEU().corpus_score([row["hyp"] for row in chosen], [[row["ref"] for row in chosen]])
        assert found["languages"][language]["bleu"]["value"] == pytest.approx(expected.score, abs=1e-4)
    listing = (folder / "errors.txt").read_text("utf-8")
    assert listing.startswith(f"%chrF {found['all']['chrf']['value']:.2f} over 24 utterances")


def test_sacrebleus_command_line_says_the_same(decode_folder, score, tmp_path):
    folder = decode_folder(target="translation.en")
    score(folder, "--bootstrap", 200)
    rows = [json.loads(line) for line in (folder / "hyp.jsonl").read_text("utf-8").splitlines()]
    rows = sorted((row for row in rows if row["language"] != "en"), key=lambda row: row["id"])
    for key in ("ref", "hyp"):
        (tmp_path / key).write_text("".join(f"{row[key]}\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "ref", "-i", tmp_path / "hyp", "-m", "bleu", "chrf", "ter"]
    done = subprocess.run(
        [*command, "--confidence", "--confidence-n", "200", "-w", "4"], capture_output=True, text=True
    )
    found = result(folder)
    lines = json.loads(done.stdout)
    assert len(lines) == 3
    for line in lines:
        name = {"BLEU": "bleu", "chrF2": "chrf", "TER": "ter"}[line["name"]]
        entry = found["all"][name]
        assert entry["value"] == pytest.approx(line["score"], abs=1e-4)
        assert (entry["high"] - entry["low"]) / 2 == pytest.approx(float(line["confidence_var"]), abs=1e-3)
        assert found["signatures"][name] == line["signature"]


def test_same_numbers_again_and_in_any_order(decode_folder, score):
    folder = decode_folder()
    score(folder)
    first, listing = result(folder), (folder / "errors.txt").read_bytes()
    rows = (folder / "hyp.jsonl").read_text("utf-8").splitlines()
    (folder / "hyp.jsonl").write_text("\n".join(reversed(rows)) + "\n", encoding="utf-8")
    score(folder)
    assert result(folder) == first and (folder / "errors.txt").read_bytes() == listing
    score(folder, "--seed", 7)
    assert result(folder)["all"]["wer"]["value"] == first["all"]["wer"]["value"]
    assert result(folder)["all"]["wer"]["low"] != first["all"]["wer"]["low"]


def test_no_bootstrap_no_intervals(decode_folder, score):
    folder = decode_folder(target="translation.en")
    score(folder, "--bootstrap", 0)
    assert "low" not in result(folder)["all"]["bleu"] and "bs:" not in result(folder)["signatures"]["bleu"]


def test_empty_output_counts_as_deletions(decode_folder, score):
    folder = decode_folder(rows=[utterance(hyp=""), utterance(id="u2", hyp="a b c d")])
    _, out, _ = score(folder)
    found = result(folder)["all"]
    assert found["empty_hypotheses"] == 1 and "1 empty hypotheses" in out
    assert found["wer"]["deletions"] == 4 and found["wer"]["value"] == 50.0 and found["length_ratio"] == 0.5


def test_all_outputs_empty(decode_folder, score):
    for target in ("text", "translation.en"):
        folder = decode_folder(
            target=target, rows=[utterance(hyp="", target=target), utterance(id="u2", hyp="", target=target)]
        )
        assert score(folder)[0] == 0
        found = result(folder)["all"]
        assert found["length_ratio"] == 0.0
        assert found["wer"]["value"] == 100.0 if target == "text" else found["bleu"]["value"] == 0.0


def test_empty_reference_counts_as_insertions_and_missing_reference_is_left_out(decode_folder, score):
    rows = [utterance(), utterance(id="u2", ref="", hyp="a b"), utterance(id="u3", ref=None)]
    folder = decode_folder(rows=rows)
    _, out, _ = score(folder)
    found = result(folder)
    assert found["all"]["utterances"] == 2 and found["all"]["wer"]["insertions"] == 2
    assert found["all"]["empty_references"] == 1 and found["not_scored"]["without_reference"] == 1
    assert "1 empty references" in out and "1 without reference" in out


def test_only_empty_references(decode_folder, score):
    folder = decode_folder(rows=[utterance(ref="", hyp="a b")])
    assert score(folder)[0] == 0
    assert result(folder)["all"]["wer"]["value"] is None and result(folder)["all"]["length_ratio"] is None
    assert (folder / "errors.txt").read_text("utf-8").startswith("%WER – [ 2 / 0, 2 ins")


def test_text_rules(decode_folder, score):
    folder = decode_folder(rows=[utterance(ref="Bonjour, l'été!", hyp="bonjour l'été")])
    score(folder)
    assert result(folder)["all"]["wer"]["value"] == 100.0
    assert result(folder)["text"]["references"] == {"casing": "mixed", "punctuation": "present"}
    score(folder, "--casing", "lower", "--punctuation", "remove")
    assert result(folder)["all"]["wer"]["value"] == 0.0
    assert result(folder)["text"]["casing"] == "lower" and result(folder)["text"]["punctuation"] == "removed"


def test_parent_folder_stands_for_its_runs(decode_folder, score):
    first, second = decode_folder(), decode_folder(method="beam")
    status, out, _ = score(first.parent, second)
    assert status == 0 and out.count("wer") == 2 and (first / "score.json").exists()


@pytest.mark.parametrize(
    ("rows", "about", "sentence"),
    [
        (['{"id": "u1", "hyp'], {}, "hyp.jsonl, line 1: not JSON"),
        (["[1, 2]"], {}, "hyp.jsonl, entry 1: no 'id' and 'hyp' texts in it"),
        ([utterance(), {"id": "u2", "ref": "a"}], {}, "hyp.jsonl, entry 2: no 'id' and 'hyp' texts in it"),
        ([utterance(hyp=None)], {}, "hyp.jsonl, entry 1: no 'id' and 'hyp' texts in it"),
        ([utterance(ref=["a"])], {}, "hyp.jsonl, entry 1: 'ref' is not a text"),
        ([utterance(refs="a")], {}, "hyp.jsonl, entry 1: 'refs' is not a list of texts"),
        ([utterance(source=["a"])], {}, "hyp.jsonl, entry 1: 'source' is not a text"),
        ([utterance(duration="2")], {}, "hyp.jsonl, entry 1: 'duration' is not a number of seconds"),
        ([utterance(subsets=["x"])], {}, "hyp.jsonl, entry 1: 'subsets' is not true or false by name"),
        ([utterance(subsets={"x": 1})], {}, "hyp.jsonl, entry 1: 'subsets' is not true or false by name"),
        ([utterance(language=3)], {}, "hyp.jsonl, entry 1: 'language' is not a text"),
        ([utterance(), utterance()], {}, "hyp.jsonl, entry 2: 'u1' is there twice"),
        ([utterance()], {"utterances": "x"}, "decode.json: 'utterances' is 'x', no number"),
        ([utterance()], {"utterances": True}, "decode.json: 'utterances' is True, no number"),
        ([utterance()], {"utterances": 2}, "hyp.jsonl has 1 of the 2 utterances of decode.json"),
        ([], {"utterances": 0}, "hyp.jsonl is empty"),
        ([utterance(ref=None)], {}, "no reference for 'text' in any of its 1 utterances"),
        ([utterance(target="translation.fr")], {"target": "translation.fr"}, "no reference for 'translation.fr'"),
        ([utterance()], {"target": "translation.en"}, "mix the targets text and translation.en"),
        ([utterance(target="texts")], {"target": "texts"}, "Target 'texts' is not a target"),
    ],
)
def test_bad_decode_folder_is_one_sentence(decode_folder, score, rows, about, sentence):
    folder = decode_folder(rows=rows, about=about)
    status, _, error = score(folder)
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1 and sentence in error
    assert not (folder / "score.json").exists()


def test_no_decode_folder_is_one_sentence(decode_folder, score, tmp_path):
    folder = decode_folder()
    (folder / "decode.json").unlink()
    for path, sentence in (
        (tmp_path / "exp" / "*" / "decode", "is not a decode folder: run stage 6 (decoding) first"),
        (tmp_path / "exp", "holds no hyp.jsonl: run stage 6 (decoding) first"),
        (folder, "decode.json does not exist: run stage 6 (decoding) first"),
    ):
        status, _, error = score(path)
        assert status == 1 and sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bootstrap", "-1"], "must not be negative"),
        (["--bootstrap", "many"], "argument --bootstrap: invalid int value: 'many'"),
        (["--bootstrap", "1"], "--bootstrap 1 is too few for intervals: give 100 or more, or 0 for none"),
        (["--casing", "lower", "lower"], "--casing lower lower: give each once"),
        (["--casing", "title"], "invalid choice: 'title'"),
        (["--baseline", "."], "--baseline is for the report: give --report FILE as well"),
        (["--baseline", ".", "--report", "/tmp/R.md"], ". holds no hyp.jsonl"),
        (["--select", "dev"], "--select is for the report: give --report FILE as well"),
        (["--reprot", "x"], "did you mean '--report'?"),
        (["--report", "/proc/R.md"], "--report /proc/R.md cannot be written in /proc ("),
        (["--report", "/dev/null/R.md"], "--report /dev/null/R.md cannot be written in /dev/null (Not a directory)"),
        (["--report", "/tmp"], "--report /tmp is a folder: give a file, such as /tmp/RESULTS.md"),
    ],
)
def test_wrong_options(decode_folder, score, arguments, sentence):
    folder = decode_folder()
    status, _, error = score(folder, *arguments)
    assert status in (1, 2) and sentence in error and error.count("\n") == 1
    assert not (folder / "score.json").exists()


def test_an_unknown_option_without_a_folder(score):
    status, _, error = score("--bogus")
    assert status == 2 and "unrecognized arguments: --bogus" in error


def test_a_report_in_a_folder_that_is_not_there_yet(decode_folder, score, tmp_path):
    assert score(decode_folder(), "--bootstrap", 0, "--report", tmp_path / "new" / "deep" / "R.md")[0] == 0
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["R.md"]


@pytest.mark.parametrize("content", [b"\x80\x02\xff\x00" * 50, b'{"id": "\xe9"}\n'])
def test_hypotheses_that_are_not_text(decode_folder, score, content):
    folder = decode_folder()
    (folder / "hyp.jsonl").write_bytes(content)
    status, _, error = score(folder)
    assert status == 1 and "hyp.jsonl is not text in UTF-8: run the stage" in error and error.count("\n") == 1


def test_ten_thousand_utterances_in_seconds(decode_folder, score):
    import time

    rows = [utterance(id=f"u{n}", ref=f"a b c d e f g {n}", hyp=f"a x c d f g h {n % 77}") for n in range(10_000)]
    folder = decode_folder(rows=rows)
    start = time.process_time()
    score(folder, "--bootstrap", 0)
    assert time.process_time() - start < 10


def translated(**changes) -> dict:
    texts = {"ref": "the cat sat on the mat", "hyp": "a cat sat on mats"}
    return utterance(target="translation.en", **{**texts, **changes})


def test_references_of_a_row_are_all_used(decode_folder, score):
    rows = [
        translated(refs=["the cat sat on the mat", "a cat sat on mats"]),  # `ref` among them
        translated(id="u2", ref=None, refs=["a cat sat on mats", None]),
        translated(id="u3", refs=["a cat sat on mats"]),  # `ref` beside them
    ]
    folder = decode_folder(target="translation.en", rows=rows)
    status, _, error = score(folder)
    assert status == 0, error
    found = result(folder)
    assert found["all"]["bleu"]["value"] == 100.0 and found["all"]["ter"]["value"] == 0.0
    assert "nrefs:var" in found["signatures"]["bleu"] and found["all"]["length_ratio"] == 1.0
    assert (folder / "errors.txt").read_text("utf-8").split("FAILURES")[0].count("ref: ") == 5


@pytest.mark.parametrize("name", ["more.txt", "more.jsonl"])
def test_more_references_from_a_file(decode_folder, score, tmp_path, name):
    rows = [translated(id="u2", hyp="b"), translated(id="u1", ref=None)]
    folder = decode_folder(target="translation.en", rows=rows)
    texts = {"u1": "a cat sat on mats", "u2": ""}
    if name.endswith("txt"):
        lines = [texts["u2"], texts["u1"]]  # in the order of hyp.jsonl, which is not that of the ids
    else:
        lines = [json.dumps({"id": key, "text": text}) for key, text in texts.items()]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    status, _, error = score(folder, "--references", tmp_path / name)
    assert status == 0, error
    assert result(folder)["all"]["utterances"] == 2 and "nrefs:1|" in result(folder)["signatures"]["bleu"]
    listing = (folder / "errors.txt").read_text("utf-8")
    assert "ref: the cat sat on the mat\nhyp: b\n" in listing
    assert "ref: a cat sat on mats\nhyp: a cat sat on mats\n" in listing


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("r.txt", "one\n", "r.txt has 1 references, "),
        ("r.txt", "one\ntwo\nthree\n", "r.txt has 3 references, "),
        ("r.jsonl", '{"id": "u1", "text": "a"}\n', "hyp.jsonl has 2 utterances: give one for each"),
        ("r.jsonl", '{"id": "u1", "text": "a"}\n{"id": "u3", "text": "a"}\n', "has no reference for 'u2' of "),
        ("r.jsonl", '{"id": "u1", "text": "a"}\n{"id": "u1", "text": "a"}\n', "r.jsonl, entry 2: 'u1' is there twice"),
        ("r.jsonl", '{"id": "u1"}\n', 'r.jsonl, entry 1: write {"id": "...", "text": "..."} a line'),
        ("r.txt", b"\xe9\n", "r.txt is not text in UTF-8: save it as UTF-8"),
        (None, "", "does not exist"),
    ],
)
def test_bad_references_are_one_sentence(decode_folder, score, tmp_path, name, content, sentence):
    folder = decode_folder(target="translation.en", rows=[translated(), translated(id="u2")])
    path = tmp_path / (name or "missing.txt")
    if name:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, _, error = score(folder, "--references", path)
    assert status == 1 and sentence in error and error.count("\n") == 1
    assert not (folder / "score.json").exists()


def test_error_rates_take_one_reference(decode_folder, score):
    folder = decode_folder(rows=[utterance(refs=["x y"])])
    status, _, error = score(folder)
    assert status == 1 and "has several references an utterance: WER and CER take one" in error
    assert error.count("\n") == 1


def test_cased_and_lower_cased_in_one_run(decode_folder, score):
    folder = decode_folder(target="translation.en", rows=[translated(hyp="The Cat sat on the mat")])
    alone = {}
    for casing in ("cased", "lower"):
        assert score(folder, "--casing", casing)[0] == 0
        alone[casing] = result(folder)
        assert alone[casing]["casings"] == {}
    status, out, _ = score(folder, "--casing", "lower", "cased")
    both = result(folder)
    assert status == 0 and "bleu 100.00" in out and list(both["casings"]) == ["cased"]
    for key in ("text", "signatures", "all", "languages"):
        assert both[key] == alone["lower"][key] and both["casings"]["cased"][key] == alone["cased"][key]
    assert "case:lc" in both["signatures"]["bleu"] and "case:mixed" in both["casings"]["cased"]["signatures"]["bleu"]
    assert alone["cased"]["all"]["bleu"]["value"] < 80 < alone["lower"]["all"]["bleu"]["value"]


def test_subsets_and_their_complement(decode_folder, score):
    rows = [
        utterance(id="u1", hyp="a b c d", subsets={"reference_in_train": True}),
        utterance(id="u2", hyp="a b c", subsets={"reference_in_train": False}),
        utterance(id="u3", hyp="a b", subsets={}),
    ]
    folder = decode_folder(rows=rows)
    score(folder)
    (found,) = result(folder)["subsets"].values()
    assert (found["in"]["utterances"], found["out"]["utterances"]) == (1, 2)
    assert found["in"]["wer"]["value"] == 0.0 and found["out"]["wer"]["value"] == 37.5
    rows[0]["subsets"] = {"reference_in_train": False}
    score(folder := decode_folder(rows=rows))
    found = result(folder)["subsets"]["reference_in_train"]
    assert found["in"]["utterances"] == 0 and "wer" not in found["in"] and found["out"]["utterances"] == 3


def test_cost_is_in_the_score(decode_folder, score):
    score(folder := decode_folder())
    assert result(folder)["cost"]["rtf"] == 0.0347 and result(folder)["cost"]["training_hours"] is None
