"""FLEURS: the same 2,009 sentences read aloud in 102 languages, by several people each: any language into any other.

    python -m local.fleurs download --source fr_fr --target en_us --out downloads
    python -m local.fleurs manifests --source fr_fr --target en_us --corpus downloads --out data/manifests

Conneau et al., SLT 2022 (arXiv:2205.12446). A reading's translation is the target language's sentence of the same id,
as it is written, in the same split. Transcripts are the corpus' normalised ones, lower case and no punctuation
(`custom["raw_text"]` has the sentence as it is written). Who speaks is not published: each recording counts as a
speaker of its own. Recordings are as long as their files, whatever their lines say.

Lhotse's recipe is not used: it downloads what is published as archives one decoded utterance at a time, and then reads
only the folders it made so, neither Google's nor Hugging Face's; of the genders it loses "other"; one line of other
than seven columns, or one bad recording, ends it; its durations are the lines'; it has no translations.
"""

from __future__ import annotations

import shutil
import tarfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.archives import DAMAGE, download_archives, fetch_all
from local.corpus import (
    POINTER,
    AudioFiles,
    Program,
    Published,
    Unusable,
    compare_with_published,
    find_folder,
    leave_manifests,
    read_text,
    read_utterances,
    refuse_pointer,
    usable,
)
from local.fetch import Archive
from local.manifests import Utterance, make_utterance
from utils.errors import UserError, nearest, run

SPLITS = ("train", "dev", "test")
COLUMNS = ("id", "file", "raw transcription", "transcription", "characters", "samples", "gender")
# readings of train/dev/test: tensorflow/datasets, docs/catalog/xtreme_s.md
COUNTS = """
af_za:1032/198/264 am_et:3163/223/516 ar_eg:2104/295/428 as_in:2812/418/984 ast_es:2511/398/946 az_az:2665/400/923
be_by:2433/408/967 bg_bg:2973/395/658 bn_in:3006/402/920 bs_ba:3091/400/925 ca_es:2300/404/940 ceb_ph:3261/225/541
ckb_iq:3040/386/922 cmn_hans_cn:3246/409/945 cs_cz:2811/305/723 cy_gb:3427/447/1021 da_dk:2465/395/930
de_de:2987/363/862 el_gr:3215/271/650 en_us:2602/394/647 es_419:2796/408/908 et_ee:2501/387/893 fa_ir:3101/369/871
ff_sn:3235/273/660 fi_fi:2704/415/918 fil_ph:1884/418/964 fr_fr:3193/289/676 ga_ie:2845/369/842 gl_es:2175/395/927
gu_in:3145/432/1000 ha_ng:3259/296/621 he_il:3242/328/792 hi_in:2120/239/418 hr_hr:3461/377/914 hu_hu:3095/407/905
hy_am:3053/395/932 id_id:2579/350/687 ig_ng:2839/413/969 is_is:926/36/46 it_it:3030/391/865 ja_jp:2292/266/650
jv_id:3051/295/728 ka_ge:1491/409/979 kam_ke:3340/338/827 kea_cv:2715/366/864 kk_kz:3200/369/856 km_kh:1675/326/771
kn_in:2283/368/838 ko_kr:2307/226/382 ky_kg:2818/422/977 lb_lu:2502/408/934 lg_ug:2478/306/723 ln_cd:3350/209/478
lo_la:1809/191/405 lt_lt:2937/416/986 luo_ke:2384/102/256 lv_lv:2110/356/851 mi_nz:3249/429/1008 mk_mk:2337/415/973
ml_in:3043/418/958 mn_mn:3074/405/949 mr_in:3269/443/1015 ms_my:2667/324/749 mt_mt:2895/404/926 my_mm:3058/384/880
nb_no:3167/163/357 ne_np:3332/305/726 nl_nl:2918/171/364 nso_za:1990/363/790 ny_mw:2694/311/761 oc_fr:3379/427/998
om_et:1701/19/41 or_in:1081/392/883 pa_in:1923/251/574 pl_pl:2841/338/758 ps_af:2513/217/512 pt_br:2793/386/919
ro_ro:2891/387/883 ru_ru:2562/356/775 sd_in:3443/426/980 sk_sk:1957/352/792 sl_si:2512/349/834 sn_zw:2463/393/925
so_so:3149/432/1019 sr_rs:2944/290/700 sv_se:2385/330/759 sw_ke:3070/211/487 ta_in:2367/377/591 te_in:2302/311/472
tg_tj:2298/240/600 th_th:2602/439/1021 tr_tr:2526/338/743 uk_ua:2810/325/750 umb_ao:1597/135/379 ur_pk:2109/267/299
uz_uz:2943/363/862 vi_vn:2994/361/857 wo_sn:2279/169/371 xh_za:3466/446/1041 yo_ng:2339/378/831
yue_hant_hk:1939/362/819 zu_za:2858/354/854
"""
SIZES = {
    name: dict(zip(SPLITS, (Published(int(count)) for count in counts.split("/")), strict=True))
    for name, _, counts in (entry.partition(":") for entry in COUNTS.split())
}
OTHERWISE = {"cmn": "zh", "fil": "tl", "nb": "no"}  # ISO 639-1 where the corpus has another code
GOOGLE = "https://storage.googleapis.com/xtreme_translations/FLEURS102/{}.tar.gz"
HUGGING_FACE = "https://huggingface.co/datasets/google/fleurs/resolve/main/data/{}/{}.tsv"
MD5 = {  # the ETags of Google's server, which are MD5 sums, and sizes; of other languages its sizes are asked for
    "cmn_hans_cn": ("cd39a9c9ac596fb561ad90353660889e", 2522990658),
    "en_us": ("d1afa0c6f0417a6f8b3c667d29a11749", 1848241090),
    "pt_br": ("abdd3a3902269e1a588fe50b00950fcf", 2682883058),
}
MALFORMED = f"{{}} has a line without all of {len(COLUMNS)} columns ({', '.join(COLUMNS)})."
AGAIN = "run 'python -m local.fleurs download' (stage 0), which fetches only what is missing"


