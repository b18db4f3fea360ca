# shellcheck shell=bash
# shellcheck disable=SC2034,SC2046,SC2059,SC2086,SC2154  # variables are the recipe's; options of several words are meant to be split
# The words that recipes have in common, sourced by a run.sh below its options (`. words.sh`): a line or two a stage. They go
# by the recipe's options: corpus, mini, conf, exp, systems, splits (decoded and scored), held_out (what is chosen is chosen
# there), jobs (processes of preparation), preset (the machine that trains), processes (of training, otherwise the preset's).
# Each `run` of theirs is one program of steps/ or local/.

results=RESULTS.md
[ "$exp" = exp ] || results=$exp/RESULTS.md
train="$(launch "${processes:-}" "${preset:-}") -m steps.train"
texts=data/manifests/train_supervisions.jsonl.gz
data=data # where the cuts are: `of` has others
cuts=$(printf 'data/%s/cuts.jsonl.gz ' $splits)
corpus=${corpus:-} miniature=""
[ -d "$conf" ] || refuse "--conf $conf is no folder: give one that has the YAML files of conf, such as a copy of it."
place=${corpus:-downloads}
if [ "${mini:-false}" = true ]; then
  [ -z "$corpus" ] || refuse "--mini makes a corpus of its own: leave out --corpus $corpus."
  miniature=downloads/miniature place=downloads/miniature
fi
[ -z "$corpus" ] || [ -e "$corpus" ] || [ "$DRAGOMAN_STAGE" -gt 1 ] ||
  refuse "--corpus ${corpus/#[!\/]*/$PWD/$corpus} does not exist: give the folder that has the corpus."

# Is a word among several? `among "$systems" cascade`
among() { case " $1 " in *" $2 "*) ;; *) return 1 ;; esac; }

# Is a Python module there? `has k2`; tried once, as some take seconds
has() {
  local known=dragoman_has_$1
  [ -n "${!known:-}" ] || printf -v "$known" %s "$(python -c "import $1" 2>/dev/null && echo yes || echo no)"
  [ "${!known}" = yes ]
}

[ "${target:-}" != ja ] || has MeCab ||
  refuse "--target ja: sacrebleu needs MeCab: run 'pip install sacrebleu[ja]' after '. path.sh'."

