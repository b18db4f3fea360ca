#!/usr/bin/env bash
# Asterisk prompts: one multilingual recogniser for five languages, from nothing to WER and CER.
# One encoder with two heads on the transcript, CTC and transducer, trained from scratch; then language models of the
# transcripts (n-grams of words and characters, an LSTM), graphs, and all ways to decode with them, tuned on dev.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                    # a folder that has the packages already (otherwise stage 0 downloads them)
languages="en es fr it ru"   # languages that are recognised
systems="recogniser"         # what is trained, of conf/*/<system>.yaml
conf=conf/laptop             # conf/laptop or conf/gpu
splits="dev test"            # what is decoded and scored
exp=exp                      # folder of models, logs and results: another one for another conf
jobs=2                       # processes that prepare features
processes=1                  # that train a system together: one a GPU
. parse_options.sh

cuts=$(printf 'data/%s/cuts.jsonl.gz ' $splits)
decoded=$(for system in $systems; do printf "$exp/$system/decode/%s.* " $splits; done)
greedy=$(for system in $systems; do printf "$exp/$system/decode/%s.transducer.greedy " $splits; done)
results=RESULTS.md
[ "$exp" = exp ] || results=$exp/RESULTS.md
train="$(launch "$processes") -m steps.train"
texts=data/manifests/train_supervisions.jsonl.gz
searches=conf/searches.yaml
k2=$(python -c "import k2" 2>/dev/null && echo there || true)
[ -z "$k2" ] || searches+=" conf/searches-k2.yaml"

stage 0 "Download" && [ -z "$corpus" ] &&
  run download --out downloads -- python -m local.asterisk download --out downloads --languages $languages

stage 1 "Manifests" &&
  run manifests --in "${corpus:-downloads}" --out data/manifests -- \
    python -m local.asterisk manifests --corpus "${corpus:-downloads}" --out data/manifests --languages $languages

stage 2 "Features" &&
  run features --in "data/manifests $conf/features.yaml" --out "data/train/cuts.jsonl.gz $cuts" -- \
    python -m steps.prepare.features --manifests data/manifests --out data --config "$conf/features.yaml" --jobs "$jobs"

stage 3 "Tokens" &&
  run lang-char --in data/train/cuts.jsonl.gz --out data/lang_char/tokens.txt -- \
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target text --type char --out data/lang_char

if stage 4 "Language models"; then
  ngram() { # name, order, further options
    run "lm-$1" --in "$texts data/lang_char" --out "data/lm/$1.arpa" -- \
      python -m steps.lm.ngram train --cuts "$texts" --order "$2" --out "data/lm/$1.arpa" "${@:3}"
  }
  graph() { # name, further options
    run "graph-$1" --in "data/lm/$1.arpa data/lang_char" --out "data/graph_$1/graph.json" -- \
      python -m steps.lang.graph --lang data/lang_char --lm "data/lm/$1.arpa" --out "data/graph_$1"
  }
  ngram word_3gram 3
  ngram word_4gram 4
  ngram char_2gram 2 --lang data/lang_char
  ngram char_6gram 6 --lang data/lang_char
  [ -z "$k2" ] || { graph word_3gram && graph word_4gram; }
  run lm-char_lstm --in "$texts data/lang_char conf/lm.yaml" --out data/lm/char_lstm/averaged.pt -- \
    $train conf/lm.yaml --out data/lm/char_lstm
fi

stage 5 "Training" && for system in $systems; do
  run "train-$system" --in "data/train/cuts.jsonl.gz data/lang_char $conf/$system.yaml" \
    --out "$exp/$system/averaged.pt" -- $train "$conf/$system.yaml" --out "$exp/$system"
done

if stage 6 "Decoding, scales chosen on dev"; then
  for system in $systems; do
    run "tune-$system" --in "$exp/$system/averaged.pt data/lm $searches conf/hotwords.txt" --out "$exp/$system/searches.yaml" -- \
      python -m steps.tune --model "$exp/$system" --cuts data/dev/cuts.jsonl.gz --searches $searches \
      --out "$exp/$system/searches.yaml"
    run "decode-$system" --in "$exp/$system/averaged.pt $cuts data/lm $exp/$system/searches.yaml" \
      --out "$exp/$system/decode" -- python -m steps.decode --model "$exp/$system" --cuts $cuts \
      --searches "$exp/$system/searches.yaml" --out "$exp/$system/decode"
  done
fi

if stage 8 "Scores"; then
  run score --in "$decoded" --out "$results" -- python -m steps.score $decoded --report "$results" \
    --baseline $greedy
  cat "$results"
fi