def iso_of(name: str) -> str:
    """The ISO 639 code of one of the corpus' languages, of two letters where there is such: "fr" of fr_fr."""
    code = name.split("_")[0]
    return OTHERWISE.get(code, code)


def check_language(name: str) -> str:
    """The corpus' name of a language, given that or its ISO code; `UserError` with the nearest if there is none."""
    names = {code: known for known in SIZES for code in (known.split("_")[0], iso_of(known), known)}
    if name not in names:
        raise UserError(f"FLEURS has no language '{name}'{nearest(name, names)}: give a code such as fr_fr, or fr.")
    return names[name]


def check_pair(arguments: Namespace) -> tuple[str, str]:
    """The two languages; `UserError` where they are one."""
    if arguments.source == arguments.target:
        raise UserError(f"--source and --target are both {arguments.source}: give two languages.")
    return arguments.source, arguments.target


def print_codes(arguments: Namespace) -> None:
    """Print the ISO codes of the pair."""
    print(*map(iso_of, check_pair(arguments)))


def download(arguments: Namespace) -> None:
    """Fetch and unpack Google's archive of the source language; of the target the texts, 2 MB from Hugging Face."""
    source, target = check_pair(arguments)
    out = Path(arguments.out)
    md5, size = MD5.get(source, ("", 0))
    download_archives([Archive(f"{source}.tar.gz", size, url=GOOGLE.format(source), md5=md5)], out, keep=False)
    fetch_all([Archive(f"{split}.tsv", url=HUGGING_FACE.format(target, split)) for split in SPLITS], out / target)


# ---- the authors' files


def is_whole(columns: Sequence[str]) -> bool:
    """Whether a line has all columns, and the id is one."""
    return len(columns) == len(COLUMNS) and columns[0].isdecimal()


def read_lines(path: Path) -> dict[str, list[list[str]]]:
    """{recording: its lines' columns}, without lines that stand twice, of a TSV file (no header, no quoting).

    Lines of other than seven columns are there under their number. `UserError` where the file cannot be read.
    """
    found: dict[str, list[list[str]]] = {}
    for number, line in enumerate(read_text(path, AGAIN), 1):
        columns = line.split("\t")
        own = found.setdefault(Path(columns[1]).stem if is_whole(columns) else f"{path.name}:{number}", [])
        if line.strip() and columns not in own:
            own.append(columns)
    return {key: lines for key, lines in found.items() if lines}


def read_translations(path: Path, left_out: list[dict]) -> dict[str, str]:
    """{id: sentence} as it is written in the target language, without the lines added to `left_out`."""
    found = {}
    for key, lines in read_lines(path).items():
        for columns in lines:
            if is_whole(columns):
                found[columns[0]] = " ".join(columns[2].split())
            else:
                left_out.append(
                    {"id": f"{path.parent.name}/{key}", "reason": "malformed", "detail": MALFORMED.format(path)}
                )
    if not any(found.values()):
        raise UserError(f"{path} has no line of {len(COLUMNS)} columns ({', '.join(COLUMNS)}): {AGAIN}.")
    return found


def only_line(lines: Sequence[list[str]], path: Path, key: str) -> list[str]:
    """The columns of a recording's one line in `path`; `Unusable` where there is none, another, or no text in it."""
    if not lines:
        raise Unusable("no text", f"{path} has no line for {key}.wav.")
    if len(lines) > 1:
        raise Unusable("duplicate id", f"{path} has {len(lines)} different lines for {key}.wav.")
    if not is_whole(lines[0]):
        raise Unusable("malformed", MALFORMED.format(path))
    if not lines[0][3].strip():
        raise Unusable("no text", f"{path} has no transcription of {key}.wav.")
    return lines[0]


