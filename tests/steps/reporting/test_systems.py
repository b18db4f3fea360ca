"""RESULTS.md over many systems: the summary, both casings, subsets, baselines, cascades, names, failures."""

from __future__ import annotations

import json
import re

import pytest

from tests.steps.reporting.test_report import tables, titled


def write_report(score, folders, tmp_path, *options) -> str:
    path = tmp_path / "RESULTS.md"
    status, _, error = score(*folders, "--report", path, "--bootstrap", 200, *options)
    assert status == 0, error
    return path.read_text("utf-8")


def score_of(folder) -> dict:
    return json.loads((folder / "score.json").read_text("utf-8"))


def summary_of(text: str, split: str) -> list[dict[str, str]]:
    section = text.split("\n## Summary\n")[1].split("\n## ")[0]
    header, *rows = tables(section.split(f"**{split}**\n")[1])[0]
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture
def three(decode_folder):
    """Joint, with recognition; translation alone, worse; and a recogniser that translates nothing."""
    folders = [decode_folder("joint", "test", "text", "beam", 0.3), decode_folder("asr", "test", "text", "beam", 0.1)]
    for method, rate in (("greedy", 0.4), ("beam", 0.2)):
        folders.append(decode_folder("joint", "test", "translation.en", method, rate))
        folders.append(decode_folder("alone", "test", "translation.en", method, rate + 0.3))
    (folders[0].parent.parent / "train.json").write_text(json.dumps({"seconds": 7200}))
    return folders


def test_one_row_a_system_the_best_first(three, score, tmp_path):
    rows = summary_of(write_report(score, three, tmp_path), "test")
    assert [row["system"] for row in rows] == ["joint", "alone", "asr"]
    joint, alone, asr = rows
    best = score_of(three[4])
    assert joint["run"] == "transducer beam (4)" and joint["p"] == "best"
    assert joint["BLEU"].startswith(f"{best['all']['bleu']['value']:.2f} ± ")
    assert joint["WER"] == f"{score_of(three[0])['all']['wer']['value']:.2f}"
    assert (joint["training (h)"], joint["real-time factor"]) == ("2.00", "0.0347")
    assert float(alone["p"]) < 0.05 and alone["WER"] == alone["training (h)"] == "–"
    assert (
        asr["BLEU"] == asr["TER"] == asr["p"] == "–"
        and asr["CER"] == f"{score_of(three[1])['all']['cer']['value']:.2f}"
    )


def test_both_casings_and_no_table_twice(decode_folder, score, tmp_path):
    row = {"language": "fr", "target": "translation.en", "ref": "The cat sat on the mat"}
    rows = [{"id": "a", "hyp": "the cat sat on the mat", **row}, {"id": "b", "hyp": "The cat sat on mats", **row}]
    folder = decode_folder(target="translation.en", rows=rows)
    text = write_report(score, [folder], tmp_path, "--casing", "lower", "cased")
    (shown,) = summary_of(text, "test")
    found = score_of(folder)
    assert shown["BLEU lower"].startswith(f"{found['all']['bleu']['value']:.2f}")
    assert shown["BLEU cased"].startswith(f"{found['casings']['cased']['all']['bleu']['value']:.2f}")
    assert titled(text, "test", "BLEU, lower-cased")[1][3] == shown["BLEU lower"]
    assert titled(text, "test", "BLEU, cased")[1][3] == shown["BLEU cased"] != shown["BLEU lower"]
    assert "**TER, lower-cased**" in text and "**TER, cased**" not in text and "Cased, the same: TER." in text
    assert text.count("- BLEU: `") == 2 and text.count("- TER: `") == 1