# with_conf: the systems that have a YAML file in conf, for `one_of`
with_conf() { basename -s .yaml "$conf"/*.yaml | grep -vx 'lm\|.*features\|searches.*' | xargs; }

# fetch <module> [options]: the corpus into downloads/, in miniature with --mini, not at all where --corpus names it
fetch() {
  if [ -n "$miniature" ]; then
    run miniature --out downloads/miniature -- python -m "tests.corpora.$1" --out downloads/miniature
  elif [ -z "$corpus" ]; then
    run download --out downloads -- python -m "local.$1" download --out downloads "${@:2}"
  fi
}

# noises <parts>: MUSAN (musan) and RIRS_NOISES (rirs) in downloads/noise, in miniature with --mini
noises() {
  if [ -n "$miniature" ]; then
    run noise --out downloads/noise -- python -m tests.corpora.noise --out downloads/noise
  else
    run noise --out downloads/noise -- python -m local.noise download --parts "$@" --out downloads/noise --delete-archives
  fi
}

# manifests <module> [options]: what the corpus says, as Lhotse manifests
manifests() {
  run manifests --in "$place" --out data/manifests -- \
    python -m "local.$1" manifests --corpus "$place" --out data/manifests --jobs "$jobs" "${@:2}"
  run validate-manifests --in data/manifests -- \
    python -m steps.prepare.validate --manifests data/manifests --max-bad 0.1 --jobs "$jobs"
}

# pretrained <name> <hub name or folder>: a model that others trained, downloads/<name>
pretrained() { run "$1" --out "downloads/$1" -- python -m steps.pretrained.fetch "$2" --out "downloads/$1"; }

# of <kind> <word> ...: features, train or decode with the features of conf/<kind>-features.yaml, in data/<kind>
of() {
  local data=data/$1 cuts
  cuts=$(printf "$data/%s/cuts.jsonl.gz " $splits)
  "${@:2}"
}

# features [further inputs] [overrides]: checked cuts with features of train, held-out and scored splits
features() {
  local kind=features used made
  [ "$data" = data ] || kind=${data#data/}-features
  used=$(printf '%s\n' train $held_out $splits | awk '!seen[$0]++')
  made=$(printf "$data/%s/cuts.jsonl.gz " $used)
  run "$kind" --in "data/manifests $conf/$kind.yaml ${1:-}" --out "$made" -- \
    python -m steps.prepare.features --manifests data/manifests --out "$data" --config "$conf/$kind.yaml" --jobs "$jobs" \
    --splits $used "${@:2}"
  run "validate-$kind" --in "$made" -- python -m steps.prepare.validate --cuts $made --jobs "$jobs"
}

# tokens <name> [options]: a token set of the training texts, data/lang_<name>
tokens() {
  run "lang-$1" --in "$texts $(ls "downloads/$1/tokenizer.json" 2>/dev/null || true)" --out "data/lang_$1/tokens.txt" -- \
    python -m steps.lang.prepare --cuts "$texts" --out "data/lang_$1" "${@:2}"
  run "validate-lang_$1" --in "data/lang_$1" -- python -m steps.prepare.validate --lang "data/lang_$1"
}

# ngram <name> <order> [options]: an n-gram of the training texts, data/lm/<name>.arpa
ngram() {
  run "lm-$1" --in "$texts data/lang_*" --out "data/lm/$1.arpa" -- \
    python -m steps.lm.ngram train --cuts "$texts" --order "$2" --out "data/lm/$1.arpa" "${@:3}"
}

# graph <name> <lang> <ARPA file> [options]: a decoding graph, data/graph_<name>
graph() {
  run "graph-$1" --in "$2 $3" --out "data/graph_$1/graph.json" -- \
    python -m steps.lang.graph --lang "$2" --lm "$3" --out "data/graph_$1" "${@:4}"
  run "validate-graph_$1" --in "data/graph_$1" -- python -m steps.prepare.validate --lang "data/graph_$1"
}

# neural_lm <name> <text> [overrides]: the language model of conf/lm.yaml, data/lm/<name>
neural_lm() {
  run "lm-$1" --in "$2 data/lang_* $conf/lm.yaml" --out "data/lm/$1/averaged.pt" -- \
    $train "$conf/lm.yaml" --out "data/lm/$1" "data.train=$2" "${@:3}"
}

# train <system> [further inputs] [overrides]: the model of conf/<system>.yaml, validated on the first held-out split
train() {
  run "train-$1" --in "$data/train/cuts.jsonl.gz data/lang_* $conf/$1.yaml ${2:-} ${preset:+$(preset_file "$preset")}" \
    --out "$exp/$1/averaged.pt" -- $train "$conf/$1.yaml" --out "$exp/$1" ${preset:+--preset "$preset"} \
    "data.valid=$data/${held_out%% *}/cuts.jsonl.gz" "${@:3}"
}

# decode <system> <searches.yaml ...> [options]: every search, with the values that are best on the first held-out split
decode() {
  local models
  models=$(ls -d data/lm data/graph_* conf/*.txt 2>/dev/null || true) # what searches may name
  run "tune-$1" --in "$exp/$1/averaged.pt $data/${held_out%% *} $2 $models" --out "$exp/$1/searches.yaml" -- \
    python -m steps.tune --model "$exp/$1" --cuts "$data/${held_out%% *}/cuts.jsonl.gz" --searches $2 \
    --out "$exp/$1/searches.yaml" "${@:3}"
  run "decode-$1" --in "$exp/$1/averaged.pt $cuts $exp/$1/searches.yaml $models" --out "$exp/$1/decode" -- \
    python -m steps.decode --model "$exp/$1" --cuts $cuts --searches "$exp/$1/searches.yaml" --out "$exp/$1/decode" \
    "${@:3}"
}

# translate <system> <translator> <outputs> <split> <search> [options]: a cascade, exp/<system>/decode/<split>.<search>; its name
# in the tables is the system's, or the variable `row`
translate() {
  run "translate-$1-$4" --in "$exp/$2/averaged.pt $3/hyp.jsonl" --out "$exp/$1/decode/$4.$5" -- python -m steps.translate \
    --model "$exp/$2" --in "$3" --system "${row:-$1}" --out "$exp/$1/decode/$4.$5" "${@:6}"
}

# The folders of a search's outputs on all scored splits. `outputs "$systems" transducer.greedy`
outputs() {
  local system
  for system in $1; do printf "$exp/$system/decode/%s.$2 " $splits; done
}

# scores <systems> [options]: all outputs of these against their references, as RESULTS.md
scores() {
  local decoded
  decoded=$(printf "$exp/%s/decode " $1)
  run score --in "$decoded" --out "$results" -- python -m steps.score $decoded --report "$results" "${@:2}"
  cat "$results"
}

# ---- speech translation as three systems: `recogniser` writes what is said, `e2e` translates speech (its encoder begins as the
# recogniser's, its attention head learns the translation), `cascade` translates with `mt` what the recogniser wrote. These words
# go by two options more: target, the language translated into, and heard, the recogniser's search that the cascade reads. The
# token sets are data/lang_source and data/lang_target.

# parts <systems>: the models that these systems consist of, in the order in which they are trained
parts() {
  local system
  for system in $1; do
    case $system in e2e) echo "recogniser e2e" ;; cascade) echo "recogniser mt" ;; *) echo "$system" ;; esac
  done | tr ' ' '\n' | awk '!seen[$0]++'
}

# train_parts <systems>: the models of conf/{recogniser,e2e,mt}.yaml that these systems need
train_parts() {
  local part first=$exp/recogniser/averaged.pt
  for part in $(parts "$1"); do
    case $part in
      recogniser) train recogniser ;;
      e2e) train e2e "$first" "init.encoder=$first" "heads.attention.target=translation.$target" ;;
      mt) train mt "" "target.target=translation.$target" ;;
    esac
  done
}

# decode_parts <systems>: the searches of conf/searches-{recogniser,e2e}.yaml
decode_parts() {
  local part
  for part in $(parts "$1"); do
    [ "$part" = mt ] || decode "$part" "conf/searches-$part.yaml"
  done
}

# cascade [options]: what the recogniser wrote, its n-best lists, and what was really said, translated by mt
cascade() {
  local split
  for split in $splits; do
    translate cascade mt "$exp/recogniser/decode/$split.$heard" "$split" mt.beam --nbest 5 --beam 5 "$@"
    translate mt mt "$exp/recogniser/decode/$split.$heard" "$split" reference.beam --reference --beam 5 "$@"
  done
}

# score_parts <systems> [options]: these systems and what they consist of, in one table
score_parts() { scores "$(printf '%s\n' $1 $(parts "$1") | awk '!seen[$0]++' | xargs)" "${@:2}"; }