def unpacked(archive: Path, names: set[str], folder: Path) -> Path:
    """`folder` with the recordings `names` of an archive such as Hugging Face's audio/dev.tar.gz, unpacked once."""
    if not folder.is_dir():
        temporary = folder.with_name(f".tmp-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was stopped
        temporary.mkdir(parents=True)
        try:
            with open(archive, "rb") as file:
                refuse_pointer(archive, file.read(len(POINTER)))
            with tarfile.open(archive, "r|gz") as members:
                for member in members:
                    if member.isfile() and (name := Path(member.name).name) in names:
                        with open(temporary / name, "wb") as file:
                            shutil.copyfileobj(members.extractfile(member), file)
        except DAMAGE as error:
            shutil.rmtree(temporary)
            raise UserError(f"{archive} is damaged ({error}): fetch it again.") from None
        except Unusable as error:
            raise UserError(str(error)) from None
        temporary.rename(folder)
    return folder


def read_split(folder: Path, split: str, target: Path, out: Path, jobs: int, left_out: list[dict]) -> list[Utterance]:
    """The readings of a split in the order of its TSV file, without those added to `left_out`.

    `folder` has the source language, `target` the other; recordings that are there as archives are unpacked to `out`.
    """
    path, audio, other_path = folder / f"{split}.tsv", folder / "audio" / split, target / f"{split}.tsv"
    lines, translations = read_lines(path), read_translations(other_path, left_out)
    if not audio.is_dir() and (archive := audio.with_name(f"{split}.tar.gz")).is_file():
        audio = unpacked(archive, {f"{key}.wav" for key in lines}, out / folder.name / split)
    lines = {**lines, **{path.stem: [] for path in sorted(audio.glob("*.wav")) if path.stem not in lines}}
    files = AudioFiles((audio / f"{key}.wav" for key in lines), jobs, split)
    code, into, other = iso_of(folder.name), iso_of(target.name), []

    def read(key: str, own: list[list[str]]) -> Utterance:
        sentence, _, raw, text, _, samples, gender = only_line(own, path, key)
        recording = files.recording(audio / f"{key}.wav")
        if samples != str(recording.num_samples):
            other.append(key)
        custom = {"raw_text": raw, "sentence": int(sentence)}
        if translations.get(sentence):
            custom["translation"] = {into: translations[sentence]}
        utterance = make_utterance(key, recording, " ".join(text.split()), code, key, custom)
        utterance.supervision.gender = gender.strip().lower()
        return utterance

    found = usable(read_utterances(lines, read, left_out, path, AGAIN))
    if not any("translation" in item.supervision.custom for item in found):
        raise UserError(f"{other_path} has none of the sentences of {path}: {AGAIN}.")
    print(f"{path}: {len(other)} recordings are not as long as their lines say")
    return found


# ---- manifests


def print_sentences(splits: Mapping[str, list[Utterance]], into: str) -> None:
    """Print of each split how many sentences are read, and how many of them are there in the other language."""
    for split, utterances in splits.items():
        customs = [item.supervision.custom for item in utterances]
        translated = {custom["sentence"] for custom in customs if "translation" in custom}
        print(f"{split}: {len({custom['sentence'] for custom in customs})} sentences, {len(translated)} in {into}")


def make_manifests(arguments: Namespace) -> None:
    """Write recordings and supervisions of every split and `left_out.jsonl`; print their sizes beside the published."""
    source, target = check_pair(arguments)
    out, left_out = Path(arguments.out), []
    corpus = find_folder(Path(arguments.corpus), (source, target), ("data",), AGAIN)
    splits = {
        split: read_split(corpus / source, split, corpus / target, out / "audio", arguments.jobs, left_out)
        for split in SPLITS
    }
    leave_manifests(out, splits, left_out)
    print_sentences(splits, target)
    compare_with_published(splits, SIZES[source])


def main() -> None:
    """Command line."""
    program = Program("fleurs", "FLEURS: download, manifests of two of its languages.")
    commands = (
        program.add(print_codes, "codes", "print the ISO codes of two languages"),
        program.download(download, "fetch what two languages need", "a folder for each language"),
        program.manifests(make_manifests, "folder that has a folder for each language"),
    )
    for command in commands:
        command.add_argument("--source", type=check_language, default="fr_fr", help="language that is spoken")
        command.add_argument("--target", type=check_language, default="en_us", help="language translated into")
    program.main()


if __name__ == "__main__":
    run(main)