def test_selection_on_another_split(decode_folder, score, tmp_path):
    """On test greedy is better, on dev the beam: the beam is what may be reported for test."""
    folders = [
        decode_folder("joint", split, "translation.en", method, rate)
        for split, method, rate in (("dev", "greedy", 0.6), ("dev", "beam", 0.1), ("test", "greedy", 0.1))
    ]
    folders.append(decode_folder("joint", "test", "translation.en", "beam", 0.6))
    assert summary_of(write_report(score, folders, tmp_path), "test")[0]["run"] == "transducer greedy"
    text = write_report(score, folders, tmp_path, "--select", "dev")
    assert [summary_of(text, split)[0]["run"] for split in ("dev", "test")] == ["transducer beam (4)"] * 2
    status, _, error = score(*folders, "--report", tmp_path / "R.md", "--select", "tset")
    assert (
        status == 1
        and "--select tset: no run of that split is scored, only of dev, test (did you mean 'test'?)" in error
    )


def test_every_system_against_a_baseline(three, decode_folder, score, tmp_path):
    baseline = decode_folder("language_model", "test", "translation.en", "beam", 0.9)
    text = write_report(score, three, tmp_path, "--baseline", baseline)
    header, *rows = titled(text, "test", "Against language_model")
    assert header == ["system", "head", "method", "Δ BLEU", "95 % interval", "p"]
    assert [row[:3] for row in rows] == [
        [system, "transducer", method] for system in ("alone", "joint") for method in ("greedy", "beam (4)")
    ]
    for row, folder in zip(rows, (three[3], three[5], three[2], three[4]), strict=True):
        difference = score_of(folder)["all"]["bleu"]["value"] - score_of(baseline)["all"]["bleu"]["value"]
        low, high = (float(end) for end in row[4].split(" … "))
        assert float(row[3]) == pytest.approx(difference, abs=0.006) and low <= float(row[3]) <= high
        assert 0 < float(row[5]) <= 1
    assert "language_model" in {row["system"] for row in summary_of(text, "test")}
    assert write_report(score, [*three, baseline], tmp_path, "--baseline", baseline) == text


def test_a_baseline_on_other_utterances(three, decode_folder, score, tmp_path):
    baseline = decode_folder("language_model", "dev", "translation.en", "beam", 0.9)
    status, _, error = score(*three, "--baseline", baseline, "--report", tmp_path / "R.md", "--bootstrap", 0)
    assert status == 1 and f"--baseline {baseline}: no other run has its split (dev), target (translation.en)" in error
    assert error.count("\n") == 1 and not (tmp_path / "R.md").exists()


