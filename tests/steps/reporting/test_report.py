"""RESULTS.md: its tables, what stands for missing records, and that it is a function of the records alone."""

from __future__ import annotations

import json
import re

import pytest

from steps.reporting.markdown import number, table

TRAINING = {
    **{"command": "python -m steps.train conf/joint.yaml --out exp/joint", "commit": "abc1234", "data_hours": 1.6857},
    **{"date": "2026-11-22 03:00:00", "speech_hours_seen": 50.57, "seconds": 1234.5, "parameters": 5_712_345},
    **{"parameters_trained": 5_712_345, "peak_memory_mb": 2345.6, "epochs": 30, "steps": 4321},
    **{"final": {"loss": 1.7345, "ctc.ctc": 1.2345}, "valid": {"loss": 2.5}, "precision": "bf16", "processes": 1},
    **{"backends": {"ctc.ctc": "torch"}},
    **{"skipped_steps": 2, "dropped_utterances": 7, "hardware": {"cpu": "Sim | 9000", "cores": 2}},
    "versions": {"torch": "1.13.1", "k2": None},
}
OPTIONS = ("--title", "Prompts", "--bootstrap", 100)


def tables(text: str) -> list[list[list[str]]]:
    """Every Markdown table as rows of cells, its header first."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert len({len(row) for row in rows}) == 1, block
        found.append([rows[0], *rows[2:]])
    return found


def titled(text: str, split: str, title: str) -> list[list[str]]:
    section = text.split(f"\n## {split}\n")[1].split("\n## ")[0]
    return tables(section.split(f"**{title}**\n")[1])[0]


@pytest.fixture
def systems(decode_folder):
    """Joint (recognition and translation) and translation alone, two splits, two methods, with train.json."""
    for split in ("test", "dev", "other"):
        for method, rate in (("greedy", 0.4), ("modified_beam_search", 0.2)):
            decode_folder("joint", split, "text", method, rate)
            folder = decode_folder("joint", split, "translation.en", method, rate)
            alone = decode_folder("alone", split, "translation.en", method, rate + 0.3)
    (folder.parent.parent / "train.json").write_text(json.dumps(TRAINING))
    (alone.parent.parent / "train.json").write_text(json.dumps({**TRAINING, "commit": "fff0000", "steps": 99}))
    return folder.parent.parent.parent


@pytest.fixture
def report(systems, score, tmp_path):
    status, _, error = score(*sorted(systems.glob("*/decode")), *OPTIONS, "--report", tmp_path / "RESULTS.md")
    assert status == 0, error
    return (tmp_path / "RESULTS.md").read_text("utf-8")


def test_sections_in_order(report):
    assert report.startswith("# Prompts\n") and report.endswith("\n") and not report.endswith("\n\n")
    headings = re.findall(r"^##+ (.*)", report, re.M)
    each = ["Recognition", "Translation: X → en"]
    assert headings == ["Summary", "dev", *each, "test", *each, "other", *each, "Cost", "How these numbers were made"]
    assert max(len(row) for rows in tables(report) for row in rows) <= 10


def test_numbers_are_those_of_score_json(report, systems):
    for model, head, method, shown, measure, title in (
        ("joint", "ctc", "greedy", "greedy", "wer", "WER"),
        ("joint", "ctc", "modified_beam_search", "modified beam search (4)", "cer", "CER"),
        ("alone", "transducer", "greedy", "greedy", "bleu", "BLEU"),
        ("joint", "transducer", "greedy", "greedy", "chrf", "chrF2"),
        ("alone", "transducer", "modified_beam_search", "modified beam search (4)", "ter", "TER"),
    ):
        score = json.loads((systems / model / "decode" / f"test.{head}.{method}" / "score.json").read_text("utf-8"))
        header, *rows = titled(report, "test", title)
        (row,) = [row for row in rows if row[:3] == [model, head, shown]]
        columns = {"all": score["all"], **score["languages"]}
        assert header == ["system", "head", "method", *columns]
        for cell, values in zip(row[3:], columns.values(), strict=True):
            entry = values[measure]
            assert cell == f"{entry['value']:.2f} ± {(entry['high'] - entry['low']) / 2:.2f}"


def test_systems_in_order_greedy_first(report):
    names = [row[:3] for row in titled(report, "dev", "BLEU")[1:]]
    methods = ["greedy", "modified beam search (4)"]
    assert names == [[model, "transducer", method] for model in ("alone", "joint") for method in methods]


def test_sizes_and_differences(report, systems):
    header, *rows = titled(report, "test", "Sizes and errors")
    assert header[3:] == ["utterances", "words", "ins", "del", "sub", "length ratio"]
    assert rows[0][3] == "36"
    header, *rows = titled(report, "test", "Differences")
    assert header[3:] == ["Δ WER", "95 % interval", "p"] and len(rows) == 1
    greedy, beam = (
        json.loads((systems / "joint" / "decode" / f"test.ctc.{method}" / "score.json").read_text())["all"]["wer"]
        for method in ("greedy", "modified_beam_search")
    )
    assert rows[0][3] == f"{greedy['value'] - beam['value']:+.2f}"
    assert "12 utterances already in en are not scored." in report


def test_cost(report):
    cost = report.split("## Cost")[1].split("## How")[0]
    ledger, training, losses, decoding = tables(cost)
    assert ledger[2] == ["joint", "Sim \\| 9000 (2 cores)", "5.71", "5.71", "0.34", "0.34", "2,346", "1,234", "0.0347"]
    assert training[2] == ["joint", "bf16", "1.69", "50.57", "30", "4,321", "1,234", "1", "7", "2"]
    assert losses[3:] == [["joint", "loss", "–", "1.7345", "2.5000"], ["joint", "ctc.ctc", "torch", "1.2345", "–"]]
    assert decoding[1][5:] == ["72.0", "2.5", "0.0347", "1,234"] and len(decoding) == 1 + 18


def test_provenance_is_grouped_by_machine_and_commit(report):
    made = report.split("## How these numbers were made")[1]
    assert made.count("- Hardware: cpu Sim | 9000, cores 2") == 2  # fff0000 trained one model, abc1234 did the rest
    first, second = re.findall(r"```bash\n(.*?)```", made, re.S)
    assert "Commit: `fff0000`" in made.split(first)[0] and first.count("\n") == 1
    assert second.splitlines()[0] == TRAINING["command"] and second.count("steps.decode") == 6
    assert "- Date: 2026-11-22 03:00:00 … 2026-11-22 04:06:00" in made
    assert re.search(r"- BLEU: `nrefs:1\|bs:100\|seed:12345\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:", made)
    assert made.count("- chrF2: ") == 1 and made.count("- TER: ") == 1


def test_same_records_same_file(report, systems, score, tmp_path):
    folders = sorted(systems.glob("*/decode/*"), reverse=True)
    score(*folders, *OPTIONS, "--report", tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text("utf-8") == report


def test_missing_records_are_dashes(decode_folder, score, tmp_path):
    folder = decode_folder(rows=[{"id": "u", "ref": "a b", "hyp": "a"}])
    (folder / "decode.json").write_text("{}")
    status, _, error = score(folder, "--report", tmp_path / "R.md", "--bootstrap", 0)
    assert status == 0, error
    text = (tmp_path / "R.md").read_text("utf-8")
    assert titled(text, "test", "WER") == [["system", "head", "method", "WER"], ["joint", "ctc", "greedy", "50.00"]]
    ledger, training, losses, decoding = tables(text.split("## Cost")[1])
    assert ledger[1] == ["joint", *["–"] * 8] and training[1] == ["joint", *["–"] * 9]
    assert losses[1] == ["joint", *["–"] * 4] and "Not counted in the training of joint: joint." in text
    assert decoding[1] == ["test", "joint", "ctc", "greedy", *["–"] * 5]
    assert "- Commit: –\n- Hardware: –\n- Versions: –\n- Date: –" in text
    assert "None" not in text and "nan" not in text and "±" not in text and "Differences" not in text


@pytest.mark.parametrize("odd", [None, "text", [1], {"x": None}, True, {}])
def test_odd_records_do_not_stop_a_report(decode_folder, score, tmp_path, odd):
    keys = ("options", "checkpoint", "seconds", "rtf", "hardware", "versions", "commit", "date", "command")
    folder = decode_folder(about=dict.fromkeys(keys, odd))
    (folder.parent.parent / "train.json").write_text(json.dumps(dict.fromkeys(TRAINING, odd)))
    status, _, error = score(folder, "--report", tmp_path / "R.md", "--bootstrap", 0)
    assert status == 0, error
    assert tables((tmp_path / "R.md").read_text("utf-8"))


def test_train_json_that_is_no_record(decode_folder, score, tmp_path):
    folder = decode_folder()
    for content, sentence in (("[]", "train.json must hold an object"), ("{", "train.json is not JSON")):
        (folder.parent.parent / "train.json").write_text(content)
        status, _, error = score(folder, "--report", tmp_path / "R.md")
        assert status == 1 and sentence in error and error.count("\n") == 1
    assert not (tmp_path / "R.md").exists()


def test_report_into_a_file_that_cannot_be(decode_folder, score, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, error = score(decode_folder(), "--report", tmp_path / "file" / "R.md")
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1


def test_table_keeps_bars_in_their_cell():
    assert tables(table(["a", "b"], [["x|y", "1"]], 1) + "\n") == [[["a", "b"], ["x\\|y", "1"]]]
    assert table(["a", "b"], [["x", "1"]], 1).splitlines()[1].endswith(":|")


def test_number():
    assert [number(x) for x in (None, "1", True, {}, 1234.4)] == ["–", "–", "–", "–", "1,234"]
    assert number(0) == "0" and number(0.5, ".1f") == "0.5"
