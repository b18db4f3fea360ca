"""steps.decode: what it writes, that it is the searches' result, that it repeats, and what it says to mistakes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from lhotse import CutSet

from steps.decode import main
from steps.lm.ngram import main as ngram
from steps.model_folder import load_model
from steps.scoring.hypotheses import decode_folders, read_decoded
from steps.search.ctc import ctc_prefix_beam
from steps.search.transducer import modified_beam_search
from tests.steps.conftest import TEXTS
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_jsonl

FOLDERS = ["test.ctc.greedy", "test.ctc.prefix_beam", "test.speech.greedy", "test.speech.modified_beam"]


def decode(world, out, *more: str, model=None, cuts=None) -> int:
    paths = ["--model", str(model or world.model), "--cuts", str(cuts or world.cuts), "--out", str(out)]
    return main([*paths, "--device", "cpu", *more])


@pytest.fixture(scope="module")
def decoded(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("decoded")
    assert decode(world, out, "--nbest", "3") == 0
    return out


def test_a_folder_for_every_method_of_every_head(decoded):
    assert sorted(path.name for path in decoded.iterdir()) == FOLDERS


def test_all_utterances_in_the_order_of_the_cuts(world, decoded):
    cuts = list(CutSet.from_file(world.cuts))
    rows = list(read_jsonl(decoded / "test.ctc.greedy" / "hyp.jsonl"))
    assert [row["id"] for row in rows] == [cut.id for cut in cuts]
    assert [row["ref"] for row in rows] == [cut.supervisions[0].text for cut in cuts]
    assert [row["duration"] for row in rows] == pytest.approx([cut.duration for cut in cuts], abs=1e-3)
    assert {(row["language"], row["target"]) for row in rows} == {(lang, "text") for lang in ("en", "fr", "it")}


def test_translation_leaves_out_what_is_in_the_target_language(world, decoded):
    rows = {row["id"]: row for row in read_jsonl(decoded / "test.speech.greedy" / "hyp.jsonl")}
    cuts = [cut for cut in CutSet.from_file(world.cuts) if cut.supervisions[0].language != "en"]
    assert list(rows) == [cut.id for cut in cuts]
    references = {cut.id: cut.supervisions[0].custom["translation"].get("en") for cut in cuts}
    assert {name: row["ref"] for name, row in rows.items()} == references
    assert list(references.values()).count(None) == 1
    assert {row["target"] for row in rows.values()} == {"translation.en"}


@pytest.mark.parametrize("head", ["ctc", "speech"])
def test_hypotheses_are_those_of_the_search_on_each_utterance_alone(world, decoded, head):
    model, tokenizers, _ = load_model(world.model)
    name = {"ctc": "prefix_beam", "speech": "modified_beam"}[head]
    rows = {row["id"]: row for row in read_jsonl(decoded / f"test.{head}.{name}" / "hyp.jsonl")}
    texts = set()
    for cut in CutSet.from_file(world.cuts).filter(lambda cut: cut.id in rows):
        features = torch.from_numpy(cut.load_features())[None]
        with torch.inference_mode():
            encoder_out, lens = model.encode(features, torch.tensor([features.shape[1]]))
            if head == "ctc":
                ((best,),) = ctc_prefix_beam(model.heads.ctc.log_probs(encoder_out), lens, beam=4)
            else:
                speech = model.heads.speech
                ((best,),) = modified_beam_search(speech.decoder, speech.joiner, encoder_out, lens, beam=4)
        row = rows[cut.id]
        texts.add(row["hyp"])
        assert row["hyp"] == tokenizers[head].decode(best.tokens)
        assert row["score"] == pytest.approx(best.score, abs=2e-3)
        assert [token for token, _, _ in row["tokens"]] == [tokenizers[head].token(i) for i in best.tokens]
        assert [start for _, start, _ in row["tokens"]] == pytest.approx([0.04 * frame for frame in best.frames])
        assert all(0 <= start < cut.duration for _, start, _ in row["tokens"])
    assert len(texts) > len(rows) // 2  # the model does say different things


def test_cost_and_provenance(world, decoded):
    cuts = list(CutSet.from_file(world.cuts))
    for folder, head, method in ((name, *name.split(".")[1:]) for name in FOLDERS):
        about = read_json(decoded / folder / "decode.json")
        heard = [cut for cut in cuts if head == "ctc" or cut.supervisions[0].language != "en"]
        assert (about["split"], about["head"], about["method"]) == ("test", head, method)
        assert about["utterances"] == len(heard)
        assert about["audio_seconds"] == pytest.approx(sum(cut.duration for cut in heard), abs=1e-2)
        assert about["encoder_seconds"] > 0 and about["search_seconds"] > 0
        assert about["seconds"] == pytest.approx(about["encoder_seconds"] + about["search_seconds"], abs=2e-3)
        assert about["rtf"] == pytest.approx(about["seconds"] / about["audio_seconds"], rel=0.01)
        assert 10 < about["peak_memory_mb"] < 1 << 20
        assert about["options"].get("beam", 4) == 4 and ("beam" in about["options"]) == ("beam" in method)
        assert about["versions"]["torch"] == torch.__version__
        assert about["command"].startswith("python -m steps.decode ")
    encoder = {name: read_json(decoded / name / "decode.json")["encoder_seconds"] for name in FOLDERS}
    assert encoder["test.ctc.greedy"] == encoder["test.ctc.prefix_beam"] >= encoder["test.speech.greedy"]


def test_the_scorer_reads_it(decoded):
    sizes = {folder.name: len(read_decoded(folder).ids) for folder in decode_folders([decoded])}
    assert sizes == dict(zip(FOLDERS, [9, 9, 5, 5], strict=True))


def test_nbest(decoded):
    assert not (decoded / "test.ctc.greedy" / "nbest.jsonl").exists()
    for name in ("test.ctc.prefix_beam", "test.speech.modified_beam"):
        best = list(read_jsonl(decoded / name / "hyp.jsonl"))
        lists = list(read_jsonl(decoded / name / "nbest.jsonl"))
        assert [row["id"] for row in lists] == [row["id"] for row in best]
        assert [row["nbest"][0]["hyp"] for row in lists] == [row["hyp"] for row in best]
        assert max(len(row["nbest"]) for row in lists) == 3


def test_the_same_command_writes_the_same_bytes_and_nothing_stale(world, decoded, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(decoded, again)
    search = ["--search", "ctc:prefix_beam", "speech:modified_beam"]
    decode(world, again, *search)
    for name in ("test.ctc.prefix_beam", "test.speech.modified_beam"):
        assert (again / name / "hyp.jsonl").read_bytes() == (decoded / name / "hyp.jsonl").read_bytes()
        assert not (again / name / "nbest.jsonl").exists()


def test_an_unknown_language_is_recognised(world, tmp_path):
    rows = list(read_jsonl(world.cuts))
    for row in rows:
        row["supervisions"][0].pop("language")
    data = tmp_path / "test"
    data.mkdir()
    shutil.copy(world.cuts.parent.parent / "features.yaml", data)
    write_jsonl(data / "cuts.jsonl.gz", rows)
    assert decode(world, tmp_path / "out", "--search", "ctc:greedy", cuts=data / "cuts.jsonl.gz") == 0
    assert len(list(read_jsonl(tmp_path / "out" / "test.ctc.greedy" / "hyp.jsonl"))) == len(rows)


def test_scores_of_another_model_are_refused(world, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(world.model, model)
    decode(world, model / "decode", "--search", "ctc:greedy", model=model)
    assert read_decoded(model / "decode" / "test.ctc.greedy").ids
    with open(model / "averaged.pt", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"was decoded before averaged.pt was made anew: decode again"):
        read_decoded(model / "decode" / "test.ctc.greedy")


def test_the_batch_size_changes_nothing(world, decoded, tmp_path):
    decode(world, tmp_path, "--max-duration", "0.1")
    for name in FOLDERS:
        one = [row["hyp"] for row in read_jsonl(tmp_path / name / "hyp.jsonl")]
        assert one == [row["hyp"] for row in read_jsonl(decoded / name / "hyp.jsonl")]


def test_features_computed_on_the_fly(world, decoded, tmp_path):
    from steps.prepare.features import main as prepare

    options = ["--splits", "test", "storage=on_the_fly"]
    prepare(["--manifests", str(world.root / "manifests"), "--out", str(tmp_path / "data"), *options])
    decode(world, tmp_path, "--search", "speech:modified_beam", cuts=tmp_path / "data" / "test" / "cuts.jsonl.gz")
    name = "test.speech.modified_beam"
    one = [row["hyp"] for row in read_jsonl(tmp_path / name / "hyp.jsonl")]
    assert one == [row["hyp"] for row in read_jsonl(decoded / name / "hyp.jsonl")]


def test_bf16(world, decoded, tmp_path):
    decode(world, tmp_path, "--precision", "bf16", "--search", "ctc:greedy", "speech:modified_beam")
    about = read_json(tmp_path / "test.ctc.greedy" / "decode.json")
    assert about["precision"] == "bf16"
    scores = [
        [row["score"] for row in read_jsonl(folder / "test.ctc.greedy" / "hyp.jsonl")] for folder in (tmp_path, decoded)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=0.2, abs=1.0) and scores[0] != scores[1]


def test_options_reach_the_search(world, decoded, tmp_path):
    decode(world, tmp_path, "--search", "speech:greedy", "--blank-penalty", "1000", "--max-symbols", "2")
    about = read_json(tmp_path / "test.speech.greedy" / "decode.json")
    assert about["options"] == {"blank_penalty": 1000.0, "max_symbols": 2}
    for row in read_jsonl(tmp_path / "test.speech.greedy" / "hyp.jsonl"):
        starts = [start for _, start, _ in row["tokens"]]
        assert len(starts) == 2 * len(set(starts)) > 0  # never a blank, so two tokens a frame


def test_with_language_models_and_hotwords(world, tmp_path):
    """Each of them changes what is written, with a scale of 0 none of them does; hotwords are heard more often."""
    texts = [line for lines in TEXTS.values() for line in lines]
    (tmp_path / "text").write_text("\n".join(texts))
    (tmp_path / "hotwords").write_text("Hallo\n\nyes :2\n")
    lm, lang = str(tmp_path / "lm.arpa"), str(world.model / "lang" / "speech")
    train = ["train", "--backend", "numpy", "--text", str(tmp_path / "text"), "--lang", lang, "--order", "2"]
    assert ngram([*train, "--out", lm]) == 0
    (tmp_path / "searches.yaml").write_text(
        f"""
        speech:modified_beam:
        speech:modified_beam+lm: {{lm: {lm}, lm_scale: 1}}
        speech:modified_beam+less: {{lm: {lm}, subtract_lm: {lm}, lm_scale: 1, subtract_scale: 0.5}}
        speech:modified_beam+ilm: {{ilm_scale: 0.4}}
        speech:modified_beam+words: {{hotwords: {tmp_path}/hotwords, hotwords_scale: 20}}
        speech:modified_beam+nothing: {{lm: {lm}, lm_scale: 0, hotwords: {tmp_path}/hotwords, hotwords_scale: 0}}
        """
    )
    assert decode(world, tmp_path, "--searches", str(tmp_path / "searches.yaml")) == 0
    rows = {
        path.name.partition("+")[2]: [(row["hyp"], row["score"]) for row in read_jsonl(path / "hyp.jsonl")]
        for path in tmp_path.glob("test.speech.*")
    }
    assert rows["nothing"] == rows[""]
    assert len({str(found) for name, found in rows.items() if name != "nothing"}) == 5
    assert all("yes" in text.split() for text, _ in rows["words"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--search", "speach:greedy"], r"no head 'speach' \(did you mean 'speech'\?\); its heads: ctc, speech"),
        (
            ["--search", "ctc:gredy"],
            r"give ctc:greedy or .*, not 'gredy' \(did you mean 'greedy'\?\)",
        ),
        (
            ["--search", "speech:prefix_beam"],
            "give speech:fast_beam or .* or speech:rescore, not 'prefix_beam'",
        ),
        (["--search", "ctc"], "--search ctc: give ctc:greedy or .* or ctc:prefix_beam or ctc:prefix_rescore"),
        (["--search", "ctc:greedy", "--beam", "4"], "--beam does nothing for ctc:greedy"),
        (["--search", "ctc:prefix_beam", "--max-symbols", "2"], "--max-symbols does nothing for ctc:prefix_beam"),
        (["--nbest", "5"], "--nbest 5 is more than --beam 4"),
        (["--precision", "fp16"], "--precision fp16 needs a GPU"),
        (["--checkpoint", "epoch-3.pt"], r"epoch-3\.pt does not exist: there are averaged\.pt"),
    ],
)
def test_wrong_options_are_one_sentence(world, tmp_path, options, complaint):
    with pytest.raises(UserError, match=complaint):
        decode(world, tmp_path, *options)
    assert list(tmp_path.iterdir()) == []


def test_less_than_no_workers(world, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        decode(world, tmp_path, "--workers", "-1")
    assert stop.value.code == 2 and "argument --workers: -1 is less than 0" in capsys.readouterr().err


def test_missing_inputs_name_their_stage(world, tmp_path):
    with pytest.raises(UserError, match=r"nowhere/config\.yaml does not exist: run stage 5"):
        decode(world, tmp_path, model=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"cuts\.jsonl\.gz does not exist: run stage 2"):
        decode(world, tmp_path, cuts=tmp_path / "test" / "cuts.jsonl.gz")


@pytest.fixture
def broken(world, tmp_path):
    shutil.copytree(world.model, tmp_path / "broken")
    return tmp_path / "broken"


def test_truncated_checkpoint(world, broken, tmp_path):
    data = (broken / "averaged.pt").read_bytes()
    (broken / "averaged.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"averaged\.pt is truncated"):
        decode(world, tmp_path / "out", model=broken)


def test_diverged_checkpoint(world, broken, tmp_path):
    state = torch.load(broken / "averaged.pt")
    state["model"]["heads.ctc.ctc_output.1.bias"][3] = float("nan")
    torch.save(state, broken / "averaged.pt")
    with pytest.raises(UserError, match=r"not finite \(heads\.ctc\.ctc_output\.1\.bias\): its training diverged"):
        decode(world, tmp_path / "out", model=broken)


@pytest.mark.parametrize(("key", "value"), [("type", "mfcc"), ("sampling_rate", 8000)])
def test_features_of_another_kind(world, broken, tmp_path, key, value):
    text = (broken / "features.yaml").read_text("utf-8").splitlines()
    changed = [f"{key}: {value}" if line.startswith(f"{key}:") else line for line in text]
    (broken / "features.yaml").write_text("\n".join(changed), "utf-8")
    with pytest.raises(UserError, match=f"features with {key} .*, .* was trained on {value}"):
        decode(world, tmp_path / "out", model=broken)


def test_features_of_another_dimension(world, tmp_path):
    from steps.prepare.features import main as prepare

    options = ["--splits", "test", "num_mel_bins=40"]
    prepare(["--manifests", str(world.root / "manifests"), "--out", str(tmp_path / "data"), *options])
    with pytest.raises(UserError, match=r"has features of dimension 40, .* was trained on 80"):
        decode(world, tmp_path / "out", cuts=tmp_path / "data" / "test" / "cuts.jsonl.gz")


def test_nothing_to_translate(world, tmp_path):
    english = CutSet.from_file(world.cuts).filter(lambda cut: cut.supervisions[0].language == "en")
    english.to_file(tmp_path / "english.jsonl.gz")
    shutil.copy(world.cuts.parent.parent / "features.yaml", tmp_path)
    with pytest.raises(UserError, match=r"all utterances are in the language of 'translation\.en' already"):
        decode(world, tmp_path / "out", "--search", "speech:greedy", cuts=tmp_path / "english.jsonl.gz")


def test_splits_of_one_name(world, tmp_path):
    with pytest.raises(UserError, match="would both be written as 'test'"):
        main(["--model", str(world.model), "--cuts", str(world.cuts), str(world.cuts), "--out", str(tmp_path)])


def test_hypotheses_are_json(decoded):
    for line in (decoded / "test.speech.modified_beam" / "hyp.jsonl").read_text("utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_scoring_uses_goes_along(world, tmp_path):
    cuts = list(CutSet.from_file(world.cuts))
    for number, cut in enumerate(cuts):
        cut.supervisions[0].custom["subsets"] = {"reference_in_train": number % 2 == 0}
    data = tmp_path / "data" / "test"
    data.mkdir(parents=True)
    shutil.copy(world.model / "features.yaml", data / "features.yaml")
    CutSet.from_cuts(cuts).to_file(data / "cuts.jsonl.gz")
    assert decode(world, tmp_path, "--search", "ctc:greedy", "speech:greedy", cuts=data / "cuts.jsonl.gz") == 0
    spoken = {cut.id: cut.supervisions[0].text for cut in cuts}
    expected = {cut.id: cut.supervisions[0].custom["subsets"] for cut in cuts}
    for name, has_source in (("test.ctc.greedy", False), ("test.speech.greedy", True)):
        for row in read_jsonl(tmp_path / name / "hyp.jsonl"):
            assert row["subsets"] == expected[row["id"]]
            assert row.get("source") == (spoken[row["id"]] if has_source else None)
    assert read_decoded(tmp_path / "test.speech.greedy").subsets["reference_in_train"].sum() in range(1, 5)


def test_searches_of_a_file_have_options_of_their_own(world, tmp_path):
    file = tmp_path / "searches.yaml"
    file.write_text("ctc:prefix_beam: {beam: 2, nbest: 2}\nctc:prefix_beam+wide: {beam: 9}\nctc:greedy:\n")
    assert decode(world, tmp_path, "--searches", str(file)) == 0
    found = {p.name: read_json(p / "decode.json")["options"].get("beam") for p in tmp_path.iterdir() if p.is_dir()}
    assert found == {"test.ctc.greedy": None, "test.ctc.prefix_beam": 2, "test.ctc.prefix_beam+wide": 9}
    assert [p.parent.name for p in tmp_path.glob("*/nbest.jsonl")] == ["test.ctc.prefix_beam"]
    assert read_decoded(tmp_path / "test.ctc.prefix_beam+wide").name("method") == "prefix_beam+wide"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ctc:greedy: {beam: 4}", r"--beam does nothing for ctc:greedy"),
        ("ctc:prefix_beam: {bean: 4}", r"ctc:prefix_beam: no search has an option 'bean' .did you mean 'beam'"),
        ("ctc:prefix_beam: {beam: [4, 8]}", r"ctc:prefix_beam: beam is a list: choose from it with steps.tune"),
        ("ctc:prefix_beam: {beam: 0}", r"ctc:prefix_beam: beam is 0"),
        ("ctc:prefix_beam: {lm_scale: 0.3}", r"--lm-scale does nothing for ctc:prefix_beam without --lm or --graph"),
        ("ctc:prefix_beam: 4", r"ctc:prefix_beam must hold its options"),
        ("speech:modified_beam: {length_norm: 3}", r"length_norm is 3: give true or false"),
    ],
)
def test_mistakes_in_a_file_of_searches(world, tmp_path, text, complaint):
    (tmp_path / "searches.yaml").write_text(text)
    with pytest.raises(UserError, match=complaint):
        decode(world, tmp_path, "--searches", str(tmp_path / "searches.yaml"))