def test_runs_on_other_utterances_are_named(decode_folder, score, tmp_path):
    folders = [
        decode_folder("joint", target="translation.en"),
        decode_folder("alone", target="translation.en", rate=0.6),
    ]
    rows = (folders[1] / "hyp.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folders[1] / "hyp.jsonl").write_text("".join(rows[:-1]), "utf-8")
    (folders[1] / "decode.json").write_text(json.dumps({"model": "exp/alone", "head": "transducer"}))
    text = write_report(score, folders, tmp_path)
    assert titled(text, "test", "Differences")[1] == ["alone", "transducer", "greedy", "–", "–", "–"]
    assert "Not compared, because scored on other utterances: alone transducer greedy." in text


def test_a_subset_has_a_table(decode_folder, score, tmp_path):
    row = {"language": "fr", "target": "text", "ref": "a b c d"}
    rows = [
        {"id": f"u{n}", "hyp": "a b c d" if n % 3 else "a b", "subsets": {"seen": n % 3 > 0}, **row} for n in range(9)
    ]
    text = write_report(score, [decode_folder(rows=rows)], tmp_path)
    assert "6 of 9 utterances are in it, 3 are not." in text
    header, shown = titled(text, "test", "Subset seen")
    assert header[3:] == ["WER all", "WER in", "WER out", "CER all", "CER in", "CER out"]
    assert shown[3].startswith("16.67 ± ") and shown[4:6] == ["0.00 ± 0.00", "50.00 ± 0.00"]


def test_a_cascade_is_a_system(three, decode_folder, score, tmp_path):
    (three[1].parent.parent / "train.json").write_text(json.dumps({"seconds": 3600, "parameters": 2_000_000}))
    stages = [
        {"model": "exp/asr", "head": "ctc", "method": "beam", "options": {"beam": 8}, "rtf": 0.02, "command": "first"},
        {"model": "opus-mt", "head": "nmt", "method": "beam", "parameters": 5_000_000, "rtf": 0.01, "seconds": 1.5},
    ]
    about = {"system": "cascade", "stages": stages, "rtf": 0.03, "model": None, "head": None, "method": None}
    folder = decode_folder("cascade", "test", "translation.en", "beam", 0.0, about=about)
    text = write_report(score, [*three, folder], tmp_path)
    first = summary_of(text, "test")[0]
    assert (first["system"], first["p"], first["real-time factor"]) == ("cascade", "best", "0.0300")
    assert first["WER"] == f"{score_of(three[1])['all']['wer']['value']:.2f}"  # of the recogniser that it begins with
    ledger, training, _, decoding = tables(text.split("## Cost")[1].split("## How")[0])
    (row,) = [row for row in ledger if row[0] == "cascade"]
    assert row[2:] == ["7.00", "–", "1.00", "1.00", "–", "–", "0.0300"]
    assert "Not counted in the training of cascade: opus-mt." in text
    at = next(i for i, row in enumerate(decoding) if row[1] == "cascade")
    assert [row[1:4] for row in decoding[at : at + 3]] == [
        ["cascade", "transducer", "beam (4)"],
        ["cascade: asr", "ctc", "beam (8)"],
        ["cascade: opus-mt", "nmt", "beam"],
    ]
    assert "\nfirst\n" in text and [row[0] for row in training[1:]].count("asr") == 1


def test_a_cascades_last_stage_is_the_run_itself(decode_folder, score, tmp_path):
    stages = [{"model": "exp/asr", "command": "first", "commit": "aaa"}, {"model": "exp/mt", "rtf": 0.01}]
    about = {"system": "cascade", "stages": stages, "command": "second", "commit": "aaa"}
    text = write_report(score, [decode_folder("cascade", "test", "translation.en", about=about)], tmp_path)
    assert "\nfirst\n" in text and "\nsecond\n" in text and "- Commit: –" not in text


def test_models_of_one_name_in_two_folders(decode_folder, score, tmp_path):
    folders = [decode_folder(f"{conf}/joint", rate=rate) for conf, rate in (("gpu", 0.1), ("laptop", 0.4))]
    text = write_report(score, folders, tmp_path)
    assert [row["system"] for row in summary_of(text, "test")] == ["gpu/joint", "laptop/joint"]
    assert [row[0] for row in titled(text, "test", "Differences")[1:]] == ["laptop/joint"]


def test_failures_and_the_worst_outputs(decode_folder, score, tmp_path):
    row = {"language": "fr", "target": "text", "duration": 2.0}
    good = [{"id": f"u{n:02d}", "ref": f"a bc {n}", "hyp": f"a bc {n}", **row} for n in range(25)]
    long = "so | on " * 40
    bad = [{"id": "x", "ref": "hello", "hyp": "", **row}, {"id": "y", "ref": "well", "hyp": long, **row}]
    text = write_report(score, [decode_folder(rows=[*good, *bad])], tmp_path)
    counts, worst = tables(text.split("**Failures**")[1].split("\n## ")[0])
    assert counts[1][3:] == ["1", "1", "1", "–"]
    assert worst[0] == ["utterance", "reference", "output", "WER"] and len(worst) == 6
    assert worst[1][:2] == ["y", "well"] and worst[1][2].endswith("…") and len(worst[1][2].replace("\\", "")) == 100
    assert worst[2] == ["x", "hello", "–", "100.00"]
    assert re.search(r"Hallucinations are outputs of more than \d+\.\d characters per second\.", text)
